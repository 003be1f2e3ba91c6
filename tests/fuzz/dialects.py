"""Hostile clients and nodes against every dialect, for as long as one likes.

    python -m tests.fuzz.dialects --secs 600 --seed 1

Good requests and streams are spoiled at random: values replaced, keys lost, bytes flipped, cut and
repeated. Whatever comes, a request gives a node's body or `BadBody`, a stream gives frames or
`FrameTooLarge`, what comes out stays within bounds of what went in, and memory does not grow. It
exits 1 at the first violation, with the seed and the input.
"""

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Any

import typer
from orjson import dumps, loads

from cortex_dialects import (
    BadBody,
    Exchange,
    Failure,
    FrameTooLarge,
    Ticket,
    estimate_tokens,
    read_messages,
    read_passed,
    read_responses,
)
from tests.libs.cortex_dialects.streams import HELLO, ROLE, delta, frame

TICKET = Ticket(request_id="req-1", answer_id="abc", created=7)
LOST = Failure(status=503, type="api_error", message="lost")
#: Memory may grow by so much after the first tenth of the time: caches of the interpreter.
GROWTH_MB = 64
#: An event costs so many bytes around what it carries, and a chunk may carry a few events.
MOST_BYTES_PER_BYTE = 40
MOST_BYTES_MORE = 64 * 1024

