"""A flood on standard error is bounded, in the log and in what it costs."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cortex_neuron.engine_output import BURST_LINES, KEPT_LINES, EngineOutput, Throttle


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5))
def test_no_more_than_the_burst_and_one_a_second_passes(pauses: list[float], burst: int) -> None:
    """Whatever the pauses, and every line is either told or counted."""
    throttle, now, passed = Throttle(burst, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += throttle.admits(now)

    assert passed <= burst + now
    assert passed + throttle.take_withheld() == len(pauses)
    assert throttle.take_withheld() == 0


async def read(*pieces: bytes) -> tuple[EngineOutput, list[str]]:
    """Return what became of these pieces, and the lines that told of a failed device."""
    poisoned = list[str]()
    output = EngineOutput("m", poisoned.append)
    stream = asyncio.StreamReader()
    for piece in pieces:
        stream.feed_data(piece)
    stream.feed_eof()
    await output.read(stream)
    return output, poisoned


async def test_lines_are_events_of_the_log() -> None:
    """Each with its model, cut where it is too long; empty ones are none."""
    with capture_logs() as logs:
        output, _ = await read(b"one\n\n   \ntwo\r\n", b"x" * 2000)

    said = [one["line"] for one in logs if one["event"] == "engine.said"]
    assert said == ["one", "two", "x" * 500]
    assert list(output.lines) == said
    assert {one["model"] for one in logs} == {"m"}


async def test_of_a_flood_the_first_lines_are_logged_and_the_rest_are_counted() -> None:
    """The last ones are kept for whoever explains the end."""
    flood = b"".join(b"line %d\n" % number for number in range(40_000))
    with capture_logs() as logs:
        output, _ = await read(flood)
    said = [one for one in logs if one["event"] == "engine.said"]
    (more,) = [one for one in logs if one["event"] == "engine.said_more"]
    left_out = sum(one.get("left_out_before", 0) for one in said)

    assert BURST_LINES <= len(said) <= BURST_LINES + 5
    assert len(said) + left_out + more["lines"] == 40_000
    assert len(output.lines) == KEPT_LINES
    assert output.lines[-1] == "line 39999"


async def test_a_failed_device_is_told_wherever_the_pieces_are_cut() -> None:
    """Also in the middle of a flood."""
    line = b"RuntimeError: CUDA error: an illegal memory access was encountered\n"
    flood = b"noise\n" * 5000
    _, poisoned = await read(flood, line[:20], line[20:], flood)

    assert poisoned == [line.decode().rstrip()]
