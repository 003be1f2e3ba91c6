"""Calls with literal arguments, as Python writes them, read without Python.

Nothing is ever evaluated. The standard library's parser is no help: it makes hundreds of megabytes
of nodes from a megabyte of text, and every escape that it does not know raises a warning, which
does whatever the process was set to do with warnings.
"""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

from cortex_dialects.splitting.tool_dialect import ToolCall

#: Brackets in brackets; more is no call of a model.
MAX_DEPTH = 100
#: No integer of 64 bits has more digits.
_MOST_DIGITS = 20
_LAST_CODE_POINT = 0x10FFFF

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"[^"\\\r\n]*(?:\\.[^"\\\r\n]*)*"|'[^'\\\r\n]*(?:\\.[^'\\\r\n]*)*')
        |(?P<float>[+-]?[0-9]+(?:\.[0-9]*(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)(?![\w.]))
        |(?P<integer>[+-]?(?:0|[1-9][0-9]*)(?![\w.]))
        |(?P<word>[^\W\d][\w.\-]*)
        |(?P<mark>[\[\](){},:=])
    )""",
    re.DOTALL | re.VERBOSE,
)
# JSON's words too: models mix them up.
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_SIGNS = {
    "\n": "", "\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n",
    "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip

_Item = TypeVar("_Item")


class _Malformed(Exception):
    """The text is no list of calls with literal arguments."""


def parse_calls(text: str) -> list[ToolCall] | None:
    """Return the calls of `[name(key=literal, …), …]`, None where the text is anything else."""
    try:
        return _Reader(text).calls()
    except _Malformed:
        return None


class _Reader:
    """Reads tokens from left to right; `kind` and `token` are the one that comes next."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._at = 0
        self._depth = 0
        self._next()

    def calls(self) -> list[ToolCall]:
        """Read the whole text."""
        self._expect("[")
        calls = self._listed("]", self._call)
        if self._kind != "end":
            raise _Malformed
        return calls

    def _call(self) -> ToolCall:
        name = self._take("word")
        self._expect("(")
        arguments = _unambiguous(self._listed(")", self._argument))
        return ToolCall(name, arguments)

    def _argument(self) -> tuple[str, Any]:
        key = self._take("word")
        self._expect("=")
        return key, self._value()

    def _pair(self) -> tuple[str, Any]:
        key = _unescaped(self._take("string"))
        self._expect(":")
        return key, self._value()

    def _value(self) -> Any:
        if self._kind != "mark":
            return _literal(self._kind, self._take(self._kind))
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Malformed
        mark = self._take("mark")
        value: Any
        if mark == "[":
            value = self._listed("]", self._value)
        elif mark == "(":
            value = self._listed(")", self._value)
        elif mark == "{":
            value = _unambiguous(self._listed("}", self._pair))
        else:
            raise _Malformed
        self._depth -= 1
        return value

    def _listed(self, end: str, item: Callable[[], _Item]) -> list[_Item]:
        """Read items to the `end` mark and go past it; a comma may come last."""
        items: list[_Item] = []
        while self._token != end or self._kind != "mark":
            items.append(item())
            if self._token != end:
                self._expect(",")
        self._next()
        return items

    def _expect(self, mark: str) -> None:
        if self._take("mark") != mark:
            raise _Malformed

    def _take(self, kind: str) -> str:
        if self._kind != kind:
            raise _Malformed
        token = self._token
        self._next()
        return token

    def _next(self) -> None:
        if self._at == len(self._text):
            self._kind, self._token = "end", ""
            return
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            raise _Malformed
        self._at = found.end()
        self._kind, self._token = found.lastgroup, found[found.lastgroup]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as an object; a key that comes twice is malformed."""
    said = dict(pairs)
    if len(said) != len(pairs):
        raise _Malformed
    return said


def _literal(kind: str, token: str) -> Any:
    if kind == "string":
        return _unescaped(token)
    if kind == "integer" and len(token.lstrip("+-")) <= _MOST_DIGITS:
        return int(token)
    if kind == "float" and isfinite(value := float(token)):
        return value
    if kind == "word" and token in _WORDS:
        return _WORDS[token]
    raise _Malformed


def _unescaped(token: str) -> str:
    """Return what a quoted string says; an escape that Python does not know is left as it is."""
    text = token[1:-1]
    return _ESCAPE.sub(_sign, text) if "\\" in text else text


def _sign(escape: re.Match[str]) -> str:
    octal, byte, short, long, other = escape.groups()
    if other is not None:
        return _SIGNS.get(other, escape[0])
    code = int(octal, 8) if octal else int(byte or short or long, 16)
    if code > _LAST_CODE_POINT:
        raise _Malformed
    return chr(code)
