"""Download one file so that a break costs nothing, and what arrives is what was promised.

Bytes go into a partial file, which the next attempt goes on with, in this process or another. It
becomes the file only when its size and its digest are right.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import httpx

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.fetching import Fetching

_CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 5
_FIRST_PAUSE_SECS: Final = 0.5
_TIMEOUT: Final = httpx.Timeout(20.0)
_SHA1_LENGTH: Final = 40
_TRANSIENT: Final = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


class Digest(Protocol):
    """A digest in the making."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""

    def hexdigest(self) -> str:
        """Return what it is so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What to fetch, and what it must turn out to be. `digest` None checks the size alone."""

    url: str
    headers: Mapping[str, str]
    name: str
    size: int
    digest: str | None
    sha256: bool


class Lost(Exception):
    """The connection broke. Another attempt may go on."""


class Denied(Exception):
    """The server does not give the file. `status` says how."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def download(
    wanted: Download, partial: Path, target: Path, report: Callable[[int], None], fetching: Fetching
) -> None:
    """Have `target` be the file, going on with `partial`. Tells `report` how many bytes are there.

    Raises PreflightFailed (`fetch_failed`, `corrupt`), Denied, or FetchCancelled.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab+") as file:
        transfer = _Transfer(wanted, file, report, fetching)
        transfer.take_in()
        with httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
            _insist(transfer, client)
        file.flush()
        os.fsync(file.fileno())
    if not transfer.is_right():
        partial.unlink()
        raise PreflightFailed(
            "corrupt",
            f"{wanted.name} did not arrive as the hub describes it, and was thrown away; try again",
            extra={"file": wanted.name},
        )
    partial.replace(target)


def _insist(transfer: "_Transfer", client: httpx.Client) -> None:
    """Try until all is there; give up when several attempts in a row brought nothing."""
    pause, left = _FIRST_PAUSE_SECS, _ATTEMPTS
    while transfer.done < transfer.wanted.size:
        before = transfer.done
        try:
            transfer.go_on(client)
        except Lost as error:
            if transfer.done > before:
                pause, left = _FIRST_PAUSE_SECS, _ATTEMPTS
            left -= 1
            if not left:
                raise _broken_off(transfer.wanted, transfer.done) from error
            transfer.fetching.cancelled.wait(pause)
            pause *= 2
        transfer.fetching.check()


class _Transfer:
    """A partial file with the digest of what is in it."""

    def __init__(
        self, wanted: Download, file: BinaryIO, report: Callable[[int], None], fetching: Fetching
    ) -> None:
        self.wanted, self.fetching, self.done = wanted, fetching, 0
        self._file, self._report = file, report
        self._digest = _digest(wanted)

    def take_in(self) -> None:
        """Look at what an earlier download left; more than there should be is not it."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self.fetching.check()
            self._digest.update(chunk)
            self.done += len(chunk)
        if self.done > self.wanted.size:
            self._start_over()
        self._report(self.done)

    def go_on(self, client: httpx.Client) -> None:
        """Fetch what is missing. Raises Lost when that was not all, Denied or FetchCancelled."""
        headers = {**self.wanted.headers, "accept-encoding": "identity"}
        if self.done:
            headers["range"] = f"bytes={self.done}-"
        try:
            with client.stream("GET", self.wanted.url, headers=headers) as answer:
                if _starts_over(answer, self.done):
                    self._start_over()
                for chunk in answer.iter_raw():
                    self.fetching.check()
                    self._file.write(chunk)
                    self._digest.update(chunk)
                    self.done += len(chunk)
                    self._report(self.done)
        except httpx.HTTPError as error:
            raise Lost from error
        if self.done < self.wanted.size:
            raise Lost

    def is_right(self) -> bool:
        """Whether it is the file that was promised."""
        if self.done != self.wanted.size:
            return False
        return self.wanted.digest is None or self._digest.hexdigest() == self.wanted.digest

    def _start_over(self) -> None:
        self._file.truncate(0)
        self._digest, self.done = _digest(self.wanted), 0


def _starts_over(answer: httpx.Response, done: int) -> bool:
    """Return whether the answer begins at the first byte. Raises Denied or Lost."""
    status = answer.status_code
    if status == httpx.codes.PARTIAL_CONTENT:
        start = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        if start != str(done):
            raise Lost
        return False
    if status == httpx.codes.OK:
        return True
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _TRANSIENT:
        raise Lost
    raise Denied(status)


def _digest(wanted: Download) -> Digest:
    if wanted.sha256 or wanted.digest is None:
        return hashlib.sha256()
    # What git calls a file: its size and its content.
    made = hashlib.sha1(usedforsecurity=False)
    made.update(f"blob {wanted.size}\0".encode())
    return made


def is_checkable(digest: str, *, sha256: bool) -> bool:
    """Whether `digest` is one that can be compared with the content."""
    return sha256 or (
        len(digest) == _SHA1_LENGTH and all(one in "0123456789abcdef" for one in digest)
    )


def _broken_off(wanted: Download, done: int) -> PreflightFailed:
    return PreflightFailed(
        "fetch_failed",
        f"the download of {wanted.name!r} broke off after {done >> 20} of {wanted.size >> 20} MiB; "
        "it goes on there when the model is asked for again",
        extra={"file": wanted.name, "done_bytes": done, "total_bytes": wanted.size},
    )
