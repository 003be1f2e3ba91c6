"""The page for people who import the library: its router is short, and runs."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, fake_neuron
from tests.fleet.processes import eventually, free_port

LIBS = Path(__file__).parents[3] / "libs"
PAGE = (LIBS / "cortex_router" / "README.md").read_text(encoding="utf-8")


def router() -> str:
    """Return the whole router of the page."""
    (found,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if "serve_forever" in code
    )
    return str(found)


def test_it_is_under_forty_lines() -> None:
    """Not counting empty ones."""
    assert len([line for line in router().splitlines() if line.strip()]) < 40


@pytest.fixture
def node() -> Iterator[FakeNeuron]:
    """A node that holds one model."""
    with fake_neuron() as made:
        made.hold("m")
        yield made


def test_it_routes_to_a_node_and_refuses_what_nobody_has(node: FakeNeuron, tmp_path: Path) -> None:
    """With the standard library and this one on the path, and nothing else."""
    program, port = tmp_path / "router.py", free_port()
    program.write_text(router())
    process = subprocess.Popen(
        [sys.executable, "-S", str(program), str(port), f"n1={node.url}"],
        env={"PYTHONPATH": str(LIBS)},
    )

    def ask(model: str) -> int:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        try:
            with urllib.request.urlopen(url, body.encode(), timeout=5) as answer:
                assert json.load(answer)["model"] == model
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def answered() -> int | None:
        assert process.poll() is None
        try:
            return ask("m")
        except urllib.error.URLError:
            return None

    try:
        assert eventually(answered) == 200
        assert ask("unheard-of") == 404
    finally:
        process.terminate()
        process.wait(10)
