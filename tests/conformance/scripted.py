"""One fleet for an SDK's scenarios: a real node with the small model, and one that plays a script.

The small model cannot be made to call tools or to think; the scripted node says whatever a test
wants an engine to have said, whole or streamed, as the client asked.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, Reply, fake_neuron
from tests.fleet.conversations import entry
from tests.fleet.processes import Daemon, eventually, workbench
from tests.libs.cortex_dialects.streams import DONE, ROLE, USAGE, delta, frame

SCRIPTED = "org/scripted"
#: Names the small model goes by. The patterns are those that a user of either agent would write.
ALIASES = {"claude-*": "demo", "gpt-*": "demo", "scripted-*": SCRIPTED}

#: A call as an engine makes it: its id, the tool's name, its arguments as JSON text.
Call: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cortex, its real node and its scripted one."""

    cortex: Daemon
    neuron: Daemon
    node: FakeNeuron

    @property
    def url(self) -> str:
        """Where clients of Anthropic's go."""
        return self.cortex.url

    @property
    def openai_url(self) -> str:
        """Where clients of OpenAI's go."""
        return f"{self.cortex.url}/v1"

    def received(self) -> dict[str, Any]:
        """Return the body that the scripted node got last."""
        return self.node.bodies[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What an engine says in one answer. Calls side by side: a piece of each in turn."""

    text: str = ""
    thoughts: str = ""
    calls: Sequence[Call] = ()
    side_by_side: bool = False
    finish: str = "stop"
    stopped_by: str | None = None

    def whole(self, model: str) -> dict[str, Any]:
        """Return the answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.thoughts:
            message["reasoning_content"] = self.thoughts
        if self.calls:
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in self.calls
            ]
        choice = {"index": 0, "message": message, **self._end()}
        return {**USAGE, "object": "chat.completion", "model": model, "choices": [choice]}

    def chunks(self) -> list[bytes]:
        """Return the answer as a stream's frames, everything cut into small pieces."""
        said = [_more(reasoning_content=piece) for piece in _pieces(self.thoughts)]
        said += [_more(content=piece) for piece in _pieces(self.text)]
        calls = [_call(index, call) for index, call in enumerate(self.calls)]
        if self.side_by_side:
            calls = [[piece for row in zip_longest(*calls, fillvalue=b"") for piece in row]]
        said += [piece for call in calls for piece in call if piece]
        return [frame(ROLE), *said, frame(delta(None, **self._end())), frame(USAGE), DONE]

    def _end(self) -> dict[str, Any]:
        reason = "tool_calls" if self.calls else self.finish
        return {"finish_reason": reason} | (
            {} if self.stopped_by is None else {"stop_reason": self.stopped_by}
        )


def _more(**said: Any) -> bytes:
    return frame(delta(None, delta=said))


def _call(index: int, call: Call) -> list[bytes]:
    id_, name, given = call
    begun = {"id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
    more = [{"function": {"arguments": piece}} for piece in _pieces(given)]
    said: list[dict[str, Any]] = [begun, *more]
    return [_more(tool_calls=[{"index": index, **one}]) for one in said]


def _pieces(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def script(*turns: Turn | Reply) -> Reply:
    """Return a node's behaviour: one turn, or one misdeed, for each request."""
    left = list(turns)

    def reply(handler: Handler) -> None:
        turn = left.pop(0)
        if not isinstance(turn, Turn):
            turn(handler)
        elif handler.node.bodies[-1].get("stream"):
            handler.stream(*turn.chunks())
        else:
            handler.send(turn.whole(SCRIPTED))

    return reply


def lost_after(*chunks: bytes) -> Reply:
    """Return a node that is lost in the middle of its answer."""
    return lambda handler: handler.stream(*chunks, cut=True)


def refused(status: int, message: str, **headers: str) -> Reply:
    """Return a node that refuses."""
    return lambda handler: handler.send({"error": {"message": message}}, status, **headers)


def arguments(**given: Any) -> str:
    """Return the arguments of a call as an engine writes them."""
    return json.dumps(given)


@contextmanager
def scripted_fleet(folder: Path, model: Path) -> Iterator[Fleet]:
    """Run the fleet, the small model loaded on one node and the scripted one on the other."""
    node = FakeNeuron()
    node.hold(SCRIPTED)
    with fake_neuron(node), workbench(folder) as bench:
        neuron = bench.neuron()
        cortex = bench.cortex(
            {"n1": neuron.url, "scripted": node.url},
            [entry("demo", model, pinned_on=["n1"]), {"id": SCRIPTED, "harness": "candle"}],
            ALIASES,
            gateway={"request_max_mb": 1},
            observation={"poll_secs": 0.1},
        )
        loaded = {"model": "demo", "node": "n1"}
        cortex.http.post(f"{cortex.url}/fleet/models/load", json=loaded).raise_for_status()
        eventually(lambda: _loaded(cortex) >= {"demo", SCRIPTED})
        yield Fleet(cortex, neuron, node)


def _loaded(cortex: Daemon) -> set[str]:
    rows = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    return {row["id"] for row in rows if row["loaded"]}
