"""Have exllamav2 take the CPU for CUDA devices. Python imports this by its name, where it finds it.

`CUDA_VISIBLE_DEVICES` says how many devices there are, as it does to CUDA. `STAND_IN_CAPABILITY` is
their compute capability (8.6 unless said).
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any


class _Finder(MetaPathFinder):
    """Finds torch and exllamav2's own modules, and mends them once they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torch" and name.partition(".")[0] != "exllamav2":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._real.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        if module.__name__ == "torch":
            _give_devices(module)
        else:
            _keep_on_cpu(module)


def _give_devices(torch: Any) -> None:
    """Have torch tell of as many CUDA devices as there should be."""
    count = _visible()
    major, minor = os.environ.get("STAND_IN_CAPABILITY", "8.6").split(".")
    properties = SimpleNamespace(
        major=int(major), minor=int(minor), name="stand-in", total_memory=24 << 30
    )
    cuda = torch.cuda
    cuda.device_count = lambda: count
    cuda.get_device_properties = lambda _index=0: properties
    cuda.mem_get_info = lambda _index=0: (20 << 30, 24 << 30)
    cuda.memory_allocated = lambda *_: 0
    cuda.synchronize = lambda *_: None
    cuda.Stream = _Stream


def _keep_on_cpu(module: Any) -> None:
    """Have a module of exllamav2 put on the CPU what it would put on a device."""
    for name, instead in (
        ("_torch_device", lambda _index: "cpu"),
        ("safe_move_tensor", lambda tensor, *_, **__: tensor),
        ("set_device_streams", lambda: None),
    ):
        if hasattr(module, name):
            setattr(module, name, instead)
    if hasattr(module, "global_streams"):
        module.global_streams.update({index: _Stream() for index in range(_visible())})


def _visible() -> int:
    said = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    return len([one for one in said.split(",") if one.strip()])


class _Stream:
    def synchronize(self) -> None:
        """Nothing: all is done in order."""


sys.meta_path.insert(0, _Finder())
