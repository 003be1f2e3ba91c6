"""The body of a client's request, put together from the bytes that come."""

from typing import Protocol

from cortex_core.errors import InvalidRequest, RequestTooLarge
from cortex_uplink.chunk_decoder import ChunkDecoder, MalformedChunks

_MIB = 1024 * 1024


class Body(Protocol):
    """A body on its way: `feed` it until it returns what lies behind its end."""

    #: How many bytes of it have come.
    received: int

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return those that are the next request's, None while more are to come.

        Raises InvalidRequest, RequestTooLarge.
        """
        ...

    def take(self) -> bytes:
        """Return the whole body."""
        ...


class LengthBody:
    """A body whose length was announced. Raises RequestTooLarge when that is too much."""

    def __init__(self, length: int, max_bytes: int) -> None:
        if length > max_bytes:
            raise _too_large(max_bytes)
        self.received = 0
        self._length = length
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes | None:
        """See Body."""
        left = self._length - self.received
        if len(data) < left:
            self._parts.append(data)
            self.received += len(data)
            return None
        self._parts.append(data if len(data) == left else data[:left])
        self.received = self._length
        return data[left:]

    def take(self) -> bytes:
        """See Body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class ChunkedBody:
    """A body in chunks. Trailers are read over."""

    def __init__(self, max_bytes: int) -> None:
        self.received = 0
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._decoder = ChunkDecoder()

    def feed(self, data: bytes) -> bytes | None:
        """See Body."""
        known = len(self._parts)
        try:
            rest = self._decoder.feed(data, self._parts)
        except MalformedChunks as error:
            raise InvalidRequest(f"the request's body is malformed: {error}") from None
        self.received += sum(map(len, self._parts[known:]))
        if self.received > self._max_bytes:
            raise _too_large(self._max_bytes)
        return rest

    def take(self) -> bytes:
        """See Body."""
        return b"".join(self._parts)


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than request_max_mb = {max_bytes // _MIB} MiB")
