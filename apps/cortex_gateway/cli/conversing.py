"""An answer as its stream tells it, line by line. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from cortex_core.commands import Failure


class Said:
    """What was said so far."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = ""
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.done = False
        self._thinking = False

    def take(self, line: bytes) -> Iterator[tuple[str, bool]]:
        """Yield the text of one line of the stream, and whether it is a thought. Raises Failure."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            return
        if not isinstance(chunk, dict):
            return
        if isinstance(error := chunk.get("error"), dict):
            raise Failure(f"the answer broke off: {error.get('message') or error}")
        if isinstance(usage := chunk.get("usage"), dict):
            self.usage = usage
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            yield from self._said(choice.get("delta") or {})

    def check(self) -> None:
        """Raise Failure unless the answer came to its end."""
        if not self.done and self.finish_reason is None:
            raise Failure("the answer broke off: the connection was lost")

    def as_json(self) -> dict[str, Any]:
        """Return the whole answer."""
        told = {"content": self.content, "finish_reason": self.finish_reason}
        known = {"reasoning": self.reasoning or None, "usage": self.usage}
        return told | {name: value for name, value in known.items() if value is not None}

    def _said(self, delta: dict[str, Any]) -> Iterator[tuple[str, bool]]:
        if thought := _shown(delta.get("reasoning_content")):
            self.reasoning += thought
            self._thinking = True
            yield thought, True
        if text := _shown(delta.get("content")):
            if self._thinking and not self.reasoning.endswith("\n"):
                yield "\n", True
            self._thinking = False
            self.content += text
            yield text, False


def _shown(text: object) -> str:
    """Return text as a terminal may show it: without control characters but for line ends."""
    if not isinstance(text, str):
        return ""
    return "".join(one for one in text if one.isprintable() or one in "\n\t")
