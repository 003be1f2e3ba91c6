"""What clients do, by mistake or on purpose, and what becomes of them and of everybody else."""

import socket
import time
from collections.abc import Callable
from typing import Final

from orjson import loads

from cortex_uplink.guarding import most_connections, raise_descriptor_limit
from tests.chaos.faulty_node import At, Fault, Turn, chunk
from tests.chaos.outcomes import CLOSED, outcome_of
from tests.chaos.plays import BEGUN
from tests.chaos.scenario import Part, Staged, lone
from tests.chaos.stage import CHAT, CHAT_STREAM, CHAT_WHOLE, Misbehaved, Stage
from tests.chaos.wire import Ended, Heard, Wire, crowd, head, post
from tests.fleet.processes import eventually
from tests.libs.cortex_dialects.streams import delta, frame

FREED_WITHIN_SECS = 0.25
#: A gateway may need so much more memory for a client that does not read, or never stops sending.
MORE_MB = 24.0
LARGE_FRAME: Final = frame(delta("x" * 60_000))
MOST_FRAMES = 2000
#: Ways to say two things about where a request ends, or to say one in a way that others overlook.
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
AMBIGUOUS: Final[dict[str, tuple[bytes, bytes]]] = {
    "length and chunked": (b"content-length: 5\r\ntransfer-encoding: chunked", b"0\r\n\r\n"),
    "chunked and length": (b"transfer-encoding: chunked\r\ncontent-length: 5", b"0\r\n\r\n"),
    "two lengths": (b"content-length: 0\r\ncontent-length: 35", b""),
    "a list of lengths": (b"content-length: 0, 35", b""),
    "a signed length": (b"content-length: +0", b""),
    "a length in hexadecimal": (b"content-length: 0x0", b""),
    "no such coding": (b"transfer-encoding: xchunked", b"0\r\n\r\n"),
    "two codings": (b"transfer-encoding: gzip, chunked", b"0\r\n\r\n"),
    "space before the colon": (b"transfer-encoding : chunked", b"0\r\n\r\n"),
    "space before the name": (b" transfer-encoding: chunked", b"0\r\n\r\n"),
    "folded field": (b"x: a\r\n transfer-encoding: chunked", b"0\r\n\r\n"),
    "bare line feed": (b"x: a\ntransfer-encoding: chunked", b"0\r\n\r\n"),
    "bare carriage return": (b"x: a\rtransfer-encoding: chunked", b"0\r\n\r\n"),
    "null byte": (b"x: a\0\r\ncontent-length: 0", b""),
    "size with a prefix": (b"transfer-encoding: chunked", b"0x0\r\n\r\n"),
    "negative size": (b"transfer-encoding: chunked", b"-1\r\n\r\n"),
    "no end of a chunk": (b"transfer-encoding: chunked", b"1\r\nxAA0\r\n\r\n"),
}


def leaves_while_waiting(stage: Stage, name: str) -> None:
    """The client has gone before anything of an answer came."""
    _leaves(stage, name, Fault(At.REQUEST, Turn.until_left))


def leaves_midstream(stage: Stage, name: str) -> None:
    """The client resets its connection in the middle of a stream."""

    async def play(turn: Turn) -> None:
        await turn.say_head()
        await turn.say(chunk(BEGUN))
        await turn.until_left()

    _leaves(stage, name, Fault(At.REQUEST, play), midstream=True)


def _leaves(stage: Stage, name: str, fault: Fault, *, midstream: bool = False) -> None:
    stage.faulty.arm(fault)
    faces = [CHAT_STREAM] if midstream else [CHAT_WHOLE, CHAT_STREAM]
    for face in faces:
        asked = stage.request_id()
        with Wire(stage.cortex.url) as wire:
            wire.send(post(face.path, face.body(lone(name)), asked))
            eventually(lambda: stage.faulty.busy == 1)
            if midstream:
                wire.hear_until(b"Hel")
            wire.reset()
        left = time.monotonic()
        eventually(lambda: stage.faulty.busy == 0, within=5.0, every=0.002)
        if (took := time.monotonic() - left) > FREED_WITHIN_SECS:
            raise Misbehaved(f"the node's seat came back after {took:.2f} s")
        if not stage.line_of(asked).get("client_gone"):
            raise Misbehaved("the log does not say that the client left")
    stage.faulty.disarm()
    _goes_on(stage, name)