TOOL = {"type": "object", "properties": {"path": {"type": "string"}}}
BODIES: dict[str, list[dict[str, Any]]] = {
    "openai": [{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}],
    "anthropic": [
        {
            "model": "m",
            "max_tokens": 9,
            "system": [{"type": "text", "text": "Be."}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [{"name": "ls", "input_schema": TOOL}],
            "tool_choice": {"type": "tool", "name": "ls"},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "x"},
                        {"type": "tool_use", "id": "t", "name": "ls", "input": {"path": "/"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [
                                {"type": "text", "text": "x"},
                                {"type": "image", "source": {"type": "url", "url": "http://x"}},
                            ],
                        }
                    ],
                },
            ],
        }
    ],
    "responses": [
        {
            "model": "m",
            "instructions": "Be.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "c", "name": "ls", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
            ],
            "tools": [
                {"type": "function", "name": "ls", "parameters": TOOL},
                {"type": "custom", "name": "patch"},
                {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
            ],
            "tool_choice": "auto",
            "text": {"format": {"type": "json_schema", "name": "x", "schema": TOOL}},
            "reasoning": {"effort": "high"},
        }
    ],
}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "ls", "arguments": '{"a"'}}
STREAMS = [
    HELLO,
    frame(ROLE)
    + frame(delta(None, delta={"reasoning_content": "hm"}))
    + frame(delta(None, delta={"tool_calls": [CALL]}))
    + frame(delta(None, delta={"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}))
    + frame(delta(None, finish_reason="tool_calls")),
    frame(ROLE) + frame({"error": {"message": "no", "type": "api_error"}}),
]
VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 1.5, "", "x", "\x00", "😀", [], {}, [[]], {"type": "text"},
    {"type": "tool_result"}, "x" * 5000, ["system"], {"function": {}}, [None] * 50, "assistant",
]  # fmt: skip


def main(
    secs: Annotated[float, typer.Option(min=0.1)] = 600.0,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Spoil requests and streams until the time is over."""
    chance = random.Random(seed)
    began = time.monotonic()
    counted: Counter[str] = Counter()
    settled_mb: float | None = None
    while (elapsed := time.monotonic() - began) < secs:
        for name, round_of in (("request", a_request), ("stream", a_stream)):
            state = chance.getstate()
            try:
                counted[f"{name} {round_of(chance)}"] += 1
            except Exception as error:
                chance.setstate(state)
                typer.echo(f"VIOLATION with seed {seed}: {type(error).__name__}: {error}")
                raise
        if settled_mb is None and elapsed > secs / 10:
            settled_mb = peak_mb()
    grown_mb = peak_mb() - (settled_mb or peak_mb())
    told = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    typer.echo(f"seed {seed}: {secs:g} s: {told}; memory grew by {grown_mb:.0f} MiB")
    sys.exit(grown_mb > GROWTH_MB)


def a_request(chance: random.Random) -> str:
    """Send one spoiled request through its dialect; return how it ended."""
    dialect = chance.choice(sorted(BODIES))
    body = loads(dumps(chance.choice(BODIES[dialect])))
    for _ in range(chance.randint(0, 3)):
        spoil(body, chance)
    raw = dumps(body)
    if chance.random() < 0.2:
        raw = spoiled_bytes(raw, chance)
    if chance.random() < 0.01:
        raw = raw[:-1] + b',"deep":' + b"[" * 900 + b"]" * 900 + b"}"
    try:
        exchange = READERS[dialect](raw)
        asked = exchange.node_body("org/model")
    except BadBody:
        return "refused"
    assert len(asked) < MOST_BYTES_PER_BYTE * len(raw) + MOST_BYTES_MORE, raw
    assert loads(asked)["model"] == "org/model", raw
    estimate_tokens(loads(asked))
    return "translated"


def a_stream(chance: random.Random) -> str:
    """Send one spoiled stream through a dialect; return how it ended."""
    exchange = READERS[chance.choice(sorted(BODIES))](dumps(GOOD))
    raw = chance.choice(STREAMS)
    if chance.random() < 0.5:
        frames = [part for part in raw.split(b"\n\n") if part.startswith(b"data: {")]
        values = [loads(part[6:]) for part in frames]
        for _ in range(chance.randint(1, 3)):
            spoil(chance.choice(values), chance)
        chance.shuffle(values)
        raw = b"".join(map(frame, values))
    else:
        raw = spoiled_bytes(raw, chance)
    stream = exchange.stream()
    out = 0
    at = 0
    try:
        while at < len(raw):
            step = chance.randint(1, 200)
            out += len(stream.feed(raw[at : at + step]))
            at += step
            if chance.random() < 0.05:
                out += len(stream.open())
        out += len(stream.finish())
    except FrameTooLarge:
        return "too large"
    ended = "whole" if stream.complete else "failed"
    out += len(stream.fail(LOST))
    assert out < MOST_BYTES_PER_BYTE * len(raw) + MOST_BYTES_MORE, raw
    return ended


def spoil(value: Any, chance: random.Random) -> None:
    """Change one thing somewhere inside a JSON value."""
    while isinstance(value, dict | list) and value:
        key: Any = (
            chance.choice(sorted(value))
            if isinstance(value, dict)
            else chance.randrange(len(value))
        )
        inner = value[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
            value = inner
            continue
        spoiled: Any = value
        copied = deepcopy(inner)
        match chance.randrange(4):
            case 0:
                del spoiled[key]
            case 1 if isinstance(value, list):
                spoiled.append(copied)
            case 1:
                spoiled[chance.choice(["type", "role", "content", "id", "name"])] = copied
            case _:
                spoiled[key] = deepcopy(chance.choice(VALUES))
        return


def spoiled_bytes(raw: bytes, chance: random.Random) -> bytes:
    """Return the bytes with some flipped, lost, repeated or put in."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = data[max(0, at - 30) : at]
            case _:
                data[at:at] = chance.choice(
                    [b"\r", b"\n\n", b"\r\n\r\n", b"data: ", b"\xff", b"}", b'"']
                )
    return bytes(data)


def peak_mb() -> float:
    """Return the most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


GOOD: dict[str, Any] = {
    "model": "m",
    "max_tokens": 9,
    "input": "hi",
    "thinking": {"type": "adaptive"},
    "messages": [{"role": "user", "content": "hi"}],
}
READERS: dict[str, Callable[[bytes], Exchange]] = {
    "openai": lambda raw: read_passed(raw, "/v1/chat/completions"),
    "anthropic": lambda raw: read_messages(raw, TICKET),
    "responses": lambda raw: read_responses(raw, TICKET),
}

if __name__ == "__main__":
    typer.run(main)
