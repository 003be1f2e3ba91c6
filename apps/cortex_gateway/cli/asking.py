"""Ask a daemon over HTTP: one JSON question, one JSON answer, and a sentence when there is none.

Proxies of the environment are not used: what is asked here is on this machine or in this network.
"""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cortex_core.commands import KEY_FILE_VARIABLE, Exit, Failure


class Unreachable(Failure):
    """Nothing answers there, or what answers is not one of ours."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)


class Refused(Failure):
    """It answered with an error; the message is its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon at an address."""

    endpoint: str
    what: str = "cortex"

    @classmethod
    def at(cls, endpoint: str, what: str = "cortex") -> "Service":
        """Return the service at `endpoint`; a missing `http://` is supplied. Raises Failure."""
        whole = endpoint if "://" in endpoint else f"http://{endpoint}"
        parts = urlsplit(whole)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(
                f"{endpoint!r} is no address; give one such as http://host:31313", Exit.USAGE
            )
        return cls(whole.rstrip("/"), what)

    def get(self, path: str, *, within_secs: float = 10.0) -> object:
        """Return the answer to a GET. Raises Unreachable or Refused."""
        return self._ask(urllib.request.Request(self.endpoint + path), within_secs)  # noqa: S310

    def post(self, path: str, body: dict[str, Any], *, within_secs: float) -> object:
        """Return the answer to a POST of `body`. Raises Unreachable or Refused."""
        return self._ask(self._post(path, body, {}), within_secs)

    def delete(self, path: str, *, within_secs: float = 10.0) -> object:
        """Return the answer to a DELETE. Raises Unreachable or Refused."""
        request = urllib.request.Request(self.endpoint + path, method="DELETE")  # noqa: S310
        return self._ask(request, within_secs)

    @contextmanager
    def stream(
        self, path: str, body: dict[str, Any], headers: dict[str, str], *, silence_secs: float
    ) -> Iterator[Iterator[bytes]]:
        """Give the lines of the answer to a POST as they come. Raises Unreachable or Refused."""
        with self._opened(self._post(path, body, headers), silence_secs) as answer:
            yield iter(answer)

    def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> urllib.request.Request:
        # `at` allows http and https only.
        return urllib.request.Request(  # noqa: S310
            self.endpoint + path,
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", **headers},
        )

    def _ask(self, request: urllib.request.Request, within_secs: float) -> object:
        with self._opened(request, within_secs) as answer:
            try:
                return json.loads(answer.read())
            except ValueError as error:
                raise Unreachable(
                    f"what answers at {self.endpoint} is not {self.what}: its answer is not JSON"
                ) from error

    @contextmanager
    def _opened(
        self, request: urllib.request.Request, within_secs: float
    ) -> Iterator[http.client.HTTPResponse]:
        if self.what == "cortex" and (file := os.environ.get(KEY_FILE_VARIABLE)):
            request.add_unredirected_header("authorization", f"Bearer {_key_in(file)}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=within_secs) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(_message_of(error), error.code) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise Unreachable(
                f"cannot reach {self.what} at {self.endpoint}: {reason or type(error).__name__}. "
                f"Is it running? Another address: --endpoint"
            ) from error


def _key_in(file: str) -> str:
    """Return the key that a file holds. Raises Failure."""
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"{KEY_FILE_VARIABLE}: {file}: cannot be read: {error}", Exit.USAGE
        ) from error


def _message_of(error: urllib.error.HTTPError) -> str:
    """Return the envelope's message, or what little is known where there is no envelope."""
    try:
        said = json.loads(error.read())
    except (ValueError, OSError, http.client.HTTPException):
        said = None
    inner = said.get("error") if isinstance(said, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return str(message) if message else f"{error.url} answered {error.code} {error.reason}"
