"""The client of every measurement: one kept connection, TCP_NODELAY, nothing parsed while it reads.

It blocks and does as little as a client can, because it shares the cores with what it measures:
each piece is stored with the moment it arrived, and understood after the last one.
"""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One streamed answer. Milliseconds are counted from before the request was sent."""

    first_token_ms: float
    whole_ms: float
    tokens: int
    cached: int | None
    tokens_per_second: float

    @classmethod
    def read(cls, began: float, pieces: list[tuple[float, bytes]]) -> Self:
        """Return what the pieces of a stream say. Raises RuntimeError for half an answer."""
        token_times, usage, rest = list[float](), dict[str, Any](), b""
        for at, piece in pieces:
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                if not frame.startswith(b"data: {"):
                    continue
                value = json.loads(frame[6:])
                usage = value.get("usage") or usage
                if any(choice["delta"].get("content") for choice in value.get("choices", ())):
                    token_times.append(at)
        if len(token_times) < 2 or not usage:
            raise RuntimeError(f"not a whole answer: {b''.join(p for _, p in pieces)[-500:]!r}")
        tokens, span = usage["completion_tokens"], token_times[-1] - token_times[0]
        return cls(
            first_token_ms=(token_times[0] - began) * 1000,
            whole_ms=(pieces[-1][0] - began) * 1000,
            tokens=tokens,
            cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            tokens_per_second=(tokens - 1) / span,
        )


class Client:
    """One connection to one server."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        self._headers = {"content-type": "application/json", **headers}

    def ask(self, body: Mapping[str, Any]) -> Asked:
        """Stream one answer. The connection is made sure of first, outside of what is timed."""
        self._open()
        raw = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
        pieces: list[tuple[float, bytes]] = []
        began = time.perf_counter()
        self._connection.request("POST", CHAT, raw.encode(), self._headers)
        answer = self._connection.getresponse()
        while piece := answer.read1(_PIECE):
            pieces.append((time.perf_counter(), piece))
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{answer.status}: {b''.join(piece for _, piece in pieces)[:500]!r}")
        return Asked.read(began, pieces)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _open(self) -> None:
        """Use the connection once; one that the server has closed meanwhile is made anew."""
        try:
            self._get_health()
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()
            self._get_health()

    def _get_health(self) -> None:
        self._connection.request("GET", "/health", headers=self._headers)
        self._connection.getresponse().read()
