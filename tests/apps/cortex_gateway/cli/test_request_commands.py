"""`cortex ps`, `cancel`, `top`, `logs` and `chat` against a cortex on a real socket."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_gateway.cli.app import app
from cortex_gateway.cli.rates import Look, Rates, rates
from tests.apps.cortex_gateway.cli.fake_cortex import fleet, node, running
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, fake_neuron
from tests.fleet.conversations import CHAT, say
from tests.fleet.processes import Daemon, environment, eventually, workbench
from tests.libs.cortex_dialects.streams import DONE, HELLO, ROLE, USAGE, delta, frame

ROW = {
    "id": "req-1",
    "phase": "answering",
    "age_secs": 75.2,
    "dialect": "anthropic",
    "model": "org/model",
    "node": "atlas",
    "principal": "0123456789abcdef",
    "stream": True,
    "tokens": 321,
    "attempts": 2,
    "new_field": 1,
}
ENDED = {"id": "req-0", "outcome": "failed", "status": 503, "code": "upstream_unreachable"}
CHATTING = "POST /v1/chat/completions"


def listed(*rows: dict[str, Any], tokens: int = 0, requests: int = 0) -> dict[str, Any]:
    """Return an answer of `/fleet/requests`."""
    totals = {"requests": requests, "completion_tokens": tokens}
    return {"in_flight": list(rows), "ended": [ENDED], "totals": totals}


def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `cortex`."""
    result = CliRunner().invoke(app, arguments, input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_ps_shows_who_asks_for_what_and_how_far_it_is() -> None:
    """One row each; the ended ones on demand."""
    with running({"GET /fleet/requests": [(200, listed(ROW))]}) as it:
        code, out, _ = run("ps", "-e", it.endpoint)
        _, whole, _ = run("ps", "--all", "-e", it.endpoint)

    assert code == 0
    for word in ("req-1", "answering", "1 min 15 s", "org/model", "atlas", "321", "anthropic"):
        assert word in out
    assert "req-0" not in out
    assert "upstream_unreachable" in whole


def test_ps_says_that_there_is_nothing() -> None:
    """An empty table would be a riddle."""
    with running({"GET /fleet/requests": [(200, listed())]}) as it:
        assert "No requests in flight." in run("ps", "-e", it.endpoint)[1]


def test_ps_as_json_is_what_cortex_said() -> None:
    """Nothing is lost or renamed on the way."""
    said = listed(ROW)
    with running({"GET /fleet/requests": [(200, said)]}) as it:
        assert json.loads(run("ps", "--json", "-e", it.endpoint)[1]) == said


def test_foreign_words_are_no_markup_and_no_control() -> None:
    """A request's id and model are the client's own words."""
    row = {**ROW, "id": "[red]x\x1b[2J", "model": "a\nb"}
    with running({"GET /fleet/requests": [(200, listed(row))]}) as it:
        out = run("ps", "-e", it.endpoint)[1]

    assert "[red]x[2J" in out
    assert "\x1b" not in out
    assert "ab" in out


def test_cancel_ends_a_request() -> None:
    """By its id, whatever is in it."""
    answer = {"status": "cancelled", "id": "a/b", "count": 2}
    with running({"DELETE /fleet/requests/a%2Fb": [(200, answer)]}) as it:
        code, out, _ = run("cancel", "a/b", "-e", it.endpoint)
        _, as_json, _ = run("cancel", "a/b", "--json", "-e", it.endpoint)

    assert (code, out) == (0, "a/b is cancelled (2 requests)\n")
    assert json.loads(as_json) == answer


def test_cancel_of_nobody_says_so() -> None:
    """Exit 1, in cortex's words."""
    refusal = {"error": {"message": "no request 'x' is in flight", "code": "request_not_found"}}
    with running({"DELETE /fleet/requests/x": [(404, refusal)]}) as it:
        code, _, err = run("cancel", "x", "-e", it.endpoint)

    assert (code, err) == (1, "no request 'x' is in flight\n")


def test_top_in_a_pipe_shows_one_picture_with_its_speed() -> None:
    """Nodes, requests, and tokens a second from two looks."""
    answers = {
        "GET /fleet": [(200, fleet(node()))],
        "GET /fleet/requests": [(200, listed()), (200, listed(ROW))],
    }
    with running(answers) as it:
        code, out, _ = run("top", "--every", "0.2", "-e", it.endpoint)

    assert code == 0
    assert "atlas" in out
    assert "req-1" in out
    speed = float(out.split(" tokens/s")[0].split()[-1])
    assert 321 / 2 < speed <= 321 / 0.2


def test_top_as_json_is_a_line_a_look() -> None:
    """What cortex said, and the rates."""
    answers = {"GET /fleet": [(200, fleet())], "GET /fleet/requests": [(200, listed(ROW))]}
    with running(answers) as it:
        code, out, _ = run("top", "--json", "--times", "2", "--every", "0.1", "-e", it.endpoint)

    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["requests"] for one in lines] == [listed(ROW)] * 2
    assert lines[0]["rates"] == {"requests_per_sec": 0.0, "tokens_per_sec": 0.0}