def leaves_inside_its_body(stage: Stage, name: str) -> None:
    """Half a body, then the connection's end."""
    for close in (Wire.close, Wire.reset):
        with Wire(stage.cortex.url) as wire:
            wire.send(head(CHAT, "half", content_length="1000") + b"{" * 500)
            close(wire)
    _goes_on(stage, name)


def closes_its_sending_side(stage: Stage, name: str) -> None:
    """A request, and the end of everything the client will ever send."""
    with Wire(stage.cortex.url, 5.0) as wire:
        wire.send(post(CHAT, CHAT_WHOLE.body(lone(name)), "half-closed"))
        wire.socket.shutdown(socket.SHUT_WR)
        if (heard := outcome_of(wire.hear())) != CLOSED:
            raise Misbehaved(f"{heard} instead of {CLOSED}")
    _goes_on(stage, name)


def reads_nothing(stage: Stage, name: str) -> None:
    """A long stream to a client that never reads: the node waits, nothing is piled up."""
    sent = 0

    async def play(turn: Turn) -> None:
        nonlocal sent
        await turn.say_head()
        for _ in range(MOST_FRAMES):
            await turn.say(chunk(LARGE_FRAME))
            sent += len(LARGE_FRAME)

    before = stage.memory_mb()
    stage.faulty.arm(Fault(At.REQUEST, play))
    with Wire(stage.cortex.url) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.send(post(CHAT, CHAT_STREAM.body(lone(name)), stage.request_id()))
        eventually(lambda: sent > 0)
        _stops_growing(lambda: sent)
        grown = stage.memory_mb() - before
        if sent > MORE_MB * 2**20 or grown > MORE_MB:
            raise Misbehaved(f"{sent / 2**20:.0f} MiB taken in, memory grew by {grown:.0f} MiB")
    stage.faulty.disarm()
    _goes_on(stage, name)


