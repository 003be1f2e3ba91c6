"""Adapters."""

from typing import Any


class LoRA:
    """An adapter."""

    def __init__(self, scale: float) -> None:
        self.scale, self.unloaded = scale, False

    @staticmethod
    def from_directory(model: Any, directory: str, lora_scaling: float = 1.0) -> "LoRA":
        """Lay it over the model."""
        return LoRA(lora_scaling)

    def unload(self) -> None:
        """Take it off."""
        self.unloaded = True