def test_top_lives_through_a_short_outage_and_not_a_long_one() -> None:
    """A reload of cortex ends nobody's picture."""
    answers: dict[str, list[tuple[int, Any]]] = {
        "GET /fleet": [(200, fleet()), (200, b"no JSON"), (200, fleet()), (200, b"no JSON")],
        "GET /fleet/requests": [(200, listed(ROW))],
    }
    with running(answers) as it:
        code, out, _ = run("top", "--json", "--times", "2", "--every", "0.1", "-e", it.endpoint)

    assert len(out.splitlines()) == 1
    assert code == 3


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (Look(0, 10, 100), Look(2, 14, 150), Rates(2, 25)),
        (Look(0, 10, 100), Look(2, 1, 5), Rates(0, 0)),
        (Look(1, 0, 0), Look(1, 5, 5), Rates(0, 0)),
    ],
    ids=["usual", "started anew", "at once"],
)
def test_rates(before: Look, after: Look, told: Rates) -> None:
    """Never negative, never a division by nothing."""
    assert rates(before, after) == told


EVENTS = [
    {
        "timestamp": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "event": "request.failed",
        "node": "atlas",
        "error": "two words\x1b",
        "exception": "Traceback\nBoom",
    }
]


def test_logs_are_lines_for_people() -> None:
    """When, how bad, what, and what more; a trace below it."""
    said = {"events": EVENTS, "next": 7, "missed": 0}
    asked = "GET /fleet/logs?request=a+b&node=atlas&after=0&wait_secs=0"
    with running({asked: [(200, said)]}) as it:
        code, out, _ = run("logs", "-r", "a b", "-n", "atlas", "-e", it.endpoint)

    assert code == 0
    assert "2026-01-02 03:04:05" in out
    assert "request.failed" in out
    assert "node=atlas" in out
    assert "  Boom" in out
    assert "\x1b" not in out


def test_logs_as_json_are_the_events() -> None:
    """One a line, as logged."""
    said = {"events": EVENTS, "next": 7}
    with running({"GET /fleet/logs?after=0&wait_secs=0": [(200, said)]}) as it:
        assert json.loads(run("logs", "--json", "-e", it.endpoint)[1]) == EVENTS[0]


def test_following_goes_on_where_it_was_and_says_what_it_missed() -> None:
    """The next question begins behind the last answer."""
    answers = {
        "GET /fleet/logs?after=0&wait_secs=0": [(200, {"events": EVENTS, "next": 7})],
        "GET /fleet/logs?after=7&wait_secs=20": [
            (200, {"events": [{"event": "later"}], "next": 9000, "missed": 12}),
        ],
    }
    with running(answers) as it:
        code, out, _ = run("logs", "--follow", "--json", "-e", it.endpoint)

    told = [json.loads(line) for line in out.splitlines()]
    assert told[0] == EVENTS[0]
    assert told[1] == {"level": "warning", "event": "logs.missed", "count": 12}
    assert told[2] == {"event": "later"}
    assert code == 1  # the fake knows no further answer


def test_chat_asks_once() -> None:
    """The prompt, the system's before it; the answer on stdout."""
    with running({CHATTING: [(200, HELLO)]}) as it:
        code, out, _ = run("chat", "org/model", "hi there", "-s", "Be brief.", "-e", it.endpoint)

    asked = json.loads(it.asked[0].partition(" ")[2].partition(" ")[2])
    assert (code, out) == (0, "Hello\n")
    assert asked["model"] == "org/model"
    assert [turn["content"] for turn in asked["messages"]] == ["Be brief.", "hi there"]


