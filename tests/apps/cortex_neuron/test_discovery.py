"""What a machine says it is, with and without GPUs."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cortex_core.settings import DevicesSettings
from cortex_core.wire import Device, DeviceHealth
from cortex_neuron.discovery import Machine, engine_memory_mb, probe_machine, read_devices

MIB = 1 << 20


class NvmlFault(Exception):
    """What the fake raises; `value` is NVML's own code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


def fake_nvml(
    *gpus: tuple[str, int, int],
    init: int | None = None,
    silent: frozenset[str] = frozenset(),
    processes: dict[int, list[tuple[int, int | None]]] | None = None,
) -> SimpleNamespace:
    """Return what answers like `pynvml` for GPUs given as (name, total, used) in MiB."""

    def start() -> None:
        if init is not None:
            raise NvmlFault(init)

    def memory(handle: int) -> SimpleNamespace:
        _, total, used = gpus[handle]
        return SimpleNamespace(total=total * MIB, used=used * MIB, free=(total - used) * MIB)

    def running(handle: int) -> list[SimpleNamespace]:
        found = (processes or {}).get(handle, [])
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in found]

    def refuse(*_: object) -> None:
        raise NvmlFault(3)

    answers: dict[str, Callable[..., object]] = {
        "nvmlInit": start,
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlSystemGetCudaDriverVersion": lambda: 12080,
        "nvmlSystemGetDriverVersion": lambda: b"570.1",
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: gpus[handle][0],
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetCudaComputeCapability": lambda _: (8, 6),
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37, memory=1),
        "nvmlDeviceGetTemperature": lambda _, __: 61,
        "nvmlDeviceGetComputeRunningProcesses": running,
    }
    return SimpleNamespace(
        NVMLError=NvmlFault,
        NVML_ERROR_LIBRARY_NOT_FOUND=12,
        NVML_ERROR_DRIVER_NOT_LOADED=9,
        NVML_ERROR_LIB_RM_VERSION_MISMATCH=18,
        NVML_TEMPERATURE_GPU=0,
        **(answers | dict.fromkeys(silent, refuse)),
    )


TWO = (("RTX 3060", 12288, 1000), ("RTX 4090", 24576, 2000))


def probe(nvml: SimpleNamespace) -> Machine:
    """Return the machine with default settings."""
    return probe_machine(DevicesSettings(), nvml)


def test_each_gpu_is_a_device() -> None:
    """Two GPUs: name, size, identity and the versions of their stack."""
    machine = probe(fake_nvml(*TWO))

    assert machine.devices == (
        Device(
            index=0,
            kind="cuda",
            name="RTX 3060",
            uuid="GPU-0",
            vram_total_mb=12288,
            compute_capability="8.6",
        ),
        Device(
            index=1,
            kind="cuda",
            name="RTX 4090",
            uuid="GPU-1",
            vram_total_mb=24576,
            compute_capability="8.6",
        ),
    )
    assert (machine.cuda_version, machine.driver_version) == ("12.8", "570.1")
    assert machine.cuda_unavailable_reason is None


def test_the_meters_of_each_gpu_are_read() -> None:
    """Memory, load and temperature, device by device."""
    machine = probe(fake_nvml(*TWO))

    assert read_devices(machine) == (
        DeviceHealth(index=0, vram_used_mb=1000, vram_free_mb=11288, utilization_pct=37, temp_c=61),
        DeviceHealth(index=1, vram_used_mb=2000, vram_free_mb=22576, utilization_pct=37, temp_c=61),
    )


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ("nvmlDeviceGetMemoryInfo", "vram_used_mb"),
        ("nvmlDeviceGetUtilizationRates", "utilization_pct"),
        ("nvmlDeviceGetTemperature", "temp_c"),
    ],
)
def test_a_field_that_is_not_supported_is_unknown_alone(question: str, field: str) -> None:
    """One question refused leaves one kind of number None, and all others in place."""
    machine = probe(fake_nvml(*TWO, silent=frozenset({question})))
    health = read_devices(machine)[1].model_dump()

    unknown = {name for name, value in health.items() if value is None} - {"vram_reserved_mb"}
    expected = {"vram_used_mb", "vram_free_mb"} if field == "vram_used_mb" else {field}
    assert unknown == expected


