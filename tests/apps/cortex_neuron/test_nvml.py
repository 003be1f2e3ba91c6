"""GPUs through the real NVML bindings, on a library that answers from a file."""

import os
import threading

import pytest

from cortex_core.settings import DevicesSettings
from cortex_core.wire import Device, DeviceHealth
from cortex_neuron.discovery import Machine, probe_machine, read_machine
from tests.fake_nvml.gpus import H100, RTX_3090, Gpus
from tests.fleet.processes import eventually


def probe() -> Machine:
    """Return the machine with default settings."""
    return probe_machine(DevicesSettings())


def two(here: Gpus) -> Machine:
    """Return a machine with two different cards."""
    here.plug(0, RTX_3090)
    here.plug(1, H100)
    return probe()


def test_each_gpu_is_a_device(here: Gpus) -> None:
    """Two different cards: name, size, identity and the versions of their stack."""
    machine = two(here)

    assert machine.devices == (
        Device(
            index=0,
            kind="cuda",
            name="NVIDIA GeForce RTX 3090",
            uuid="GPU-11111111-2222-3333-4444-555555555555",
            vram_total_mb=24576,
            compute_capability="8.6",
        ),
        Device(
            index=1,
            kind="cuda",
            name="NVIDIA H100 80GB HBM3",
            uuid="GPU-66666666-7777-8888-9999-aaaaaaaaaaaa",
            vram_total_mb=81559,
            compute_capability="9.0",
            ecc=True,
        ),
    )
    assert (machine.cuda_version, machine.driver_version) == ("13.0", "580.65.06")
    assert machine.cuda_unavailable_reason is None


def test_the_meters_of_each_gpu_are_read(here: Gpus) -> None:
    """Memory, load, heat and errors, device by device, as they are now."""
    machine = two(here)
    before = read_machine(machine, {}).devices
    here.set(**{"gpu0.used": 9000, "gpu0.temp": 83, "gpu0.util": 99})
    after = read_machine(machine, {}).devices

    assert before[0] == DeviceHealth(
        index=0,
        vram_used_mb=1024,
        vram_free_mb=23552,
        vram_foreign_mb=1024,
        utilization_pct=37,
        temp_c=61,
        power_w=210,
    )
    assert (after[0].vram_free_mb, after[0].temp_c, after[0].utilization_pct) == (15576, 83, 99)
    assert after[1] == before[1]
    assert after[1].ecc_errors == 2


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        ("total", {"vram_used_mb", "vram_free_mb", "vram_foreign_mb"}),
        ("util", {"utilization_pct"}),
        ("temp", {"temp_c"}),
        ("power_mw", {"power_w"}),
        ("ecc_errors", {"ecc_errors"}),
    ],
)
def test_what_a_card_does_not_say_is_unknown_alone(
    here: Gpus, missing: str, unknown: set[str]
) -> None:
    """One question refused leaves its numbers None, and all others in place."""
    here.plug(0, {**H100, "power_mw": 1, missing: None})
    (health,) = read_machine(probe(), {}).devices
    absent = {name for name, value in health.model_dump().items() if value is None}

    assert absent - {"vram_reserved_mb", "fault"} == unknown


def test_an_old_driver_tells_the_temperature_in_its_own_way(here: Gpus) -> None:
    """Before 2025 there was another question for it."""
    here.set(old=1)

    assert read_machine(two(here), {}).devices[0].temp_c == 61


def test_an_engine_holds_what_nvml_says_and_the_rest_is_foreign(here: Gpus) -> None:
    """Device by device; what no engine of ours holds belongs to strangers."""
    machine = two(here)
    here.set(**{"gpu0.used": 5000, "gpu1.used": 700})
    here.add(f"gpu0.proc={os.getpid()}:3000")
    here.add("gpu0.proc=1:1500")
    here.add(f"gpu1.proc={os.getpid()}:700")
    reading = read_machine(machine, {"mine": os.getpid(), "gone": 2**22 + 1})

    assert reading.held == {"mine": {0: 3000, 1: 700}}
    assert [one.vram_foreign_mb for one in reading.devices] == [2000, 0]


def test_where_our_processes_are_not_told_nobody_is_called_a_stranger(here: Gpus) -> None:
    """In a container they may have other numbers: whose memory it is, is unknown then."""
    machine = two(here)
    here.add("gpu0.proc=77:500")
    told = read_machine(machine, {"mine": os.getpid()})

    assert told.held == {}
    assert [one.vram_foreign_mb for one in told.devices] == [None, None]


def test_no_nvidia_stack_is_normal(here: Gpus) -> None:
    """Neither a missing library nor an unloaded driver is a fault; the CPU serves."""
    for code in (12, 9):
        here.set(init_error=code)
        machine = probe()

        assert machine.cuda_unavailable_reason is None
        assert [device.kind for device in machine.devices] == ["cpu"]