def test_chat_takes_a_pipe_and_answers_in_json() -> None:
    """Thoughts apart, usage and the finish beside the text."""
    thought = frame({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    stream = frame(ROLE) + thought + frame(delta("yes", finish_reason="stop")) + frame(USAGE) + DONE
    with running({CHATTING: [(200, stream)]}) as it:
        code, out, _ = run("chat", "m", "--json", "-e", it.endpoint, stdin="is it?")

    said = json.loads(out)
    assert code == 0
    assert (said["content"], said["reasoning"], said["finish_reason"]) == ("yes", "hm", "stop")
    assert said["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    "stream",
    [
        frame(ROLE) + frame(delta("He")) + frame({"error": {"message": "lost its node"}}),
        frame(ROLE) + frame(delta("He")),
    ],
    ids=["error event", "cut"],
)
def test_chat_says_that_an_answer_broke_off(stream: bytes) -> None:
    """Half an answer is never taken for one."""
    with running({CHATTING: [(200, stream)]}) as it:
        code, out, err = run("chat", "m", "hi", "-e", it.endpoint)

    assert code == 1
    assert out.startswith("He")
    assert "the answer broke off" in err


def test_chat_shows_no_control_characters() -> None:
    """What a model says is not what a terminal does."""
    with running({CHATTING: [(200, frame(delta("a\x1b[2Jb\nc", finish_reason="stop")))]}) as it:
        assert run("chat", "m", "hi", "-e", it.endpoint)[1] == "a[2Jb\nc\n"


def test_chat_refuses_an_empty_prompt() -> None:
    """Before anybody is asked."""
    code, _, err = run("chat", "m", stdin=" \n")

    assert code == 1
    assert "nothing to ask" in err


@pytest.fixture
def cortex(tmp_path: Path) -> Iterator[Daemon]:
    """A real gateway in front of a node that has the model."""
    model = FakeNeuron(sizes={"org/a": 600}, reply=lambda handler: handler.stream(HELLO))
    model.hold("org/a")
    models = [{"id": "org/a", "harness": "candle", "vram_mb": 600}]
    with fake_neuron(model), workbench(tmp_path) as bench:
        made = bench.cortex({"old": model.url}, models, observation={"poll_secs": 0.1})
        eventually(lambda: made.http.get(f"{made.url}/fleet").json()["nodes"][0]["models"])
        yield made


def hears_ctrl_c() -> None:
    """Take Ctrl-C as a program in a terminal does: what a shell runs behind itself ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command of `cortex` in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        self._screen = ours
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cortex_gateway", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment() | {"TERM": "xterm", "COLUMNS": "140", "LINES": "50"},
            close_fds=True,
            preexec_fn=hears_ctrl_c,  # noqa: PLW1509  # it does one thing
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self.text = ""

    def shows(self, words: str) -> bool:
        """Tell whether the words have come."""
        with suppress(OSError):  # nothing there, or it has ended
            self.text += os.read(self._screen, 65536).decode(errors="replace")
        return words in self.text

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._screen, text.encode())

    def close(self) -> int:
        """Wait for its end, or make it."""
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)
        finally:
            os.close(self._screen)


@pytest.mark.fleet
def test_a_conversation_in_a_terminal(cortex: Daemon) -> None:
    """A line is a turn, what was said before goes along, Ctrl-D ends it."""
    terminal = Terminal("chat", "org/a", "-e", cortex.url)
    eventually(lambda: terminal.shows("> "))
    terminal.type("one\n")
    eventually(lambda: terminal.shows("Hello"))
    eventually(lambda: terminal.text.count("> ") >= 2 or terminal.shows("\0"))
    terminal.type("two\n")
    eventually(lambda: len(cortex.events("request.done")) == 2)
    eventually(lambda: terminal.text.count("Hello") == 2 or terminal.shows("\0"))
    terminal.type("\x04")

    assert terminal.close() == 0
    done = cortex.events("request.done")
    assert [one["model"] for one in done] == ["org/a", "org/a"]


@pytest.mark.fleet
def test_top_in_a_terminal_goes_on_until_ctrl_c(cortex: Daemon) -> None:
    """And shows what changes meanwhile."""
    terminal = Terminal("top", "--every", "0.1", "-e", cortex.url)
    try:
        eventually(lambda: terminal.shows("No requests in flight"), within=20)
        eventually(lambda: terminal.shows("org/a"))
    finally:
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.close() == 0


@pytest.mark.fleet
def test_logs_are_followed_as_they_are_written(cortex: Daemon) -> None:
    """Of a real gateway, by request."""
    terminal = Terminal("logs", "--follow", "--request", "mine", "-e", cortex.url)
    try:
        cortex.http.post(
            f"{cortex.url}{CHAT}", json=say("org/a", stream=True), headers={"x-request-id": "mine"}
        )
        eventually(lambda: terminal.shows("request.done"), within=20)
        assert "node=old" in terminal.text
    finally:
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.close() == 0
