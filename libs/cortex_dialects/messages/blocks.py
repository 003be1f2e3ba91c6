"""The content blocks of a message while they come.

A block knows what it begins with, what there is to tell of it, whether it can end, and what it is
once it has ended. Which of them is open is the writer's business.
"""

from typing import Any, Final, Literal, TypeAlias

from orjson import JSONDecodeError, dumps, loads

from cortex_dialects.completion_events import ToolCallDelta

#: Thinking blocks carry a signature, and clients send it back. Ours says only where it came from.
SIGNATURE: Final = "Y29ydGV4"


class Prose:
    """Text, or thoughts."""

    __slots__ = ("_pieces", "_waiting", "kind")

    def __init__(self, kind: Literal["text", "thinking"]) -> None:
        self.kind = kind
        self._pieces: list[str] = []
        self._waiting = ""

    @property
    def can_begin(self) -> bool:
        """It is known what the block is."""
        return True

    @property
    def is_whole(self) -> bool:
        """What comes next can be another block."""
        return True

    def more(self, text: str) -> None:
        """Take more of it."""
        self._pieces.append(text)
        self._waiting += text

    def begin(self) -> dict[str, Any]:
        """Return what the block begins as."""
        if self.kind == "text":
            return {"type": "text", "text": ""}
        return {"type": "thinking", "thinking": "", "signature": ""}

    def news(self) -> dict[str, Any] | None:
        """Return as a delta what has not been told yet."""
        text, self._waiting = self._waiting, ""
        return {"type": f"{self.kind}_delta", self.kind: text} if text else None

    def last_words(self) -> dict[str, Any] | None:
        """Return the delta before the end."""
        if self.kind == "text":
            return None
        return {"type": "signature_delta", "signature": SIGNATURE}

    def content(self) -> dict[str, Any]:
        """Return the whole block."""
        whole = {"type": self.kind, self.kind: "".join(self._pieces)}
        return whole if self.kind == "text" else {**whole, "signature": SIGNATURE}


class Call:
    """A call of a tool. Until its arguments begin as an object does, none of them are told.

    `taken` are the ids that the conversation has, to which this one's is added; `spare_id` is told
    where the engine gives none, or one of those.
    """

    __slots__ = ("_arguments", "_id", "_is_object", "_name", "_taken", "_told", "_told_id")

    def __init__(self, spare_id: str, taken: set[str]) -> None:
        self._told_id = spare_id
        self._taken = taken
        self._id: str | None = None
        self._name: str | None = None
        self._arguments: list[str] = []
        self._is_object: bool | None = None
        self._told = 0

    @property
    def can_begin(self) -> bool:
        """It is known which tool is called."""
        return self._name is not None

    @property
    def is_whole(self) -> bool:
        """The arguments are a complete object."""
        # Only what ends so can be one: the others need not be read.
        if not self._arguments or not self._arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(loads("".join(self._arguments)), dict)
        except JSONDecodeError:
            return False

    def is_another(self, delta: ToolCallDelta) -> bool:
        """Tell whether a delta begins a new call: some engines give each the same position."""
        return None not in (delta.id, delta.name, self._id) and delta.id != self._id

    def more(self, delta: ToolCallDelta) -> None:
        """Take more of it."""
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        if delta.arguments:
            self._arguments.append(delta.arguments)
            if self._is_object is None and (begun := delta.arguments.lstrip()):
                self._is_object = begun.startswith("{")

    def begin(self) -> dict[str, Any]:
        """Return what the block begins as; nothing can change who is called any more."""
        self._name = self._name or ""
        if self._id is not None and self._id not in self._taken:
            self._told_id = self._id
        self._taken.add(self._told_id)
        return self._block({})

    def news(self) -> dict[str, Any] | None:
        """Return as a delta what has not been told yet."""
        if not self._is_object:
            return None
        text = "".join(self._arguments[self._told :])
        self._told = len(self._arguments)
        return {"type": "input_json_delta", "partial_json": text} if text else None

    def last_words(self) -> dict[str, Any] | None:
        """Return the delta before the end: arguments that never began as an object does."""
        if self._is_object or not self._arguments:
            return None
        text = dumps(read_input("".join(self._arguments))).decode()
        return {"type": "input_json_delta", "partial_json": text}

    def content(self) -> dict[str, Any]:
        """Return the whole block."""
        return self._block(read_input("".join(self._arguments)))

    def _block(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"type": "tool_use", "id": self._told_id, "name": self._name, "input": arguments}


Block: TypeAlias = Prose | Call


def read_input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as an object; text that is none stays, under a name of its own.

    A call that was cut short by the token limit is such a text.
    """
    try:
        value = loads(arguments or "{}")
        dumps(value)  # What is nested too deeply could be read, but not sent.
    except (JSONDecodeError, TypeError):
        return {"unparsed_arguments": arguments}
    return value if isinstance(value, dict) else {"unparsed_arguments": arguments}