def test_no_nvidia_stack_is_normal() -> None:
    """Neither a missing library nor an unloaded driver is a fault; the CPU serves."""
    for code in (12, 9):
        machine = probe(fake_nvml(init=code))

        assert machine.cuda_unavailable_reason is None
        assert [device.kind for device in machine.devices] == ["cpu"]


@pytest.mark.parametrize(("code", "words"), [(18, "different versions"), (999, "does not work")])
def test_a_broken_stack_says_why(code: int, words: str) -> None:
    """A stack that is there but broken has a reason, and the CPU serves."""
    machine = probe(fake_nvml(init=code))

    assert words in str(machine.cuda_unavailable_reason)
    assert [device.kind for device in machine.devices] == ["cpu"]
    assert machine.cuda_version is None


def test_a_driver_without_gpus_says_so() -> None:
    """A driver that lists no GPU is told apart from a machine without driver."""
    assert "no GPU" in str(probe(fake_nvml()).cuda_unavailable_reason)


def test_an_engine_on_gpus_holds_what_nvml_says() -> None:
    """Its memory is summed over the devices, and is unknown where NVML does not say."""
    me = os.getpid()
    machine = probe(
        fake_nvml(*TWO, processes={0: [(me, 300 * MIB), (1, 7 * MIB)], 1: [(me, 200 * MIB)]})
    )
    silent = probe(fake_nvml(*TWO, processes={0: [(me, None)]}))

    assert engine_memory_mb(machine, me) == 500
    assert engine_memory_mb(silent, me) is None


@pytest.fixture(name="cpu")
def _cpu() -> Callable[[float], Machine]:
    def machine(share: float) -> Machine:
        return probe_machine(DevicesSettings(cpu_memory_share=share), fake_nvml(init=12))

    return machine


def test_the_cpu_offers_its_share_of_memory(cpu: Callable[[float], Machine]) -> None:
    """The one device has a name, and the part of RAM that the operator gives."""
    half, tenth = cpu(0.5).devices[0], cpu(0.1).devices[0]

    assert half.index == 0
    assert half.name
    assert half.vram_total_mb is not None
    assert tenth.vram_total_mb is not None
    assert abs(half.vram_total_mb - 5 * tenth.vram_total_mb) <= 5


def test_engines_on_the_cpu_use_their_resident_memory(cpu: Callable[[float], Machine]) -> None:
    """Used is what our engines hold; free never exceeds the rest of the share."""
    machine = cpu(0.5)
    idle, busy = read_devices(machine)[0], read_devices(machine, [os.getpid()])[0]

    assert idle.vram_used_mb == 0
    assert busy.vram_used_mb is not None
    assert busy.vram_used_mb > 5
    assert busy.vram_free_mb is not None
    assert busy.vram_free_mb <= (machine.devices[0].vram_total_mb or 0) - busy.vram_used_mb
    assert engine_memory_mb(machine, os.getpid()) is not None


def test_a_process_that_is_gone_holds_nothing(cpu: Callable[[float], Machine]) -> None:
    """A pid without process counts nothing, and its own memory is unknown."""
    gone = 2**22 + 12345
    machine = cpu(0.5)

    assert read_devices(machine, [gone])[0].vram_used_mb == 0
    assert engine_memory_mb(machine, gone) is None


def test_the_real_machine_can_be_probed() -> None:
    """Whatever this machine is, it has a name and at least one device."""
    machine = probe_machine(DevicesSettings())

    assert machine.discovery.hostname == machine.hostname != ""
    assert machine.discovery.devices == machine.devices != ()
