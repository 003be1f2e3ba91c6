"""What order the events of a Responses stream may come in, as a machine that accepts or asserts.

Written from the protocol, not from the writer: it also puts the answer together from the deltas.
"""

from typing import Any

#: Per item type: the event before its pieces, its pieces, the events before its end, and the field
#: in which the last of these repeats all pieces.
_SHAPES = {
    "message": (
        "response.content_part.added",
        "response.output_text.delta",
        ("response.output_text.done", "response.content_part.done"),
        "text",
    ),
    "reasoning": (
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        ("response.reasoning_summary_text.done", "response.reasoning_summary_part.done"),
        "text",
    ),
    "function_call": (
        None,
        "response.function_call_arguments.delta",
        ("response.function_call_arguments.done",),
        "arguments",
    ),
    "custom_tool_call": (
        None,
        "response.custom_tool_call_input.delta",
        ("response.custom_tool_call_input.done",),
        "input",
    ),
}
_CALLS = ("function_call", "custom_tool_call")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class _Item:
    """One item on its way."""

    def __init__(self, added: dict[str, Any]) -> None:
        self.added = added
        first, self.piece, self.closing, self.field = _SHAPES[added["type"]]
        self.waiting = [first] if first else []
        self.pieces: list[str] = []
        self.done: dict[str, Any] | None = None
        self.closed = 0

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Take an event inside the item."""
        if self.waiting:
            assert kind == self.waiting.pop()
        elif kind == self.piece:
            assert not self.closed, "a piece after the end"
            assert event["delta"], "an empty piece"
            self.pieces.append(event["delta"])
        else:
            assert kind == self.closing[self.closed]
            self.closed += 1
            if self.closed == 1:
                assert event[self.field] == self.text
            else:
                assert event["part"]["text"] == self.text

    def end(self, item: dict[str, Any]) -> None:
        """Take the item's end."""
        assert self.closed == len(self.closing)
        assert item["status"] in ("completed", "incomplete")
        assert item == {**self.added, "status": item["status"], **self._content()}
        self.done = item

    def _content(self) -> dict[str, Any]:
        match self.added["type"]:
            case "message":
                part = {"type": "output_text", "text": self.text, "annotations": []}
                return {"content": [{**part, "logprobs": []}]}
            case "reasoning":
                return {"summary": [{"type": "summary_text", "text": self.text}]}
            case _:
                return {self.field: self.text}

    @property
    def text(self) -> str:
        """All pieces."""
        return "".join(self.pieces)


class Grammar:
    """Takes events one by one; an AssertionError says which was out of place."""

    def __init__(self) -> None:
        self.response: dict[str, Any] | None = None
        self._count = 0
        self._items: list[_Item] = []

    @property
    def ended(self) -> bool:
        """The answer has come to its end."""
        return self.response is not None and self.response["status"] != "in_progress"

    @property
    def output(self) -> list[dict[str, Any]]:
        """What the pieces come to, of the items that ended."""
        return [item.done for item in self._items if item.done is not None]

    def take(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        kind = event["type"]
        assert event["sequence_number"] == self._count
        assert not self.ended, "an event after the end"
        if self._count < 2:
            assert kind == ("response.created", "response.in_progress")[self._count]
            assert event["response"]["status"] == "in_progress"
            assert event["response"]["output"] == []
            assert self.response in (None, event["response"])
            self.response = event["response"]
        elif kind in _ENDS:
            self._end(kind, event["response"])
        elif kind == "response.output_item.added":
            self._add(event["output_index"], event["item"])
        else:
            self._inside(kind, event)
        self._count += 1

    def _add(self, index: int, item: dict[str, Any]) -> None:
        assert index == len(self._items), "a gap between indices"
        assert item["status"] == "in_progress"
        open_types = {one.added["type"] for one in self._items if one.done is None}
        assert open_types <= set(_CALLS), "text and thoughts end when anything begins"
        assert item["id"] not in {one.added["id"] for one in self._items}
        self._items.append(_Item(item))

    def _inside(self, kind: str, event: dict[str, Any]) -> None:
        item = self._items[event["output_index"]]
        assert item.done is None, "an event of an item that has ended"
        if kind == "response.output_item.done":
            item.end(event["item"])
            return
        assert event["item_id"] == item.added["id"]
        item.take(kind, event)

    def _end(self, kind: str, response: dict[str, Any]) -> None:
        assert response["status"] == kind.removeprefix("response.")
        assert response["output"] == self.output
        if kind != "response.failed":
            assert len(self.output) == len(self._items), "an item was left open"
        assert (response["error"] is not None) == (kind == "response.failed")
        assert (response["incomplete_details"] is not None) == (kind == "response.incomplete")
        self.response = response
