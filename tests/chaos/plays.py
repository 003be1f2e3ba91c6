"""What a node does to a request instead of answering it well: one function a fault."""

import asyncio
from collections.abc import Callable

from tests.chaos.faulty_node import Play, Turn, chunk
from tests.libs.cortex_dialects.streams import HELLO, delta, frame

#: What a stream begins with before something happens to it.
BEGUN = HELLO[: HELLO.index(frame(delta("lo")))]
#: Longer than any limit of the gateways that are tested.
FOR_EVER_SECS = 60.0
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def reset(turn: Turn) -> None:
    """Close with a reset."""
    turn.reset()


async def leave(turn: Turn) -> None:
    """Close without a word."""


async def silence(turn: Turn) -> None:
    """Say nothing."""
    await turn.until_left()


def raw(data: bytes, then: Play = leave) -> Play:
    """Send bytes, then do the rest."""

    async def play(turn: Turn) -> None:
        await turn.say(data)
        await then(turn)

    return play


def after_head(then: Play) -> Play:
    """Begin an answer properly and send nothing of its body."""

    async def play(turn: Turn) -> None:
        await turn.say_head(length=None)
        await then(turn)

    return play


def in_body(data: Callable[[bytes], bytes], then: Play = leave) -> Play:
    """Begin a chunked answer well, then send what `data` makes of its rest."""

    async def play(turn: Turn) -> None:
        answer = turn.answer()
        cut = len(BEGUN) if turn.stream else 20
        await turn.say_head()
        await turn.say(chunk(answer[:cut]))
        if turn.stream:
            await turn.passed_on()
        await turn.say(data(answer[cut:]))
        await then(turn)

    return play


def half(data: bytes) -> bytes:
    """Return a chunk's head and half of what it promises."""
    return chunk(data)[: len(data) // 2]


async def too_long(turn: Turn) -> None:
    """Promise more than is sent."""
    answer = turn.answer()
    cut = BEGUN if turn.stream else answer
    await turn.say_head(length=len(answer) + 100)
    await turn.say(cut)
    if turn.stream:
        await turn.passed_on()


async def too_short(turn: Turn) -> None:
    """Send more than was promised, and go on listening."""
    answer = turn.answer()
    length = len(BEGUN) if turn.stream else 20
    await turn.say_head(length=length)
    await turn.say(answer[:length])
    await asyncio.sleep(0.05)  # the promised part is then a read of its own
    await turn.say(answer[length:] + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    await turn.until_left()


def conflicting(first: str, second: str) -> Play:
    """Say twice, and differently, how long the answer is."""

    async def play(turn: Turn) -> None:
        kind = "text/event-stream" if turn.stream else "application/json"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{first}\r\n{second}\r\n\r\n"
        await turn.say(head.encode() + chunk(turn.answer()) + b"0\r\n\r\n")
        await turn.until_left()

    return play


def drop_by_drop(pause_secs: float, drops: int) -> Play:
    """Send so many bytes one at a time, and then the rest at once."""

    async def play(turn: Turn) -> None:
        answer = turn.answer()
        await turn.say_head(length=len(answer))
        for at in range(drops):
            await turn.say(answer[at : at + 1])
            await asyncio.sleep(pause_secs)
        await turn.say(answer[drops:])

    return play


def head_drop_by_drop(pause_secs: float) -> Play:
    """Never get to the end of the answer's head."""

    async def play(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nx-slow: ")
        for _ in range(int(FOR_EVER_SECS / pause_secs)):
            await turn.say(b"x")
            await asyncio.sleep(pause_secs)

    return play


async def with_trailers(turn: Turn) -> None:
    """Answer well, with fields after the body."""
    await turn.say_head()
    await turn.say(chunk(turn.answer()) + b"0\r\nx-checksum: 7\r\n\r\n")


async def old_protocol(turn: Turn) -> None:
    """Answer well, as servers did thirty years ago: the connection's end is the body's."""
    kind = "text/event-stream" if turn.stream else "application/json"
    await turn.say(f"HTTP/1.0 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode() + turn.answer())


async def answers_twice(turn: Turn) -> None:
    """Answer well, and then once more, although nobody asked."""
    await turn.say_answer()
    await turn.say(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n" + b'{"stolen": "yes"}')
    turn.kept = True


async def refuses_early(turn: Turn) -> None:
    """Refuse at the sight of the head, and read the rest without looking at it."""
    body = b'{"error": {"message": "too much", "code": "too_much"}}'
    head = f"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    await turn.say(head.encode() + body)
    await turn.until_left()


async def without_length(turn: Turn) -> None:
    """Begin an answer whose end is the connection's, and close it too early."""
    kind = "text/event-stream" if turn.stream else "application/json"
    await turn.say(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode())
    await turn.say(BEGUN if turn.stream else turn.answer()[:20])
    if turn.stream:
        await turn.passed_on()


async def early_hints(turn: Turn) -> None:
    """Say that an answer is coming, twice, before it comes."""
    await turn.say(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 2)
    await turn.say_answer()


async def one_endless_line(turn: Turn) -> None:
    """Send one event that never ends."""
    await turn.say_head()
    if turn.stream:
        await turn.say(chunk(BEGUN))
        await turn.passed_on()
    for _ in range(600):
        await turn.say(chunk(b"x" * 1_000_000))


def refusing(status: str, body: bytes, fields: str = "") -> Play:
    """Answer with an error."""
    text = f"HTTP/1.1 {status}\r\n{fields}content-length: {len(body)}\r\n\r\n"

    async def play(turn: Turn) -> None:
        await turn.say(text.encode() + body)
        turn.kept = True

    return play


async def die_when_used_again(turn: Turn) -> None:
    """Serve a connection's first request, and leave when its second comes."""
    if turn.number == 1:
        await turn.say_answer()
        turn.kept = True
