"""Whom the driver's errors concern."""

import pytest

from cortex_neuron.xids import Severity, describe, severity_of


@pytest.mark.parametrize(
    ("xid", "severity"),
    [
        (79, Severity.DEVICE),
        (48, Severity.DEVICE),
        (119, Severity.DEVICE),
        (31, Severity.APPLICATION),
        (13, Severity.APPLICATION),
        (94, Severity.APPLICATION),
        (63, Severity.NOTICE),
        (9999, Severity.NOTICE),
    ],
)
def test_an_xid_concerns_the_gpu_a_process_or_nobody(xid: int, severity: Severity) -> None:
    """Only what leaves nothing to compute with takes a device out of use."""
    assert severity_of(xid) is severity


def test_an_xid_is_told_with_its_number() -> None:
    """That is what one looks up; words where they are known."""
    assert describe(79) == "XID 79: the GPU has fallen off the bus"
    assert describe(9999) == "XID 9999"
