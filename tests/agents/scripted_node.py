"""A node whose model is a script: it calls a tool of the client's, then says that it is done.

What it calls depends on what the client offers, so any coding agent can be asked to write a file.
One fault may be armed; it strikes in one turn, at one boundary between the events of the answer.
"""

import json
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from cortex_dialects import CompletionFold
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, fake_neuron
from tests.libs.cortex_dialects.streams import DONE, ROLE, USAGE, delta, frame

MODEL = "org/coder"
FILE = "hello.txt"
CONTENT = "hello from cortex"
TASK = f"Create a file named {FILE} in the current folder whose only line is: {CONTENT}"
#: Leaves two lines when an agent runs it twice.
COMMAND = f"printf '%s\\n' '{CONTENT}' >> {FILE}"
FIRST_TEXT = ("I will write ", "the file.")
FINAL_TEXT = ("The file ", "is written.")
#: Longer than any limit of the gateway in front of it.
SILENCE_SECS = 30.0


class Kind(Enum):
    """What goes wrong."""

    LOST = "node lost"
    ERROR = "error"
    SILENT = "silence"
    BUSY = "503 with Retry-After"


class Fault(NamedTuple):
    """A fault in turn `turn` (1 calls the tool, 2 follows its result), after `sent` events.

    It strikes the first `times` requests of that turn.
    """

    kind: Kind
    turn: int
    sent: int = 0
    times: int = 1


class Event(NamedTuple):
    """One event of an answer and what it carries."""

    name: str
    data: bytes


@dataclass(slots=True)
class Script:
    """Plays the model, with at most one fault."""

    fault: Fault | None = None
    struck: int = 0
    turns: list[int] = field(default_factory=list)

    def answer(self, handler: Handler) -> None:
        """Answer one request of the gateway."""
        if handler.path != "/v1/chat/completions":
            handler.send({"error": "no such route"}, 404)
            return
        body = handler.node.bodies[-1]
        turn = turn_of(body)
        self.turns.append(turn)
        events = answer_events(body)
        streamed = bool(body.get("stream"))
        fault = self.fault
        if fault is not None and fault.turn == turn and self.struck < fault.times:
            self.struck += 1
            strike(handler, fault, events if streamed else [])
        elif streamed:
            handler.stream(*(event.data for event in events))
        else:
            fold = CompletionFold()
            for event in events:
                fold.feed(event.data)
            handler.send(fold.answer())


@contextmanager
def scripted_node(script: Script) -> Iterator[FakeNeuron]:
    """Serve the script on a free loopback port, its model loaded."""
    node = FakeNeuron(reply=script.answer)
    node.hold(MODEL)
    with fake_neuron(node):
        yield node


def turn_of(body: dict[str, Any]) -> int:
    """Return where a conversation stands: 0 without tools, 1 before the call, 2 after it."""
    if not body.get("tools"):
        return 0
    return 2 if any(message["role"] == "tool" for message in body["messages"]) else 1


def answer_events(body: dict[str, Any]) -> list[Event]:
    """Return the answer to a request."""
    if turn_of(body) == 1:
        name, arguments = writing_call(body["tools"])
        return turn_events(FIRST_TEXT, (name, json.dumps(arguments)))
    return turn_events(FINAL_TEXT)


def turn_events(texts: tuple[str, ...], call: tuple[str, str] | None = None) -> list[Event]:
    """Return an answer of some text and at most one call, by its name and arguments."""
    events = [Event("role", frame(ROLE)), *(Event("text", frame(delta(text))) for text in texts)]
    if call is not None:
        name, arguments = call
        half = len(arguments) // 2
        events += [
            Event("call", call_frame({"name": name, "arguments": ""}, id="call_1")),
            Event("arguments", call_frame({"arguments": arguments[:half]})),
            Event("arguments", call_frame({"arguments": arguments[half:]})),
        ]
    reason = "stop" if call is None else "tool_calls"
    return [
        *events,
        Event("finish", frame(delta(None, finish_reason=reason))),
        Event("usage", frame(USAGE)),
        Event("done", DONE),
    ]


def call_frame(function: dict[str, str], **more: str) -> bytes:
    """Return a chunk with a piece of a tool call."""
    call = {"index": 0, "type": "function", "function": function, **more}
    return frame(delta(None) | {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


def writing_call(tools: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """Return a call that writes the file, with a tool that the client offers."""
    offered = [tool["function"]["name"] for tool in tools]
    for name in offered:
        match name:
            case "Bash" | "shell_command":
                return name, {"command": COMMAND}
            case "exec_command":
                return name, {"cmd": COMMAND}
            case _:
                continue
    raise LookupError(f"no tool that could write a file among {sorted(offered)}")


def strike(handler: Handler, fault: Fault, events: list[Event]) -> None:
    """Answer as far as the fault allows. `events` is empty where the answer is not a stream."""
    sent = events[: fault.sent]
    if sent:
        handler.stream(*(event.data for event in sent), cut=True)
    match fault.kind:
        case Kind.BUSY:
            handler.send({"error": {"code": "queue_full", "message": "busy"}}, 503, retry_after="1")
        case Kind.ERROR if sent:
            error = {"type": "api_error", "code": "engine_failed", "message": "the engine failed"}
            ending = frame({"error": error})
            handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(ending), ending))
        case Kind.ERROR:
            handler.send({"error": {"code": "engine_failed", "message": "it failed"}}, 500)
        case Kind.SILENT:
            # Readable means that the gateway has hung up.
            select.select([handler.connection], [], [], SILENCE_SECS)
            handler.close_connection = True
        case Kind.LOST:
            handler.close_connection = True
