"""Folders and backends for tests of exllamav2's adapter."""

import importlib
import sys
from pathlib import Path
from typing import Any

from orjson import dumps

from cortex_neuron.exllama.plan import Plan

#: A token that the fake generator holds back: half a character.
HALF = 40


def model(parent: Path, name: str) -> Path:
    """Write a model's folder."""
    made = parent / name
    made.mkdir()
    (made / "config.json").write_bytes(dumps({"rope_theta": 10000.0}))
    return made


def lora(parent: Path) -> Path:
    """Write an adapter's folder."""
    made = parent / "lora"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"")
    return made


def backend(folder: Path, **more: Any) -> Any:
    """Return the adapter with a model of a small plan."""
    made = importlib.import_module("cortex_neuron.exllama.v2.backend")
    small = {"context": 512, "cache": 1024, "chunk": 256, "slots": 2}
    return made.ExLlamaV2Backend(Plan(path=str(folder), **{**small, **more}), lambda _d, _t: None)


def generator() -> Any:
    """Return the newest generator."""
    return sys.modules["exllamav2.generator"].ExLlamaV2DynamicGenerator.made[-1]
