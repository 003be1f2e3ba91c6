"""Requests that are nearly right, one behind the other, for as long as one likes.

Run it with `python -m tests.fuzz.front --secs 600 --seed 1`. It exits 1, with the bytes that did
it, when the cuts made a difference, h11 sees other requests than we do, or a server of ours hung,
crashed, took a request that is none, or did not give exactly one well-formed answer to each.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import structlog
import uvloop
from sanic import HTTPResponse, Request

from cortex_core.errors import ApiError
from cortex_uplink import MalformedAnswer
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.envelopes import answer
from cortex_uplink.lean_app import LeanApp
from cortex_uplink.request_parser import Head
from cortex_uplink.serving import make_app
from tests.fuzz.answers import cut
from tests.fuzz.opinion import sees_no_other
from tests.fuzz.requests import nearly_requests
from tests.libs.cortex_uplink.requests import Heard, Seen, hear

#: Requests to be read by the parser alone, for each batch of them that comes through a socket.
ALONE = 20
_HANG_SECS = 10.0
_MAX_BODY_BYTES = 1 << 20
_TARGETS = (b"/whole", b"/stream", b"/later", b"/fails", b"/routed", b"/routed-stream")


class Violation(Exception):
    """What must always hold did not."""


def fuzz(seed: int, *, secs: float = 0.0, rounds: int = 0) -> Counter[str]:
    """Fuzz for so long, or so many rounds, on either event loop; return what came of it.

    Raises Violation.
    """
    random = Random(seed)
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + secs
    while rounds > 0 or time.monotonic() < until:
        for run in (uvloop.run, asyncio.run):
            outcomes.update(run(_fuzz(random, min(rounds, 500) if secs <= 0 else 500, until, secs)))
        rounds -= 500
    return outcomes


async def _fuzz(random: Random, rounds: int, until: float, secs: float) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    server = _Server()
    async with server.serving():
        for _ in range(rounds):
            if secs > 0 and time.monotonic() > until:
                break
            for _ in range(ALONE):
                outcomes[_read_alone(random, nearly_requests(random))] += 1
            outcomes[await _through_a_socket(random, server)] += 1
    return outcomes


def _read_alone(random: Random, raw: bytes) -> str:
    whole = hear([raw])
    if (other := hear(cut(random, raw))) != whole:
        raise Violation(f"the cuts make a difference: {raw!r}: {whole}, {other}")
    if not sees_no_other(whole, raw):
        raise Violation(f"{whole}, but h11 sees others: {raw!r}")
    if whole.refused:
        return "alone: refused"
    return f"alone: {len(whole.requests)} read"


async def _through_a_socket(random: Random, server: "_Server") -> str:
    """Send some requests to a server: it takes those that we mean, and answers each once."""
    raw = nearly_requests(random, _TARGETS)
    meant = hear([raw], _MAX_BODY_BYTES)
    server.taken.clear()
    server.old = False
    server.crashed.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(_HANG_SECS):
            leaves = not random.randrange(8)
            pieces = cut(random, raw)
            if leaves:
                pieces = pieces[: random.randrange(len(pieces) + 1)]
            sending = asyncio.ensure_future(_send(random, writer, pieces))
            if leaves:
                await sending
            else:
                await _read_answers(reader, server, meant, raw)
                await sending
            writer.transport.abort()
            while server.connections or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
    except TimeoutError:
        left = (len(server.connections), asyncio.all_tasks())
        raise Violation(f"it hung: {meant}, {left}: {raw!r}") from None
    if server.crashed:
        raise Violation(f"{server.crashed}: {raw!r}")
    if leaves:
        return "asked: left"
    kind = "refused after" if meant.refused else "over after" if meant.over else "kept after"
    return f"asked: {kind} {len(meant.requests)}"


async def _send(random: Random, writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
    with suppress(ConnectionError):  # it may be told to stop
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if not random.randrange(4):
                await asyncio.sleep(0)


async def _read_answers(
    reader: asyncio.StreamReader, server: "_Server", meant: Heard, raw: bytes
) -> None:
    """Read an answer to each request, and to what is refused; then nothing, or the end.

    A stream to a client of HTTP/1.0 ends with the connection.
    """
    methods = [one.method for one in meant.requests] + ["NONE"] * meant.refused
    data = b""
    ended = False
    answered = 0
    while answered < len(methods) and not ended:
        status, ended, data = await _one_answer(reader, data, methods[answered], raw)
        answered += 1
        last = answered == len(methods)
        if last and meant.refused and status not in {400, 413}:
            raise Violation(f"refused with {status}: {raw!r}")
        if ended is not (last and meant.over) and not (ended and server.old):
            raise Violation(f"{answered} of {methods} answered, ended: {ended}: {raw!r}")
    if ended:
        try:
            data += await reader.read()
        except ConnectionResetError:
            # Who says that it is the last and sends on may be cut off once that is answered.
            if meant.refused and answered == len(methods):
                raise Violation(f"reset before the refusal was taken: {raw!r}") from None
    if data and not b"HTTP/1.1 100 Continue\r\n\r\n".startswith(data):
        raise Violation(f"{data!r} behind the answers: {raw!r}")
    if server.taken != list(meant.requests[:answered]):
        raise Violation(f"meant {meant}, but it took {server.taken}: {raw!r}")


async def _one_answer(
    reader: asyncio.StreamReader, data: bytes, method: str, raw: bytes
) -> tuple[int, bool, bytes]:
    """Read an answer; return its status, whether it ends the connection, and what is behind it."""
    parser = AnswerParser(to_head=method == "HEAD")
    while data or (data := await reader.read(1 << 16)):
        for at in range(len(data)):  # so that it is known where it ends
            try:
                parser.feed(data[at : at + 1])
            except MalformedAnswer as error:
                raise Violation(f"answered {data!r} ({error}): {raw!r}") from None
            if parser.complete:
                return parser.status, not parser.keep_alive, data[at + 1 :]
        data = b""
    missing = parser.finish()
    # One that is refused may be a HEAD all the same.
    if missing and not (method == "NONE" and parser.begun and b"HEAD " in raw):
        raise Violation(f"{missing}: {raw!r}")
    return parser.status, True, b""


class _Server:
    """A real app behind real connections. It remembers the requests that it took."""

    def __init__(self) -> None:
        self.port = 0
        self.connections: set[ClientConnection] = set()
        self.taken: list[Seen] = []
        #: One of them was of HTTP/1.0.
        self.old = False
        self.crashed: list[str] = []
        self._app = _app()

    @property
    def max_body_bytes(self) -> int:
        """See Answerer."""
        return self._app.max_body_bytes

    async def answer(self, request: ClientRequest) -> None:
        """Remember a request, and have it answered."""
        self.taken.append(Seen(request.method, request.target, request.body))
        self.old = self.old or not request.modern
        await self._app.answer(request)

    def preview(self, head: Head) -> None:
        """Refuse nobody."""

    def refuse(self, request: ClientRequest, error: ApiError) -> None:
        """Have a request refused."""
        self._app.refuse(request, error)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.crashed.append(str(context)))
        await self._app._startup()  # type: ignore[no-untyped-call]  # noqa: SLF001
        made = await loop.create_server(
            lambda: ClientConnection(self, self.connections), "127.0.0.1", 0
        )
        self.port = made.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            made.close()


def _app() -> LeanApp:
    app = make_app("front", request_max_mb=_MAX_BODY_BYTES >> 20)

    async def whole(request: ClientRequest) -> HTTPResponse:
        return answer(len(request.body))

    async def stream(request: ClientRequest) -> None:
        writer = ClientWriter(request)
        writer.open({"content-type": "text/plain"})
        for part in (b"one", request.body, b"two\n\n"):
            writer.write(part)
            await asyncio.sleep(0)
        writer.write_chunks(b"5\r\n...\n\n\r\n")
        writer.end()

    async def later(request: ClientRequest) -> HTTPResponse:
        await asyncio.sleep(0)
        return answer({"path": request.path})

    async def fails(_: ClientRequest) -> None:
        raise ValueError("as it was asked to")

    async def routed(request: Request) -> HTTPResponse:
        return answer(len(request.body))

    async def routed_stream(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send(request.body)
        await response.send("end")

    for handler in (whole, stream, later, fails):
        app.add_direct_route(handler, f"/{handler.__name__}", handler.__name__)
    methods = ["GET", "POST", "HEAD", "PUT"]
    app.add_route(routed, "/routed", methods=methods)
    app.add_route(routed_stream, "/routed-stream", methods=methods)
    return app


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secs", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    # What a client did wrong is said to it, not to whoever watches this.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("sanic").setLevel(logging.CRITICAL)
    try:
        outcomes = fuzz(asked.seed, secs=asked.secs)
    except Violation as violation:
        sys.stdout.write(f"seed {asked.seed}: {violation}\n")
        return 1
    told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    sys.stdout.write(f"seed {asked.seed}, {asked.secs:g} s: {told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
