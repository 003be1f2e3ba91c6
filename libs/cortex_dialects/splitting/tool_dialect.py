"""What a dialect of tool calls has to say, so that one splitter reads all of them."""

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from orjson import JSONDecodeError, loads

from cortex_dialects.splitting.json_end import Reading


class ToolCall(NamedTuple):
    """One call, as the model wrote it."""

    name: str
    arguments: dict[str, Any]


class BlockReader(Protocol):
    """Follows one block of calls from behind its opener."""

    @property
    def state(self) -> Reading:
        """How far it has come."""

    def feed(self, text: str, start: int, end: int) -> int:
        """Read on in `text[start:end]`; return how far: to the block's end, or where it broke."""


class ToolDialect(Protocol):
    """One way of models to write calls."""

    @property
    def openers(self) -> tuple[str, ...]:
        """What begins a block, wherever it stands."""

    @property
    def closers(self) -> tuple[str, ...]:
        """What ends a block; none where the block itself shows its end."""

    @property
    def separators(self) -> str:
        """Characters that may stand between two calls, besides blank ones."""

    def heads(self, names: Collection[str]) -> frozenset[str]:
        """Return how a call of these tools begins that has no opener, without blank characters.

        It counts at the beginning of the answer and right after another call.
        """

    def reader(self) -> BlockReader:
        """Return a reader for one block."""

    def parse(self, block: str) -> list[ToolCall] | None:
        """Return the calls in a block (without opener and closer), None where it is no such."""


def calls_in(text: str) -> list[ToolCall] | None:
    """Return the calls that a JSON object, or an array of objects, names with its arguments."""
    try:
        value = loads(text)
    except JSONDecodeError:
        return None
    calls = [_call(one) for one in (value if isinstance(value, list) else [value])]
    good = [call for call in calls if call is not None]
    return good if len(good) == len(calls) else None


def _call(value: object) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # Some models write the wire's form: JSON in a string.
        try:
            arguments = loads(arguments)
        except JSONDecodeError:
            return None
    return ToolCall(name, arguments) if isinstance(arguments, dict) else None
