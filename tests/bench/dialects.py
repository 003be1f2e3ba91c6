"""What translation costs: a streamed chunk, and a large agent's request."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from orjson import dumps

from cortex_dialects import Exchange, Ticket, read_messages, read_passed, read_responses
from tests.bench.reporting import Report, Table, spread
from tests.libs.cortex_dialects.streams import delta, frame

METHOD = """\
Processor time of one thread, bytes to bytes. chunk: one token of a chat completion stream, read
along (openai) or translated; median of 9 rounds of 5,000. request: parsed, translated and written
for the node; a system prompt of 40 kB, 20 tools, 60 turns with calls and results. In µs."""
TICKET = Ticket(request_id="req-1", answer_id="abc", created=7)
ROUNDS, CHUNKS = 9, 5000
TOOL = {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}}


def measure() -> Report:
    """Measure every dialect."""
    rows = []
    for name, read, body in (
        ("openai", lambda raw: read_passed(raw, "/v1/chat/completions"), chat_request()),
        ("anthropic", lambda raw: read_messages(raw, TICKET), messages_request()),
        ("responses", lambda raw: read_responses(raw, TICKET), responses_request()),
    ):
        raw = dumps(body)
        rows.append((name, *chunk_micros(read(raw)), len(raw), *request_micros(read, raw)))
    columns = ("", "chunk", "least", "most", "request bytes", "request", "least", "most")
    return Report(
        name="dialects", method=METHOD, tables=[Table(title="µs", columns=columns, rows=rows)]
    )


def chunk_micros(exchange: Exchange) -> tuple[Any, ...]:
    """Return median, least and most microseconds a streamed token takes."""
    stream = exchange.stream()
    chunks = [frame(delta(f" token{number}")) for number in range(CHUNKS)]
    stream.feed(frame(delta("first")))
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for chunk in chunks:
            stream.feed(chunk)
        rounds.append((time.process_time() - began) / CHUNKS * 1e6)
    return spread(rounds)


def request_micros(read: Callable[[bytes], Exchange], raw: bytes) -> tuple[Any, ...]:
    """Return median, least and most microseconds a request takes."""
    rounds = []
    for _ in range(ROUNDS):
        few = []
        for _ in range(5):
            began = time.process_time()
            read(raw).node_body("org/another-model")
            few.append((time.process_time() - began) * 1e6)
        rounds.append(median(few))
    return spread(rounds)


def messages_request() -> dict[str, Any]:
    """Return what an agent sends in its sixtieth turn, about 200 kB."""
    turns: list[dict[str, Any]] = []
    for number in range(60):
        call = {
            "type": "tool_use",
            "id": f"t{number}",
            "name": "tool_1",
            "input": {"path": "y" * 300},
        }
        said = {"type": "text", "text": "I look. " * 12}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "z" * 600}
        turns += [
            {"role": "user", "content": [{"type": "text", "text": "go on " * 100}]},
            {"role": "assistant", "content": [said, call]},
            {"role": "user", "content": [result]},
        ]
    tools = [
        {"name": f"tool_{number}", "description": "d" * 2000, "input_schema": TOOL}
        for number in range(20)
    ]
    system = [{"type": "text", "text": "s" * 40_000}]
    return {"model": "m", "max_tokens": 9, "system": system, "tools": tools, "messages": turns}


def responses_request() -> dict[str, Any]:
    """Return the same conversation in the words of Responses."""
    items: list[dict[str, Any]] = []
    for number in range(60):
        call = {"type": "function_call", "call_id": f"t{number}", "name": "tool_1"}
        items += [
            {"role": "user", "content": [{"type": "input_text", "text": "go on " * 100}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I look. " * 12}]},
            {**call, "arguments": dumps({"path": "y" * 300}).decode()},
            {"type": "function_call_output", "call_id": f"t{number}", "output": "z" * 600},
        ]
    tools = [
        {
            "type": "function",
            "name": f"tool_{number}",
            "description": "d" * 2000,
            "parameters": TOOL,
        }
        for number in range(20)
    ]
    return {"model": "m", "instructions": "s" * 40_000, "input": items, "tools": tools}


def chat_request() -> dict[str, Any]:
    """Return the same conversation in the words of chat completions."""
    body: dict[str, Any] = read_messages(dumps(messages_request()), TICKET).chat
    return body
