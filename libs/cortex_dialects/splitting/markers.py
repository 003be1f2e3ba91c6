"""Markers in text that comes in pieces: found whole, and held back while they may still come."""

import re
from collections.abc import Iterable


class MarkerSearch:
    """Finds any of some markers; none of them may be the beginning of another."""

    def __init__(self, markers: Iterable[str]) -> None:
        known = tuple(markers)
        self._whole = re.compile("|".join(map(re.escape, known)) or r"(?!)")
        self._begun = frozenset(marker[:size] for marker in known for size in range(1, len(marker)))
        self._longest = max(map(len, self._begun), default=0)
        firsts = "".join(re.escape(marker[0]) for marker in known)
        self._first = re.compile(f"[{firsts}]" if firsts else r"(?!)")

    def find(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Return the first marker at or after `start`."""
        return self._whole.search(text, start)

    def settled(self, text: str, start: int = 0) -> int:
        """Return how far `text` can be no marker's beginning: what follows may become one."""
        earliest = max(start, len(text) - self._longest)
        if self._first.search(text, earliest) is None:
            return len(text)
        for at in range(earliest, len(text)):
            if text[at:] in self._begun:
                return at
        return len(text)
