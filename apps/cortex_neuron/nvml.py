"""GPUs as NVML has them. Everything here blocks, for long when a GPU dies: never on the loop.

1. Devices are numbered in NVML's order, which is that of the PCI bus. A GPU that is split (MIG)
   counts as its instances, each with its own memory, and not as itself.
2. What NVML will not say is None, and never takes another field or device along.
3. A GPU that NVML calls lost has a fault and nothing to promise; it may come back.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias, TypeVar

import structlog

from cortex_core.wire import Device, DeviceHealth

log = structlog.get_logger()

Bindings: TypeAlias = Any
"""The `pynvml` module: it has no types."""

_Handle: TypeAlias = Any
_Answer: TypeAlias = Any
_T = TypeVar("_T")

_MIB = 1 << 20
#: Where NixOS has the driver's library, which the loader does not search.
_ELSEWHERE = "/run/opengl-driver/lib/libnvidia-ml.so.1"
_WAIT_MS = 500
_UNCORRECTED, _VOLATILE = 1, 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device, the handle to ask about it, and that of the GPU it is a part of, if it is one."""

    device: Device
    handle: _Handle
    whole: _Handle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look for GPUs came to: `nvml` is there if any can be used, else perhaps a reason."""

    nvml: "Nvml | None" = None
    reason: str | None = None


def find_gpus() -> Found:
    """Look for GPUs. No NVIDIA stack at all is normal, and no reason."""
    try:
        bindings = import_module("pynvml")
    except ImportError:
        return Found()
    try:
        _initialise(bindings)
        count = bindings.nvmlDeviceGetCount()
    except bindings.NVMLError as error:
        return Found(reason=_why_broken(bindings, error))
    if not count:
        return Found(reason="the NVIDIA driver runs but sees no GPU")
    nvml = Nvml(bindings, count)
    if not nvml.gpus and nvml.mute:
        return Found(reason="the NVIDIA driver lists GPUs, and none of them answers")
    if not nvml.gpus:
        reason = "every GPU is in MIG mode and has no instance: make one, or turn it off"
        return Found(reason=reason)
    return Found(nvml=nvml)


class Nvml:
    """The GPUs of this machine."""

    def __init__(self, bindings: Bindings, count: int) -> None:
        self._bindings = bindings
        found = list(self._handles(count))
        # One that does not even say who it is (it is lost already) cannot be given to an engine.
        named = [one for one in found if self._ask("nvmlDeviceGetUUID", one[0]) is not None]
        self.mute = len(found) - len(named)
        self.gpus = tuple(
            Gpu(self._describe(number, handle, whole), handle, whole)
            for number, (handle, whole) in enumerate(named)
        )
        if self.mute:
            log.warning("devices.mute", count=self.mute)

    @property
    def devices(self) -> tuple[Device, ...]:
        """What each device is, which does not change."""
        return tuple(gpu.device for gpu in self.gpus)

    @property
    def cuda_version(self) -> str | None:
        """The newest CUDA that the driver knows, as in `13.0`."""
        number = self._ask("nvmlSystemGetCudaDriverVersion")
        return _apply(number, lambda n: f"{n // 1000}.{n % 1000 // 10}")

    @property
    def driver_version(self) -> str | None:
        """The driver's version."""
        return _text(self._ask("nvmlSystemGetDriverVersion"))

    def read(self) -> tuple[DeviceHealth, ...]:
        """Return how full and how busy each device is now."""
        return tuple(self._read(gpu) for gpu in self.gpus)

    def holdings(self) -> dict[int, dict[int, int]]:
        """Return MiB by device and process, of the processes whose share NVML tells."""
        return {
            gpu.device.index: {
                process.pid: -(-process.usedGpuMemory // _MIB)
                for process in self._ask("nvmlDeviceGetComputeRunningProcesses", gpu.handle) or ()
                if process.usedGpuMemory
            }
            for gpu in self.gpus
        }

    def _handles(self, count: int) -> Iterator[tuple[_Handle, _Handle | None]]:
        """Yield each usable GPU, or the instances it is split into."""
        for number in range(count):
            handle = self._ask("nvmlDeviceGetHandleByIndex", number)
            modes = self._ask("nvmlDeviceGetMigMode", handle)
            if not (modes and modes[0]):
                yield handle, None
                continue
            for part in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
                instance = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, part)
                if instance is not None:
                    yield instance, handle

    def _describe(self, number: int, handle: _Handle, whole: _Handle | None) -> Device:
        capability = self._ask("nvmlDeviceGetCudaComputeCapability", whole or handle)
        ecc = self._ask("nvmlDeviceGetEccMode", whole or handle)
        return Device(
            index=number,
            kind="cuda",
            name=_text(self._ask("nvmlDeviceGetName", handle)) or "",
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
            vram_total_mb=_apply(
                self._ask("nvmlDeviceGetMemoryInfo", handle), lambda m: m.total // _MIB
            ),
            compute_capability=_apply(capability, lambda pair: f"{pair[0]}.{pair[1]}"),
            part_of=_text(self._ask("nvmlDeviceGetUUID", whole)),
            ecc=_apply(ecc, lambda modes: bool(modes[0])),
        )

    def _read(self, gpu: Gpu) -> DeviceHealth:
        index, handle, whole = gpu.device.index, gpu.handle, gpu.whole or gpu.handle
        memory, lost = self._memory(handle)
        if lost:
            return DeviceHealth(
                index=index, vram_free_mb=0, fault="lost: the driver does not see it"
            )
        watts = _apply(self._ask("nvmlDeviceGetPowerUsage", whole), lambda mw: round(mw / 1000, 1))
        return DeviceHealth(
            index=index,
            vram_used_mb=_apply(memory, lambda m: -(-m.used // _MIB)),
            vram_free_mb=_apply(memory, lambda m: m.free // _MIB),
            utilization_pct=_apply(
                self._ask("nvmlDeviceGetUtilizationRates", handle), lambda rates: float(rates.gpu)
            ),
            temp_c=_apply(self._temperature(whole), float),
            power_w=watts,
            ecc_errors=self._ask("nvmlDeviceGetTotalEccErrors", whole, _UNCORRECTED, _VOLATILE),
        )

    def _memory(self, handle: _Handle) -> tuple[_Answer, bool]:
        """Return the memory of a device, and whether it is lost."""
        nvml = self._bindings
        try:
            return nvml.nvmlDeviceGetMemoryInfo(handle), False
        except nvml.NVMLError as error:
            return None, error.value == nvml.NVML_ERROR_GPU_IS_LOST

    def _temperature(self, handle: _Handle) -> _Answer:
        """Return the temperature; drivers of before 2025 know the older question only."""
        sensor = self._bindings.NVML_TEMPERATURE_GPU
        newer = self._ask("nvmlDeviceGetTemperatureV", handle, sensor)
        return self._ask("nvmlDeviceGetTemperature", handle, sensor) if newer is None else newer

    def _ask(self, question: str, *arguments: _Answer) -> _Answer:
        """Return NVML's answer, or None when it will not say or an argument is already unknown."""
        function = getattr(self._bindings, question, None)
        if function is None or None in arguments:
            return None
        try:
            return function(*arguments)
        except self._bindings.NVMLError:
            return None

    def watch(self, heard: Callable[[tuple[int, ...], int], object]) -> "XidWatch":
        """Start to hear of XIDs in a thread: `heard` gets the devices concerned and the number."""
        handles = {_address(gpu.whole or gpu.handle): gpu.whole or gpu.handle for gpu in self.gpus}
        devices: dict[int, tuple[int, ...]] = {
            where: tuple(
                gpu.device.index for gpu in self.gpus if _address(gpu.whole or gpu.handle) == where
            )
            for where in handles
        }
        watch = XidWatch(self._bindings, tuple(handles.values()), devices, heard)
        watch.start()
        return watch


class XidWatch(threading.Thread):
    """Waits for the driver's critical errors; `stop` ends it within half a second."""

    def __init__(
        self,
        bindings: Bindings,
        handles: tuple[_Handle, ...],
        devices: dict[int, tuple[int, ...]],
        heard: Callable[[tuple[int, ...], int], object],
    ) -> None:
        super().__init__(name="xid-watch", daemon=True)
        self._bindings = bindings
        self._handles = handles
        self._devices = devices
        self._heard = heard
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let it end."""
        self._stopped.set()

    def run(self) -> None:
        """Register and wait, until stopped."""
        nvml = self._bindings
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            log.info("xids.unavailable", error=str(error))
            return
        try:
            for handle in self._handles:
                with suppress(nvml.NVMLError):  # that GPU cannot tell
                    nvml.nvmlDeviceRegisterEvents(
                        handle, nvml.nvmlEventTypeXidCriticalError, events
                    )
            while not self._stopped.is_set():
                self._wait(events)
        finally:
            with suppress(nvml.NVMLError):
                nvml.nvmlEventSetFree(events)

    def _wait(self, events: _Answer) -> None:
        nvml = self._bindings
        try:
            event = nvml.nvmlEventSetWait(events, _WAIT_MS)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_TIMEOUT:
                self._stopped.wait(_WAIT_MS / 1000)  # a lost GPU makes every wait end at once
            return
        self._heard(self._devices.get(_address(event.device), ()), int(event.eventData))


def _initialise(nvml: Bindings) -> None:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise
        try:
            ctypes.CDLL(_ELSEWHERE)
        except OSError:
            raise error from None
        # What is loaded already is found by its own name.
        nvml.nvmlInit()


def _why_broken(nvml: Bindings, error: Exception) -> str | None:
    code = getattr(error, "value", None)
    if code in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
        return None
    if code == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return (
            "the NVIDIA driver in the kernel and its library have different versions; "
            "reboot, or reload the kernel module"
        )
    return f"the NVIDIA driver is installed but does not work: {error}"


def _address(handle: _Handle) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _apply(value: _Answer, function: Callable[[_Answer], _T]) -> _T | None:
    return None if value is None else function(value)


def _text(value: _Answer) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
