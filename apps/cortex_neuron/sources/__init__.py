"""Where a model's files come from: a path, a Hugging Face repository, or a wheel on an index."""

from cortex_neuron.sources.fetching import FetchCancelled, Fetching
from cortex_neuron.sources.local import LocalModel, ModelScan, scan_model_dirs
from cortex_neuron.sources.parse import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    Source,
    parse_source,
)
from cortex_neuron.sources.resolving import find, resolve
from cortex_neuron.sources.store import Stored, remove, stored

__all__ = [
    "FetchCancelled",
    "Fetching",
    "FileSource",
    "FolderSource",
    "HuggingFaceSource",
    "LocalModel",
    "ModelScan",
    "PypiSource",
    "Source",
    "Stored",
    "find",
    "parse_source",
    "remove",
    "resolve",
    "scan_model_dirs",
    "stored",
]
