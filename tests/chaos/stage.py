"""A gateway in front of a node that fails on demand and one that does not, and what must hold.

After every scenario, whatever happened in it: a good request is served, nobody is counted in flight
any more, here or there, no socket is left over, and every request has exactly one last line in the
gateway's log, as many as the metrics count.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.chaos.faulty_node import FaultyNode
from tests.chaos.outcomes import SERVED, Outcome, outcome_of
from tests.chaos.wire import Heard, Wire, post
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
FIRST_WORDS = b"Hel"
#: Connections that may be there although nobody asks: control calls keep theirs for a while.
SPARE_SOCKETS = 10
SETTLED_WITHIN_SECS = 5.0
RECOVERED_WITHIN_SECS = 2.0
#: Limits of a gateway on the stage, short enough to be waited for.
TIMEOUTS: Final = {
    "connect": 0.3,
    "first_byte": 0.7,
    "idle": 1.2,
    "hold": 0.5,
    "hold_headers_secs": 0.4,
    "drain": 3.0,
}
ENDINGS = ("request.done", "request.failed")


class Misbehaved(AssertionError):
    """Something that must hold did not."""


@dataclass(frozen=True, slots=True)
class Face:
    """A way to ask: which dialect, streamed or not."""

    path: str
    stream: bool

    def body(self, model: str, text: str = "hi") -> dict[str, Any]:
        """Return a small request."""
        turns = [{"role": "user", "content": text}]
        return {"model": model, "max_tokens": 9, "messages": turns, "stream": self.stream}

    def expects(self, outcome: Outcome) -> Outcome:
        """Return what `outcome` looks like in this dialect."""
        return outcome.for_anthropic() if self.path == MESSAGES else outcome.for_openai()


CHAT_WHOLE, CHAT_STREAM = Face(CHAT, False), Face(CHAT, True)  # named by its field
FACES: Final = {
    "chat": CHAT_WHOLE,
    "chat, streamed": CHAT_STREAM,
    "messages": Face(MESSAGES, stream=False),
    "messages, streamed": Face(MESSAGES, stream=True),
}


@dataclass(slots=True)
class Stage:
    """A gateway `cortex` in front of `nodes`, the first of which fails when it is told to."""

    bench: Workbench
    cortex: Daemon
    nodes: tuple[FaultyNode, ...]
    sockets: int = 0
    _names: Iterator[int] = field(default_factory=itertools.count)
    _asked: list[str] = field(default_factory=list)

    @property
    def faulty(self) -> FaultyNode:
        """The node that fails when it is told to."""
        return self.nodes[0]

    def request_id(self) -> str:
        """Return a new request id, whose last line is then looked for."""
        name = f"chaos-{next(self._names)}"
        self._asked.append(name)
        return name

    def ask(
        self, model: str, face: Face = CHAT_WHOLE, within: float = 10.0, text: str = "hi"
    ) -> Heard:
        """Ask on a connection of its own."""
        name = self.request_id()
        with Wire(self.cortex.url, within) as wire:
            wire.send(post(face.path, face.body(model, text), name, connection="close"))
            return wire.hear(FIRST_WORDS, lambda: self.faulty.heard(name))

    def outcome(
        self, model: str, face: Face = CHAT_WHOLE, within: float = 10.0, text: str = "hi"
    ) -> Outcome:
        """Ask, and return what became of it."""
        return outcome_of(self.ask(model, face, within, text))

    def picture(self) -> dict[str, Any]:
        """Return `GET /fleet`."""
        return dict(self.cortex.http.get(f"{self.cortex.url}/fleet").json())

    def memory_mb(self) -> float:
        """Return the memory that the gateway has now."""
        return float(psutil.Process(self.cortex.pid).memory_info().rss / 2**20)

    def count_sockets(self) -> int:
        """Return how many descriptors the gateway has open."""
        return psutil.Process(self.cortex.pid).num_fds()

    def recovers(self, model: str) -> None:
        """Check that a good request is served once the fault is gone."""
        heard = self.ask(model, within=RECOVERED_WITHIN_SECS)
        if outcome_of(heard) != SERVED:
            raise Misbehaved(f"afterwards: {outcome_of(heard)} instead of the answer")

    def settles(self) -> None:
        """Check that nobody and nothing is left over, and that all are accounted for."""
        eventually(
            lambda: self.picture()["requests"] == {"in_flight": 0, "waiting": 0},
            within=SETTLED_WITHIN_SECS,
            what="requests stayed in flight in the gateway",
        )
        for node in self.nodes:
            eventually(
                lambda node=node: node.busy == 0,  # type: ignore[misc]
                within=SETTLED_WITHIN_SECS,
                what="requests stayed in flight on a node",
            )
            node.let_go()
        eventually(
            lambda: self.count_sockets() <= self.sockets + SPARE_SOCKETS,
            within=SETTLED_WITHIN_SECS,
            what=f"more than {self.sockets} sockets stayed open",
        )
        asked, self._asked = self._asked, []
        eventually(
            lambda: self._last_lines(asked) == [1] * len(asked),
            within=SETTLED_WITHIN_SECS,
            what=f"last lines in the log of each request: {self._last_lines(asked)}",
        )
        eventually(
            lambda: self._counted() == self._logged(),
            within=SETTLED_WITHIN_SECS,
            what=f"counted are {self._counted()}, logged {self._logged()} (all, failed)",
        )

    def clear(self) -> None:
        """Begin anew, whatever a scenario left behind."""
        for node in self.nodes:
            node.disarm()
        self.forget()

    def forget(self) -> None:
        """Do not look for the last lines of requests that may never have become any."""
        self._asked.clear()

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Return the last line of a request."""
        return eventually(
            lambda: [one for one in self._lines() if one.get("request_id") == request_id]
        )[0]

    def _last_lines(self, asked: list[str]) -> list[int]:
        names = [line.get("request_id") for line in self._lines()]
        return [names.count(name) for name in asked]

    def _counted(self) -> tuple[float, float]:
        """Return how many requests ended, and failed, by the metrics."""
        text = self.cortex.http.get(self.bench.metrics_url(self.cortex)).text
        samples = [line.rsplit(" ", 1) for line in text.splitlines()]

        def total(name: str) -> float:
            return sum(float(value) for key, value in samples if key.startswith(f"{name}{{"))

        return total("cortex_requests_total"), total("cortex_request_errors_total")

    def _logged(self) -> tuple[float, float]:
        lines = self._lines()
        return len(lines), len([line for line in lines if "code" in line])

    def _lines(self) -> list[dict[str, Any]]:
        return [line for line in self.cortex.log() if line.get("event") in ENDINGS]


@contextmanager
def stage(folder: Path, models: list[str], twins: list[str]) -> Iterator[Stage]:
    """Set the stage: `models` are on the first node only, `twins` on both."""
    with (
        FaultyNode([*models, *twins]) as faulty,
        FaultyNode(twins) as good,
        workbench(folder) as bench,
    ):
        cortex = bench.cortex(
            {"a-faulty": faulty.url, "b-good": good.url},
            [],
            gateway={"request_max_mb": 1},
            observation={"poll_secs": 0.5},
            timeouts=TIMEOUTS,
        )
        made = Stage(bench, cortex, (faulty, good))
        for face in FACES.values():
            assert made.outcome(models[0], face) == SERVED
        made.sockets = made.count_sockets()
        made.settles()
        made.sockets = made.count_sockets()
        yield made
