"""What a machine without GPUs says it is; those with some are in `test_nvml.py`."""

import os
import sys
from collections.abc import Callable

import pytest

from cortex_core.settings import DevicesSettings
from cortex_core.wire import DeviceHealth
from cortex_neuron.discovery import Machine, probe_machine, read_machine


@pytest.fixture(name="cpu")
def _cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Machine]:
    """A machine without the bindings, and so without GPUs, whatever this one has."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def machine(share: float) -> Machine:
        return probe_machine(DevicesSettings(cpu_memory_share=share))

    return machine


def device(machine: Machine, **engines: int) -> DeviceHealth:
    """Return how full the only device is."""
    (found,) = read_machine(machine, engines).devices
    return found


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
    idle, busy = device(machine), device(machine, me=os.getpid())

    assert idle.vram_used_mb == 0
    assert busy.vram_used_mb is not None
    assert busy.vram_used_mb > 5
    assert busy.vram_free_mb is not None
    assert busy.vram_free_mb <= (machine.devices[0].vram_total_mb or 0) - busy.vram_used_mb
    assert read_machine(machine, {"me": os.getpid()}).held["me"][0] > 5


def test_a_process_that_is_gone_holds_nothing(cpu: Callable[[float], Machine]) -> None:
    """A pid without process counts nothing, and its own memory is unknown."""
    gone = 2**22 + 12345
    machine = cpu(0.5)

    assert device(machine, it=gone).vram_used_mb == 0
    assert read_machine(machine, {"it": gone}).held == {}


def test_the_real_machine_can_be_probed() -> None:
    """Whatever this machine is, it has a name and at least one device."""
    machine = probe_machine(DevicesSettings())

    assert machine.discovery.hostname == machine.hostname != ""
    assert machine.discovery.devices == machine.devices != ()
