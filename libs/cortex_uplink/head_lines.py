"""The lines of a head, of a request or of an answer, taken apart to the letter (RFC 9112).

Names are tokens, lines end in CR LF and in nothing else, and none is continued on the next one.
"""

import re

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REMEMBERED = 1024
#: Names that were found well-formed, in small letters.
_names: dict[str, str] = {}


class MalformedHead(Exception):
    """Not a head."""


def split_head(raw: bytes) -> list[str]:
    """Return the lines of a head, without their ends. Raises MalformedHead."""
    text = raw.decode("latin-1")
    lines = text.split("\r\n")
    ends = len(lines) - 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise MalformedHead("a line that does not end in CR LF, or a NUL")
    return lines


def split_field(line: str) -> tuple[str, str]:
    """Return the name of a header, in small letters, and its value. Raises MalformedHead."""
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or (not value.isprintable() and _CONTROL.search(value)):
        raise MalformedHead("a header without a value, or with control characters in it")
    return _names.get(name) or _small(name), value


def is_token(text: str) -> bool:
    """Tell whether `text` is what names and methods may be."""
    return _TOKEN.fullmatch(text) is not None


def _small(name: str) -> str:
    if not is_token(name):
        raise MalformedHead("a header without a name")
    small = name.lower()
    if len(name) <= 64:  # noqa: PLR2004  # longer than names are
        if len(_names) >= _REMEMBERED:
            _names.clear()
        _names[name] = small
    return small