@pytest.mark.parametrize(("code", "words"), [(18, "different versions"), (999, "does not work")])
def test_a_broken_stack_says_why(here: Gpus, code: int, words: str) -> None:
    """A stack that is there but broken has a reason, and the CPU serves."""
    here.plug(0, RTX_3090)
    here.set(init_error=code)
    machine = probe()

    assert words in str(machine.cuda_unavailable_reason)
    assert [device.kind for device in machine.devices] == ["cpu"]
    assert machine.cuda_version is None


def test_a_driver_without_gpus_says_so(here: Gpus) -> None:
    """A driver that lists no GPU is told apart from a machine without driver."""
    assert "no GPU" in str(probe().cuda_unavailable_reason)


def test_a_lost_gpu_has_a_fault_and_nothing_to_give_and_may_come_back(here: Gpus) -> None:
    """The other one goes on, and the numbers of the lost one are unknown rather than old."""
    machine = two(here)
    here.set(**{"gpu1.error": 15})
    lost = read_machine(machine, {}).devices
    here.set(**{"gpu1.error": None})
    back = read_machine(machine, {}).devices

    assert lost[0].fault is None
    assert lost[0].temp_c == 61
    assert "lost" in str(lost[1].fault)
    assert (lost[1].vram_free_mb, lost[1].vram_used_mb, lost[1].temp_c) == (0, None, None)
    assert (back[1].fault, back[1].vram_free_mb) == (None, 81556)


def test_a_gpu_that_is_lost_at_the_start_is_no_device(here: Gpus) -> None:
    """Nothing can be given to an engine that does not even say who it is; the others count on."""
    here.plug(0, {**RTX_3090, "error": 15})
    here.plug(1, H100)
    one_left = probe()
    here.plug(1, {**H100, "error": 15})
    none_left = probe()

    assert [(one.index, one.uuid) for one in one_left.devices] == [(0, H100["uuid"])]
    assert [one.kind for one in none_left.devices] == ["cpu"]
    assert "none of them answers" in str(none_left.cuda_unavailable_reason)


def test_a_split_gpu_counts_as_its_instances(here: Gpus) -> None:
    """Each has a UUID of its own to be made visible by, and memory of its own."""
    here.plug(0, RTX_3090)
    here.plug(1, {**H100, "mig": 1})
    for part, size in enumerate((40000, 20000)):
        here.set(
            **{
                f"gpu1.mig{part}.name": f"NVIDIA H100 80GB HBM3 MIG {part}",
                f"gpu1.mig{part}.uuid": f"MIG-{part}",
                f"gpu1.mig{part}.total": size,
                f"gpu1.mig{part}.used": 100 * part,
            }
        )
    machine = probe()
    meters = read_machine(machine, {}).devices

    assert [one.uuid for one in machine.devices] == [RTX_3090["uuid"], "MIG-0", "MIG-1"]
    assert [one.index for one in machine.devices] == [0, 1, 2]
    assert [one.part_of for one in machine.devices] == [None, H100["uuid"], H100["uuid"]]
    assert machine.devices[2].compute_capability == "9.0"
    assert machine.devices[2].ecc
    assert [one.vram_free_mb for one in meters] == [23552, 40000, 19900]
    assert meters[2].temp_c == 40


def test_split_gpus_without_instances_are_no_devices(here: Gpus) -> None:
    """CUDA cannot use them, and the reason says what to do."""
    here.plug(0, {**H100, "mig": 1})

    assert "MIG" in str(probe().cuda_unavailable_reason)


def test_xids_are_heard_with_the_devices_they_concern(here: Gpus) -> None:
    """An XID of a split GPU concerns all of its instances."""
    here.plug(0, RTX_3090)
    here.plug(1, {**H100, "mig": 1})
    for part in (0, 1):
        here.set(**{f"gpu1.mig{part}.name": "part", f"gpu1.mig{part}.uuid": f"MIG-{part}"})
    nvml = probe().nvml
    assert nvml is not None
    heard = list[tuple[tuple[int, ...], int]]()
    watch = nvml.watch(lambda devices, xid: heard.append((devices, xid)))
    here.add("gpu0.xid=31")
    here.add("gpu1.xid=79")
    eventually(lambda: len(heard) == 2)
    here.set(**{"gpu0.error": 15})
    here.add("gpu1.xid=48")
    eventually(lambda: len(heard) == 3)
    watch.stop()
    watch.join(2)

    assert sorted(heard[:2]) == [((0,), 31), ((1, 2), 79)]
    assert heard[2] == ((1, 2), 48)
    assert watch not in threading.enumerate()
