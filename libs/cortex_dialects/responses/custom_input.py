"""The free text of a custom tool's input, read out of the JSON arguments as they come.

A node's model calls a custom tool as a function of one string, so its text arrives escaped and cut
anywhere. A patch of a thousand lines should be seen growing, not after minutes of silence.
"""

import re

from orjson import JSONDecodeError, loads

_BEGINNING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
#: Characters and escapes that are there in full. The first half of a surrogate pair waits for the
#: second, and an escape that JSON does not know stands for itself.
_WHOLE = re.compile(
    r"""(?:
      [^"\\]+
    | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
    | \\u[dD][89abAB][0-9a-fA-F]{2}(?!\Z|\\\Z|\\u[0-9a-fA-F]{0,3}\Z)
    | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
    | \\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F])
    | \\[^u]
    )*""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u([0-9a-fA-F]{4})|([\"\\/bfnrt]))"
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
#: Half of a surrogate pair is no character, and cannot be written.
_NO_CHARACTER = "\ufffd"


class CustomInput:
    """Reads the string under `input`; what is not shaped so counts as the text itself, whole."""

    def __init__(self) -> None:
        self._rest = ""
        self._inside = False
        self._ended = False

    def feed(self, arguments: str) -> str:
        """Return the text that this piece of the arguments adds."""
        if self._ended:
            return ""
        self._rest += arguments
        if not self._inside:
            begun = _BEGINNING.match(self._rest)
            if begun is None:
                return ""
            self._inside = True
            self._rest = self._rest[begun.end() :]
        whole = _WHOLE.match(self._rest)
        end = whole.end() if whole else 0
        text, self._rest = self._rest[:end], self._rest[end:]
        self._ended = self._rest.startswith('"')
        return _unescaped(text)

    def finish(self) -> str:
        """Return what is left when the arguments have ended: all of it where none was read yet."""
        return "" if self._inside else _input_of(self._rest)


def _input_of(arguments: str) -> str:
    try:
        value = loads(arguments)
    except JSONDecodeError:
        return arguments
    found = value.get("input") if isinstance(value, dict) else value
    return found if isinstance(found, str) else arguments


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    high, low, code, short = escape.groups()
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if code is not None:
        character = chr(int(code, 16))
        return _NO_CHARACTER if "\ud800" <= character <= "\udfff" else character
    return _SHORT.get(short, short)
