"""Where the small model lies that tests run for real."""

import os
from pathlib import Path

from cortex_core.settings import NeuronSettings
from cortex_neuron.demo import DEMO_SOURCE
from cortex_neuron.sources import Fetching, parse_source, resolve


def demo_model_path() -> Path:
    """Return the file that `CORTEX_TEST_MODEL` names, else fetch it into the user's cache."""
    if named := os.environ.get("CORTEX_TEST_MODEL"):
        return Path(named)
    cache = NeuronSettings().resolved_cache_dir(os.environ)
    fetching = Fetching(cache_dir=cache, environment=dict(os.environ))
    return resolve(parse_source(DEMO_SOURCE, Path.cwd()), None, fetching)
