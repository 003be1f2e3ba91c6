"""The machine that is checked: its GPUs as NVML has them, its memory, its versions."""

import platform
import threading
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Self

from cortex_core.wire import Device
from cortex_neuron.nvml import Found, Nvml

_TOLD = ("cortex", "torch", "exllamav2", "flash-attn", "tokenizers", "llguidance", "numpy")
_LOOK_SECS = 0.05


def absence(found: Found) -> str | None:
    """Return in one sentence why nothing can be checked here, None when something can."""
    if found.nvml is not None:
        return None
    reason = found.reason or "no NVIDIA driver was found"
    return f"this machine has no NVIDIA GPU that can be used: {reason}; nothing was checked"


def described(nvml: Nvml) -> dict[str, str]:
    """Return what the machine is: date, system, driver, and each device."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "driver": f"{nvml.driver_version or 'unknown'}, CUDA {nvml.cuda_version or 'unknown'}",
        **{f"device {device.index}": _card(device) for device in nvml.devices},
    }


def versions() -> dict[str, str]:
    """Return the versions in this environment."""
    told = ", ".join(f"{name} {_version(name)}" for name in _TOLD)
    return {"python": platform.python_version(), "versions": told}


def used_mb(nvml: Nvml, devices: Sequence[int]) -> int:
    """Return MiB in use on some devices together, by whomever."""
    return sum(one.vram_used_mb or 0 for one in nvml.read() if one.index in devices)


class Peak:
    """The most MiB in use on some devices for as long as the block lasts."""

    def __init__(self, nvml: Nvml, devices: Sequence[int]) -> None:
        self._nvml = nvml
        self._devices = devices
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.mb = used_mb(nvml, devices)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECS):
            self.mb = max(self.mb, used_mb(self._nvml, self._devices))


def _card(device: Device) -> str:
    capability = device.compute_capability or "unknown"
    return f"{device.name}, {device.vram_total_mb} MiB, compute capability {capability}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"
