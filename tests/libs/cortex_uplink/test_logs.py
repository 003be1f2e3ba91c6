"""A log line is written whatever is in it."""

import asyncio
import io
import json
import subprocess
import sys
import threading

import pytest

from cortex_uplink.logs import LineLogger

PROGRAM = """
import structlog
from cortex_uplink.logs import configure_logs
configure_logs()
structlog.get_logger().warning("said", what={})
"""


@pytest.mark.parametrize(
    ("literal", "wanted"),
    [
        ("'h\u00e9'", "h\u00e9"),
        (r"'\udcff.gguf'", "\udcff.gguf"),
        ("1 << 80", 1 << 80),
        ("{1: None}", {"1": None}),
        ("object", None),
    ],
)
def test_every_value_makes_one_line_of_json(literal: str, wanted: object) -> None:
    """Names that are no UTF-8 and numbers beyond all bounds too: whoever logs must not fail."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(literal)], capture_output=True, check=True
    )
    (line,) = ended.stderr.splitlines()
    told = json.loads(line)

    assert (told["event"], told["level"]) == ("said", "warning")
    assert wanted is None or told["what"] == wanted


async def test_harmless_lines_go_out_together_and_soon() -> None:
    """With the first that is not harmless at the latest, in order."""
    stream = io.StringIO()
    lines = LineLogger(stream)
    lines.info("1")
    lines.info("2")
    assert stream.getvalue() == ""
    lines.warning("3")
    assert stream.getvalue() == "1\n2\n3\n"
    lines.info("4")
    await asyncio.sleep(0.1)
    assert stream.getvalue() == "1\n2\n3\n4\n"
    for number in range(1000):
        lines.info(str(number))
    assert stream.getvalue().count("\n") > 500


async def test_lines_of_threads_are_all_written_and_once() -> None:
    """While the event loop writes its own."""
    stream = io.StringIO()
    lines = LineLogger(stream)

    def log(name: int) -> None:
        for number in range(2000):
            (lines.info if number % 3 else lines.warning)(f"{name} {number}")

    threads = [threading.Thread(target=log, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    log(3)
    for thread in threads:
        thread.join()
    lines.warning("end")

    told = stream.getvalue().splitlines()
    assert sorted(told) == sorted(
        [f"{name} {number}" for name in range(4) for number in range(2000)] + ["end"]
    )


def test_a_reader_that_has_left_takes_nobody_with_it() -> None:
    """A closed stream neither."""
    stream = io.StringIO()
    lines = LineLogger(stream)
    stream.close()

    lines.warning("x")
