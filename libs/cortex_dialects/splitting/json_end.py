"""Where a JSON value ends, in text that comes in pieces."""

import re
from enum import Enum

#: orjson writes no more levels than 254, and two are around a call's arguments.
MAX_DEPTH = 250

# Outside of strings: brackets, quotes and whatever no JSON has there.
_OUTSIDE = re.compile(r"[^ \t\r\n,:0-9+\-.aeflnrstuE]")
# Inside: the end, an escape, and control characters, which JSON only has escaped.
_INSIDE = re.compile(r'["\\\x00-\x1f]')
_BLANK = re.compile(r"[ \t\r\n]*")


class Reading(Enum):
    """How far a block of calls has come."""

    GOES_ON = "goes on"
    #: The text so far ends inside a string: a marker there is the string's.
    QUOTED = "quoted"
    ENDED = "ended"
    #: Whatever follows, this is no block of calls.
    BROKEN = "broken"


class JsonEnd:
    """Follows one JSON value that begins with one of `first`, blank text before it aside.

    Only brackets and strings are followed: a value that ended may still be malformed.
    """

    def __init__(self, first: str = "{") -> None:
        self.state = Reading.GOES_ON
        self._first = first
        self._depth = 0
        self._escaped = False

    def feed(self, text: str, start: int, end: int) -> int:
        """Read on in `text[start:end]`; return how far: to the value's end, or where it broke."""
        at = start
        if self._depth == 0:
            at = _skip_blank(text, at, end)
            if at < end and text[at] not in self._first:
                self.state = Reading.BROKEN
                return at + 1
        while at < end and self.state in (Reading.GOES_ON, Reading.QUOTED):
            at = (
                self._string(text, at, end)
                if self.state is Reading.QUOTED
                else self._structure(text, at, end)
            )
        return at

    def _string(self, text: str, at: int, end: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        if (found := _INSIDE.search(text, at, end)) is None:
            return end
        if found.group() == '"':
            self.state = Reading.GOES_ON
        elif found.group() == "\\":
            self._escaped = True
        else:
            self.state = Reading.BROKEN
        return found.end()

    def _structure(self, text: str, at: int, end: int) -> int:
        if (found := _OUTSIDE.search(text, at, end)) is None:
            return end
        match found.group():
            case '"':
                self.state = Reading.QUOTED
            case "{" | "[" if self._depth < MAX_DEPTH:
                self._depth += 1
            case "}" | "]":
                self._depth -= 1
                self.state = Reading.GOES_ON if self._depth else Reading.ENDED
            case _:
                self.state = Reading.BROKEN
        return found.end()


def _skip_blank(text: str, at: int, end: int) -> int:
    found = _BLANK.match(text, at, end)
    return at if found is None else found.end()
