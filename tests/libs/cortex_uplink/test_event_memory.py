"""The last lines of a log are kept in order and numbered, no more of them than were asked for."""

import json
import os
import pty
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.event_memory import EventMemory

LOGGING = """
import structlog
from cortex_uplink.event_memory import EventMemory
from cortex_uplink.logs import configure_logs, log_often

memory = EventMemory()
configure_logs(memory)
structlog.get_logger().warning("seen", node="n1")
log_often("often", {"number": 1})
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("broken")
print("KEPT:" + "\\t".join(memory.after(0)), flush=True)
"""


@given(most=st.integers(1, 9), count=st.integers(0, 30), after=st.integers(0, 40))
def test_whoever_asks_gets_what_is_kept_and_new(most: int, count: int, after: int) -> None:
    """In order, nothing twice, nothing that was there left out."""
    memory = EventMemory(most)
    for number in range(1, count + 1):
        memory.keep(str(number))

    told = [int(line) for line in memory.after(after)]

    assert told == [number for number in range(1, count + 1) if number > max(after, count - most)]
    assert memory.last == count
    assert memory.first == count - min(most, count) + 1


def kept(*, in_a_terminal: bool) -> list[dict[str, object]]:
    """Return what a process keeps of its log, whose standard error is a terminal or is not."""
    ours, theirs = pty.openpty()
    try:
        told = subprocess.run(
            [sys.executable, "-c", LOGGING],
            stdout=subprocess.PIPE,
            stderr=theirs if in_a_terminal else subprocess.DEVNULL,
            text=True,
            check=True,
            timeout=30,
        ).stdout
    finally:
        os.close(ours)
        os.close(theirs)
    return [json.loads(line) for line in told.partition("KEPT:")[2].strip().split("\t")]


def test_events_are_kept_as_json_whoever_watches() -> None:
    """In a terminal people see colours, and those who ask over HTTP see the same fields."""
    for in_a_terminal in (False, True):
        told = kept(in_a_terminal=in_a_terminal)
        assert [one["event"] for one in told] == ["seen", "often", "broken"]
        assert [one["level"] for one in told] == ["warning", "info", "error"]
        assert told[0]["node"] == "n1"
        assert "ZeroDivisionError" in str(told[2]["exception"])
        assert all(str(one["timestamp"]).endswith("Z") for one in told)