def _stops_growing(value: Callable[[], int]) -> None:
    last, since = value(), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        if (now := value()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.3

    eventually(is_still, within=10.0)


def large_head(stage: Stage, name: str) -> None:
    """200 kB of fields."""
    with Wire(stage.cortex.url, 5.0) as wire:
        wire.send(head(CHAT, "large", x_big="x" * 200_000))
        _refused(wire.hear(), 413, "request_too_large")
        _over(wire)
    _goes_on(stage, name)


def announces_too_much(stage: Stage, name: str) -> None:
    """A content-length of ten gigabytes: refused before it is sent."""
    with Wire(stage.cortex.url, 5.0) as wire:
        wire.send(head(CHAT, "huge", content_length=str(10 * 2**30)) + b"{")
        _refused(wire.hear(), 413, "request_too_large")
    _goes_on(stage, name)


def endless_body(stage: Stage, name: str) -> None:
    """Chunks without end: refused at the limit, the connection closed behind it."""
    before = stage.memory_mb()
    with Wire(stage.cortex.url, 20.0) as wire:
        wire.send(head(CHAT, "endless", transfer_encoding="chunked"))
        sent, part = 0, chunk(b"x" * 65_000)
        while sent < 8 * 2**20:
            wire.send(part)
            sent += len(part)
        _refused(wire.hear(), 413, "request_too_large")
    if (grown := stage.memory_mb() - before) > MORE_MB:
        raise Misbehaved(f"memory grew by {grown:.0f} MiB")
    _goes_on(stage, name)


def slow_heads(stage: Stage, name: str) -> None:
    """Two hundred clients at one byte each now and then; the others notice nothing."""
    _crowd_is_bounded(stage, name, 200, b"POST /v1/chat")


def slow_head_is_ended(stage: Stage, name: str) -> None:
    """One byte a second, until the gateway has had enough."""
    _slow(stage, b"POST /v1/chat/completions HTTP/1.1\r\nx: ", b"y")
    _goes_on(stage, name)


def slow_body_is_ended(stage: Stage, name: str) -> None:
    """A body of one byte a second, until the gateway has had enough."""
    _slow(stage, head(CHAT, "slow", content_length="100000"), b" ")
    _slow(stage, head(CHAT, "slow", transfer_encoding="chunked"), b"1\r\nx\r\n")
    _goes_on(stage, name)


def _slow(stage: Stage, begin: bytes, drop: bytes) -> None:
    with Wire(stage.cortex.url, 60.0) as wire:
        wire.send(begin)
        began = time.monotonic()
        wire.socket.settimeout(1.0)
        heard = b""
        while not heard:
            if time.monotonic() - began > 40:
                raise Misbehaved("nobody lost patience within 40 s")
            wire.send(drop)
            wire.socket.settimeout(1.0)
            try:
                heard = wire.socket.recv(65536)
            except TimeoutError:
                continue
        if not heard.startswith(b"HTTP/1.1 400 "):
            raise Misbehaved(f"heard {heard[:60]!r}")


def idle_crowd(stage: Stage, name: str) -> None:
    """Five hundred connections that say nothing."""
    _crowd_is_bounded(stage, name, 500, b"")


def idle_crowd_of_10_000(stage: Stage, name: str) -> None:
    """Ten thousand connections that say nothing."""
    raise_descriptor_limit()
    if most_connections() < 10_000:
        raise Misbehaved(f"this machine allows no more than {most_connections()}: see ulimit -n")
    before = stage.memory_mb()
    _crowd_is_bounded(stage, name, 10_000, b"")
    if (grown := stage.memory_mb() - before) > 200:
        raise Misbehaved(f"memory grew by {grown:.0f} MiB")


def _crowd_is_bounded(stage: Stage, name: str, count: int, begin: bytes) -> None:
    with crowd(stage.cortex.url, count) as held:
        for one in held:
            one.sendall(begin)
        eventually(lambda: stage.count_sockets() > count, within=20.0)
        stage.recovers(lone(name))
    _goes_on(stage, name)


def pipelined(stage: Stage, name: str) -> None:
    """Three requests at once on one connection: three answers, in their order."""
    asked = [stage.request_id() for _ in range(3)]
    body = CHAT_WHOLE.body(lone(name))
    with Wire(stage.cortex.url, 5.0) as wire:
        wire.send(b"".join(post(CHAT, body, one) for one in asked))
        heard = [wire.hear() for _ in asked]
    if [one.headers.get("x-request-id") for one in heard] != asked:
        raise Misbehaved("the answers are not those of the requests, in their order")
    _goes_on(stage, name)


def ambiguous_heads(stage: Stage, name: str) -> None:
    """Every way to hide a request behind another: one 400, then the connection's end."""
    for label, (fields, body) in AMBIGUOUS.items():
        with Wire(stage.cortex.url, 5.0) as wire:
            begin = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            wire.send(begin + fields + b"\r\n\r\n" + body + SMUGGLED)
            heard = wire.hear()
            if heard.status != 400:
                raise Misbehaved(f"{label}: {heard.status} {heard.body[:200]!r}")
            if not wire.is_over():
                raise Misbehaved(f"{label}: the connection goes on")
    _goes_on(stage, name)


def not_http(stage: Stage, name: str) -> None:
    """A TLS greeting, nothing but line ends, and a version that does not exist."""
    for data in (
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n" * 9,
        b"GET / HTTP/9\r\n\r\n",
    ):
        with Wire(stage.cortex.url, 5.0) as wire:
            wire.send(data)
            _refused(wire.hear(), 400, "invalid_request_body")
            _over(wire)
    _goes_on(stage, name)


def stays_at_its_body(stage: Stage, name: str) -> None:
    """`Expect: 100-continue` is answered, and the request served."""
    body = post(CHAT, CHAT_WHOLE.body(lone(name)), stage.request_id(), expect="100-continue")
    begin, rest = body.split(b"\r\n\r\n", 1)
    with Wire(stage.cortex.url, 5.0) as wire:
        wire.send(begin + b"\r\n\r\n")
        wire.hear_until(b"100 Continue\r\n\r\n")
        wire.send(rest)
        if wire.hear().status != 200:
            raise Misbehaved("not served")
    _goes_on(stage, name)


def _refused(heard: Heard, status: int, code: str) -> None:
    told = loads(heard.body)["error"]["code"] if heard.body else None
    if (heard.status, told, heard.ended) != (status, code, Ended.WHOLE):
        raise Misbehaved(f"{heard.status} {told} instead of {status} {code}")


def _over(wire: Wire) -> None:
    if not wire.is_over():
        raise Misbehaved("the connection goes on")


def _goes_on(stage: Stage, name: str) -> None:
    stage.recovers(lone(name))
    stage.settles()


def _client(
    name: str, how: str, got: str, run: Callable[[Stage, str], None], *, fast: bool = True
) -> Staged:
    return Staged(name=name, how=how, part=Part.CLIENT, got={"outcome": got}, fast=fast, run=run)


CLIENT_SCENARIOS: tuple[Staged, ...] = (
    _client(
        "client leaves while it waits",
        "reset before anything of the answer came",
        "the node's seat is free within 250 ms; the log says `client_gone`",
        leaves_while_waiting,
    ),
    _client(
        "client leaves in the middle",
        "reset after the first tokens",
        "the node's seat is free within 250 ms; the log says `client_gone`",
        leaves_midstream,
    ),
    _client(
        "client leaves inside its body",
        "500 of 1000 bytes",
        "no request ever was",
        leaves_inside_its_body,
    ),
    _client(
        "client closes its sending side",
        "after its request",
        "taken for one that leaves",
        closes_its_sending_side,
    ),
    _client(
        "client reads nothing",
        "120 MB of stream, not a byte taken",
        "the node is paused; less than 24 MB is taken in",
        reads_nothing,
    ),
    _client("200 kB of request head", "one field", "413 `request_too_large`, closed", large_head),
    _client(
        "10 GB announced",
        "`content-length` says so",
        "413 `request_too_large` before it is sent",
        announces_too_much,
    ),
    _client(
        "body without end",
        "chunk after chunk",
        "413 `request_too_large` at `request_max_mb`; memory stays",
        endless_body,
    ),
    _client(
        "200 slow heads",
        "connections that have said half a line",
        "others are served as ever",
        slow_heads,
    ),
    _client(
        "head at 1 byte a second",
        "fields that go on",
        "400 after 20 s, closed",
        slow_head_is_ended,
        fast=False,
    ),
    _client(
        "body at 1 byte a second",
        "with a length, and in chunks",
        "400 after 20 s, closed",
        slow_body_is_ended,
        fast=False,
    ),
    _client("500 idle connections", "not a byte", "others are served as ever", idle_crowd),
    _client(
        "10,000 idle connections",
        "not a byte",
        "others are served as ever; less than 200 MB of memory",
        idle_crowd_of_10_000,
        fast=False,
    ),
    _client("pipelined requests", "three at once", "three answers, in their order", pipelined),
    _client(
        "smuggled requests",
        f"{len(AMBIGUOUS)} ways to hide one request behind another",
        "400 and closed, each; nothing hidden is answered",
        ambiguous_heads,
    ),
    _client("not HTTP", "a TLS greeting, line ends, HTTP/9", "400 and closed", not_http),
    _client(
        "expects 100-continue",
        "the body waits for it",
        "100, then the answer",
        stays_at_its_body,
    ),
)
