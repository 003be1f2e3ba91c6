"""Clients that a gateway would rather not have, each in a thread, again and again until it is over.

They ask for what is not there, send what is no JSON, hang up inside their request, read a long
answer as if they were on a bad line and leave in the middle of it, or connect and say nothing.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.bench.peers import payloads
from tests.bench.peers.payloads import CHAT
from tests.chaos.wire import Wire, head, post

_PAUSE_SECS = 0.1
_WITHIN_SECS = 30.0
#: About 4.5 MB: more than sockets hold, so that the gateway feels how slow its reader is.
_LONG_CHUNKS = 20_000
_READ_BYTES, _READS, _BETWEEN_READS_SECS = 16_384, 30, 0.1
_SMALL_BUFFER = 32_768


class AwkwardClients:
    """All of them at once, for as long as the block lasts.

    `done` counts what they did, `wrong` the answers that were none of those they had to get.
    """

    def __init__(self, url: str) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._url = url
        self._over = threading.Event()
        habits: tuple[Callable[[], None], ...] = (
            self._wants_what_is_not_there,
            self._sends_no_json,
            self._leaves_inside_its_body,
            self._reads_slowly,
            self._says_nothing,
        )
        self._threads = [
            threading.Thread(target=self._again_and_again, args=(habit,)) for habit in habits
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _again_and_again(self, habit: Callable[[], None]) -> None:
        name = habit.__name__.strip("_").replace("_", " ")
        while not self._over.wait(_PAUSE_SECS):
            try:
                habit()
            except (OSError, ValueError) as error:
                self.wrong[f"{name}: {error}"] += 1
            else:
                self.done[name] += 1

    def _wants_what_is_not_there(self) -> None:
        self._is_refused(post(CHAT, {"model": "nobody/has-it", "messages": []}, "awkward"), 404)

    def _sends_no_json(self) -> None:
        self._is_refused(head(CHAT, "awkward", content_length="9") + b'{"model":', 400)

    def _is_refused(self, request: bytes, status: int) -> None:
        with Wire(self._url, _WITHIN_SECS) as wire:
            wire.send(request)
            if (heard := wire.hear()).status != status:
                raise ValueError(f"{heard.status} instead of {status}")

    def _leaves_inside_its_body(self) -> None:
        with Wire(self._url, _WITHIN_SECS) as wire:
            wire.send(head(CHAT, "awkward", content_length="1000") + b'{"model": "bench"')
            wire.reset()

    def _reads_slowly(self) -> None:
        with Wire(self._url, _WITHIN_SECS) as wire:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            body = payloads.body(stream=True, chunks=_LONG_CHUNKS)
            wire.send(head(CHAT, "awkward", content_length=str(len(body))) + body)
            for _ in range(_READS):
                # The end of what a node that dies had to say, in an outage.
                if self._over.wait(_BETWEEN_READS_SECS) or not wire.socket.recv(_READ_BYTES):
                    break
            wire.reset()

    def _says_nothing(self) -> None:
        with Wire(self._url, _WITHIN_SECS), suppress(TimeoutError):
            self._over.wait(1.0)
