"""What this machine is, and how full it is. Everything here blocks: call it in a thread.

1. GPUs are what NVML lists. A machine without one has a single `cpu` device, whose memory is the
   part of RAM that the operator gives to models.
2. No NVIDIA stack is normal and has no reason. A stack that is there but broken has one: the
   machine then serves from its CPU, and `/discovery` says why.
3. What NVML will not say is None, and never takes another field or device along.
"""

import platform
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import psutil

from cortex_core.settings import DevicesSettings
from cortex_core.wire import Device, DeviceHealth, Discovery
from cortex_neuron.processes import CpuMeter, family_of, resident_bytes

Nvml: TypeAlias = Any
"""The `pynvml` module, or something that answers like it: both without types."""

_Answer: TypeAlias = Any

_MIB = 1 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What does not change while the daemon is up, and the instruments to read what does."""

    hostname: str
    os: str
    kernel: str
    devices: tuple[Device, ...]
    cuda_version: str | None = None
    driver_version: str | None = None
    cuda_unavailable_reason: str | None = None
    nvml: Nvml | None = field(default=None, repr=False, compare=False)
    cpu_meter: CpuMeter = field(default_factory=CpuMeter, repr=False, compare=False)

    @property
    def discovery(self) -> Discovery:
        """The part of `/discovery` that is about the machine."""
        return Discovery(
            hostname=self.hostname,
            os=self.os,
            kernel=self.kernel,
            cuda_version=self.cuda_version,
            driver_version=self.driver_version,
            cuda_unavailable_reason=self.cuda_unavailable_reason,
            devices=self.devices,
        )

    @property
    def on_cpu(self) -> bool:
        """Whether models run on the CPU here."""
        return self.nvml is None


def load_nvml() -> Nvml | None:
    """Return the NVML bindings, or None where they are not installed."""
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def probe_machine(settings: DevicesSettings, nvml: Nvml | None = None) -> Machine:
    """Look at the machine; `nvml` stands in for the installed bindings. Never raises."""
    nvml = nvml if nvml is not None else load_nvml()
    gpus, reason = _find_gpus(nvml) if nvml is not None else ((), None)
    usable = nvml if gpus else None
    cuda = _ask(usable, "nvmlSystemGetCudaDriverVersion")
    return Machine(
        hostname=socket.gethostname(),
        os=_os_name(),
        kernel=platform.release(),
        devices=gpus or (_cpu(settings),),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if isinstance(cuda, int) else None,
        driver_version=_text(_ask(usable, "nvmlSystemGetDriverVersion")),
        cuda_unavailable_reason=reason,
        nvml=usable,
    )


def read_devices(machine: Machine, engine_pids: Iterable[int] = ()) -> tuple[DeviceHealth, ...]:
    """Return how full and how busy each device is now. `engine_pids` are those of our engines."""
    if machine.on_cpu:
        return tuple(_read_cpu(machine, device, engine_pids) for device in machine.devices)
    return tuple(_read_gpu(machine.nvml, device) for device in machine.devices)


def engine_memory_mb(machine: Machine, pid: int) -> int | None:
    """Return MiB that the engine `pid` and its children hold on this machine's devices."""
    if machine.on_cpu:
        used = resident_bytes([pid])
        return -(-used // _MIB) if used else None
    family, found = family_of(pid), list[int]()
    for device in machine.devices:
        handle = _ask(machine.nvml, "nvmlDeviceGetHandleByIndex", device.index)
        processes = _ask(machine.nvml, "nvmlDeviceGetComputeRunningProcesses", handle) or ()
        found += [p.usedGpuMemory for p in processes if p.pid in family and p.usedGpuMemory]
    return -(-sum(found) // _MIB) if found else None


def _find_gpus(nvml: Nvml) -> tuple[tuple[Device, ...], str | None]:
    """Return the GPUs, or none and why a stack that is there cannot be used."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return (), _why_broken(nvml, error)
    if not count:
        return (), "the NVIDIA driver runs but sees no GPU"
    return tuple(_gpu(nvml, index) for index in range(count)), None


def _why_broken(nvml: Nvml, error: Exception) -> str | None:
    code = getattr(error, "value", None)
    if code in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
        return None
    if code == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return (
            "the NVIDIA driver in the kernel and its library have different versions; "
            "reboot, or reload the kernel module"
        )
    return f"the NVIDIA driver is installed but does not work: {error}"


def _gpu(nvml: Nvml, index: int) -> Device:
    handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
    capability = _ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    return Device(
        index=index,
        kind="cuda",
        name=_text(_ask(nvml, "nvmlDeviceGetName", handle)) or "",
        uuid=_text(_ask(nvml, "nvmlDeviceGetUUID", handle)),
        vram_total_mb=_apply(
            _ask(nvml, "nvmlDeviceGetMemoryInfo", handle), lambda m: m.total // _MIB
        ),
        compute_capability=_apply(capability, lambda pair: f"{pair[0]}.{pair[1]}"),
    )


def _cpu(settings: DevicesSettings) -> Device:
    share = int(_memory_total() * settings.cpu_memory_share)
    return Device(index=0, kind="cpu", name=_cpu_name(), vram_total_mb=share // _MIB)


def _read_gpu(nvml: Nvml, device: Device) -> DeviceHealth:
    handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", device.index)
    memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    temperature = _ask(
        nvml, "nvmlDeviceGetTemperature", handle, getattr(nvml, "NVML_TEMPERATURE_GPU", 0)
    )
    return DeviceHealth(
        index=device.index,
        vram_used_mb=_apply(memory, lambda m: m.used // _MIB),
        vram_free_mb=_apply(memory, lambda m: m.free // _MIB),
        utilization_pct=_apply(
            _ask(nvml, "nvmlDeviceGetUtilizationRates", handle), lambda rates: float(rates.gpu)
        ),
        temp_c=_apply(temperature, float),
    )


def _read_cpu(machine: Machine, device: Device, engine_pids: Iterable[int]) -> DeviceHealth:
    total = device.vram_total_mb or 0
    used = -(-resident_bytes(engine_pids) // _MIB)
    available = psutil.virtual_memory().available // _MIB
    return DeviceHealth(
        index=device.index,
        vram_used_mb=used,
        vram_free_mb=max(0, min(total - used, available)),
        utilization_pct=machine.cpu_meter.percent(),
    )


def _ask(nvml: Nvml | None, question: str, *arguments: _Answer) -> _Answer:
    """Return NVML's answer, or None when it will not say or an argument is already unknown."""
    function = getattr(nvml, question, None)
    if nvml is None or function is None or None in arguments:
        return None
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def _apply(value: _Answer, function: Callable[[_Answer], _T]) -> _T | None:
    return None if value is None else function(value)


def _text(value: _Answer) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _memory_total() -> int:
    """Return bytes of RAM, or what a container may use of it."""
    total: int = psutil.virtual_memory().total
    try:
        return min(total, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no limit reads "max"
        return total
