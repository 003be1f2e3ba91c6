"""The chunked form of a body (RFC 9112, section 7.1) taken apart, for requests and answers.

Nothing is taken that two readers could understand in two ways: sizes are hexadecimal digits and no
more, lines end in CR LF, and so does every chunk. How the bytes are cut never changes what they
mean.
"""

import re

#: A chunk's size and extensions together; so much of trailers.
MAX_LINE_BYTES = 4 * 1024
MAX_TRAILER_BYTES = 16 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PART_OF_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?")
_TRAILERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\r\n\0]*+\r\n)*+")
#: Sizes as they are mostly written, so that few have to be read.
_SIZES = {f"{size:x}".encode(): size for size in range(1, 2048)}


_BLANK_LINE = b"\n\n\r\n"


def whole_frames(data: bytes) -> int:
    """Return of how many chunks `data` is, if they are whole and each ends in a blank line; else 0.

    Only chunks whose sizes are as they are mostly written count: they may be passed on as they are.
    """
    at, end, found = 0, len(data), 0
    while at < end:
        line_end = data.find(b"\r\n", at, at + 8)
        size = _SIZES.get(data[at:line_end])
        if size is None or line_end < 0:
            return 0
        at = line_end + size + 4
        if data[at - 4 : at] != _BLANK_LINE:
            return 0
        found += 1
    return found


class MalformedChunks(Exception):
    """Not the chunked form."""


class ChunkDecoder:
    """A chunked body on its way: `feed` it until it returns what lies behind its end."""

    __slots__ = ("_in_trailers", "_left", "_open", "trailers")

    def __init__(self) -> None:
        #: The lines after the last chunk, each with its end.
        self.trailers = b""
        self._open = b""
        #: Bytes of the current chunk still to come, its line's end included; 0 between two.
        self._left = 0
        self._in_trailers = False

    @property
    def between(self) -> bool:
        """The last chunk is complete, and the next one has not begun."""
        return not (self._left or self._open or self._in_trailers)

    def feed(self, data: bytes, parts: list[bytes]) -> bytes | None:
        """Add what `data` has of the body to `parts`; return what is behind its end, else None.

        Raises MalformedChunks.
        """
        if self._open:
            data, self._open = self._open + data, b""
        at, end = 0, len(data)
        if self._left:
            at = self._go_on(data, parts)
        elif self._in_trailers:
            return self._end(data)
        # On the path of every chunk, so without calls.
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._keep_line(data, at)
                return None
            line = data[at:line_end]
            size = _SIZES.get(line) or _size(line)
            if not size:
                self._in_trailers = True
                return self._end(data[line_end + 2 :])
            begin = line_end + 2
            at = begin + size + 2
            if at <= end:
                parts.append(data[begin : at - 2])
                if data[at - 2 : at] != b"\r\n":
                    raise MalformedChunks("a chunk that does not end where it said")
            else:
                self._left = size + 2
                self._go_on(data[begin:], parts)
                return None
        return None

    def _go_on(self, data: bytes, parts: list[bytes]) -> int:
        """Take more of the current chunk; return where the next begins."""
        left, have = self._left, len(data)
        content = min(left - 2, have)
        if content > 0:
            parts.append(data[:content])
        else:
            content = 0
        ending = data[content:left]
        if not b"\r\n".startswith(ending):
            raise MalformedChunks("a chunk that does not end where it said")
        if have >= left:
            self._left = 0
            return left
        # Half of the line's end is kept, so that it is looked at whole.
        self._left, self._open = left - content, ending
        return have

    def _keep_line(self, data: bytes, at: int) -> None:
        line = data[at:]
        if len(line) > MAX_LINE_BYTES + 1:  # the CR of its end may be there
            raise MalformedChunks(f"a size's line of more than {MAX_LINE_BYTES} bytes")
        if not _PART_OF_SIZE.fullmatch(line):
            raise MalformedChunks("a chunk's size that is none")
        self._open = line

    def _end(self, data: bytes) -> bytes | None:
        if data.startswith(b"\r\n"):
            return data[2:]
        end = data.find(b"\r\n\r\n")
        if (len(data) if end < 0 else end + 4) > MAX_TRAILER_BYTES:
            raise MalformedChunks(f"trailers of more than {MAX_TRAILER_BYTES} bytes")
        if end < 0:
            if data.count(b"\n") != data.count(b"\r\n"):
                raise MalformedChunks("lines must end in CR LF")
            self._open = data
            return None
        self.trailers = data[: end + 2]
        if not _TRAILERS.fullmatch(self.trailers):
            raise MalformedChunks("malformed trailers")
        return data[end + 4 :]


def _size(line: bytes) -> int:
    found = _SIZE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
    if found is None:
        raise MalformedChunks("a chunk's size that is none")
    return int(found[1], 16)
