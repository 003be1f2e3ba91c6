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


# Parts are put together as they come: a body that is sent byte by byte would take many times its
# size as a list of them.


class LengthBody:
    """A body whose length was announced. Raises RequestTooLarge when that is too much."""

    def __init__(self, length: int, max_bytes: int) -> None:
        if length > max_bytes:
            raise _too_large(max_bytes)
        self.received = 0
        self._length = length
        self._body: bytes | bytearray = b""

    def feed(self, data: bytes) -> bytes | None:
        """See Body."""
        left = self._length - self.received
        part = data if len(data) <= left else data[:left]
        self.received += len(part)
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body + part)
        return None if len(data) < left else data[left:]

    def take(self) -> bytes:
        """See Body."""
        return bytes(self._body)


class ChunkedBody:
    """A body in chunks. Trailers are read over."""

    def __init__(self, max_bytes: int) -> None:
        self.received = 0
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._decoder = ChunkDecoder()

    def feed(self, data: bytes) -> bytes | None:
        """See Body."""
        parts: list[bytes] = []
        try:
            rest = self._decoder.feed(data, parts)
        except MalformedChunks as error:
            raise InvalidRequest(f"the request's body is malformed: {error}") from None
        self._body += b"".join(parts)
        self.received = len(self._body)
        if self.received > self._max_bytes:
            raise _too_large(self._max_bytes)
        return rest

    def take(self) -> bytes:
        """See Body."""
        return bytes(self._body)


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than request_max_mb = {max_bytes // _MIB} MiB")
