"""What this machine is, and how full it is. Everything here blocks: call it in a thread.

1. GPUs are what NVML lists. A machine without one has a single `cpu` device, whose memory is the
   part of RAM that the operator gives to models.
2. No NVIDIA stack is normal and has no reason. A stack that is there but broken has one: the
   machine then serves from its CPU, and `/discovery` says why.
"""

import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import psutil

from cortex_core.settings import DevicesSettings
from cortex_core.wire import Device, DeviceHealth, Discovery
from cortex_neuron.nvml import Nvml, find_gpus
from cortex_neuron.processes import CpuMeter, family_of, resident_bytes

Held: TypeAlias = Mapping[int, int]
"""MiB that one engine holds, by device."""

_MIB = 1 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


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


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the meters: each device, and what the engines hold, by model."""

    devices: tuple[DeviceHealth, ...] = ()
    held: Mapping[str, Held] = field(default_factory=dict)


def probe_machine(settings: DevicesSettings) -> Machine:
    """Look at the machine. Never raises."""
    found = find_gpus()
    nvml = found.nvml
    return Machine(
        hostname=socket.gethostname(),
        os=_os_name(),
        kernel=platform.release(),
        devices=nvml.devices if nvml else (_cpu(settings),),
        cuda_version=nvml.cuda_version if nvml else None,
        driver_version=nvml.driver_version if nvml else None,
        cuda_unavailable_reason=found.reason,
        nvml=nvml,
    )


def read_machine(machine: Machine, engines: Mapping[str, int]) -> Reading:
    """Return how full each device is, and what each engine (its model's id, its pid) holds."""
    if machine.nvml is None:
        return _read_cpu(machine, engines)
    return _read_gpus(machine.nvml, engines)


def _read_gpus(nvml: Nvml, engines: Mapping[str, int]) -> Reading:
    families = {model: family_of(pid) for model, pid in engines.items()}
    ours = frozenset[int]().union(*families.values())
    holdings = nvml.holdings()
    # In a container NVML may call our processes by numbers that are not theirs here.
    ours_are_known = not engines or any(pid in held for held in holdings.values() for pid in ours)
    devices = tuple(
        one.model_copy(update={"vram_foreign_mb": _foreign(one, holdings[one.index], ours)})
        if ours_are_known
        else one
        for one in nvml.read()
    )
    held = {
        model: {
            index: mine
            for index, by_pid in holdings.items()
            if (mine := sum(mb for pid, mb in by_pid.items() if pid in family))
        }
        for model, family in families.items()
    }
    return Reading(devices, {model: by_device for model, by_device in held.items() if by_device})


def _foreign(device: DeviceHealth, by_pid: Mapping[int, int], ours: Iterable[int]) -> int | None:
    """Return MiB in use that no engine of ours holds; the driver's own share is among them."""
    if device.vram_used_mb is None:
        return None
    return max(0, device.vram_used_mb - sum(by_pid.get(pid, 0) for pid in ours))


def _read_cpu(machine: Machine, engines: Mapping[str, int]) -> Reading:
    (device,) = machine.devices
    held = {model: -(-resident_bytes([pid]) // _MIB) for model, pid in engines.items()}
    total, used = device.vram_total_mb or 0, sum(held.values())
    available = psutil.virtual_memory().available // _MIB
    health = DeviceHealth(
        index=device.index,
        vram_used_mb=used,
        vram_free_mb=max(0, min(total - used, available)),
        utilization_pct=machine.cpu_meter.percent(),
    )
    return Reading((health,), {model: {device.index: mb} for model, mb in held.items() if mb})


def _cpu(settings: DevicesSettings) -> Device:
    share = int(_memory_total() * settings.cpu_memory_share)
    return Device(index=0, kind="cpu", name=_cpu_name(), vram_total_mb=share // _MIB)


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
