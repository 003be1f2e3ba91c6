"""exllamav3 behind the seam of a backend: the only place that imports it, and only in an engine."""
