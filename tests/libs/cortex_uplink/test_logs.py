"""A log line is written whatever is in it."""

import json
import subprocess
import sys

import pytest

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
