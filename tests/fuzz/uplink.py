"""Answers that are nearly right and requests that are nearly wrong, for as long as one likes.

Run it with `python -m tests.fuzz.uplink --secs 600 --seed 1`. It exits 1, with the bytes that did
it, when anything but an UplinkError came out, something hung or was left open, an answer was taken
for another than its bytes say, the cuts made a difference, or h11 sees another message than we do.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import cast

import uvloop

from cortex_uplink import (
    ConnectionLost,
    HungUp,
    Limits,
    MalformedAnswer,
    RequestRefused,
    Uplink,
    UplinkError,
)
from cortex_uplink.addresses import target_of
from cortex_uplink.request_head import prepare, whole_head
from tests.fuzz.answers import WORDS, cut, nearly_an_answer
from tests.fuzz.opinion import agrees, of_answer, of_request
from tests.libs.cortex_uplink.answers import Read, parse

#: Answers to be read by the parser alone, for each one that comes through a socket.
ALONE = 50
_HANG_SECS = 20.0
#: A busy machine may take its time; what hangs is found all the same.
_LIMITS = Limits(connect=5, first_byte=5, idle=5)
_REQUEST_END = b"\r\n\r\n{}"
_NAMES = ["x", "X-Y", "content-length", "transfer-encoding", "connection", "host", "expect", "te"]
_VALUES = ["y", "0", "chunked", "close, x", "keep-alive", "100-continue", ""]


class Violation(Exception):
    """What must always hold did not."""


def fuzz(seed: int, *, secs: float = 0.0, rounds: int = 0) -> Counter[str]:
    """Fuzz for so long, or so many rounds; return what came of it. Raises Violation."""
    return uvloop.run(_fuzz(Random(seed), secs, rounds))


async def _fuzz(random: Random, secs: float, rounds: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + secs
    server = _Server()
    async with server.serving():
        while rounds > 0 or time.monotonic() < until:
            rounds -= 1
            for _ in range(ALONE):
                outcomes[_read_alone(random, nearly_an_answer(random))] += 1
            outcomes[_write(random)] += 1
            outcomes[await _through_sockets(random, server)] += 1
    return outcomes


def _read_alone(random: Random, raw: bytes) -> str:
    to_head = not random.randrange(8)
    whole = parse([raw], to_head=to_head)
    if parse(cut(random, raw), to_head=to_head) != whole:
        raise Violation(f"the cuts make a difference (to HEAD: {to_head}): {raw!r}")
    if not agrees(whole, said := of_answer(raw, to_head=to_head)):
        raise Violation(f"{whole}, but h11 {said} (to HEAD: {to_head}): {raw!r}")
    if whole is None:
        return "answers refused"
    return "answers read" if whole.complete else "answers cut short"


def _write(random: Random) -> str:
    """Make a request of odd parts: it is refused, or one request and no other."""

    def odd(words: list[str]) -> str:
        word = random.choice(words)
        if not random.randrange(3):
            at = random.randrange(len(word) + 1)
            word = word[:at] + random.choice(WORDS).decode("latin-1") + word[at:]
        return word

    headers = [(odd(_NAMES), odd(_VALUES)) for _ in range(random.randrange(4))]
    method, url, body = odd(["GET", "POST", "PUT"]), odd(["http://node/a?b=c"]), random.randbytes(3)
    try:
        target = target_of(url)
        raw = whole_head(prepare(method, target, headers), len(body), None) + body
    except RequestRefused:
        return "requests refused"
    read = of_request(raw)
    if read is None or read[0].decode() != method or read[3] != body:
        raise Violation(f"not one request: {raw!r}")
    names = [name for name, _ in read[2]]
    if names.count(b"content-length") != 1 or names.count(b"host") != 1:
        raise Violation(f"framed twice: {raw!r}")
    return "requests made"


async def _through_sockets(random: Random, server: "_Server") -> str:
    """Ask twice, on a connection that may be kept: what comes is what the bytes say.

    Only once where a server says more than its answer: no client can tell what is still on its way
    from the answer to the next request.
    """
    raw = nearly_an_answer(random)
    meant = parse([raw])
    kept = meant is not None and meant.reusable
    server.pieces = cut(random, raw)
    uplink = Uplink(_LIMITS)
    outcome = ""
    try:
        async with asyncio.timeout(_HANG_SECS):
            for _ in range(1 + kept):
                relay = not random.randrange(2)
                outcome = await _ask(uplink, server.url, raw, meant, relay=relay)
            await uplink.aclose()
    except TimeoutError:
        raise Violation(f"it hung: {raw!r}") from None
    if uplink.open_connections:
        raise Violation(f"{uplink.open_connections} left open: {raw!r}")
    return outcome


async def _ask(uplink: Uplink, url: str, raw: bytes, meant: Read | None, *, relay: bool) -> str:
    got: list[bytes] = []
    failure: UplinkError | None = None
    try:
        async with uplink.open(url, body=b"{}", headers={}) as answer:
            if relay:
                await answer.relay(got.append)
            else:
                got += [chunk async for chunk in answer.chunks()]
    except UplinkError as error:
        failure = error
    if meant is None:
        right = isinstance(failure, MalformedAnswer)
    else:
        expected = None if meant.complete else ConnectionLost if raw else HungUp
        right = (type(failure) if failure else None) is expected and (
            not relay or b"".join(got) == meant.body
        )
    if not right:
        raise Violation(f"{meant}, but {failure!r} after {got} (relay: {relay}): {raw!r}")
    return "asked: answered" if failure is None else f"asked: {type(failure).__name__}"


class _Server:
    """Answers every request with `pieces`, each sent by itself, and then hangs up."""

    url = ""
    pieces: Sequence[bytes] = ()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve."""
        server = await asyncio.get_running_loop().create_server(
            lambda: _Answering(self), "127.0.0.1", 0
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield
        finally:
            server.close()


class _Answering(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        already = self._heard.endswith(_REQUEST_END)
        self._heard += data
        # A second request comes too late: the connection is about to end.
        if not already and self._heard.endswith(_REQUEST_END):
            self._next(list(self._server.pieces))

    def _next(self, pieces: list[bytes]) -> None:
        if self._transport.is_closing():
            return
        if not pieces:
            self._transport.close()
            return
        self._transport.write(pieces.pop(0))
        asyncio.get_running_loop().call_soon(self._next, pieces)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secs", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
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
