"""The items of an answer while they grow, each with the events that tell of it.

An item's last event carries it whole, under `item`. Events get their numbers where they are sent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cortex_dialects.responses.custom_input import CustomInput

Events = list[dict[str, Any]]

IN_PROGRESS = "in_progress"


class GrowingItem(Protocol):
    """An item that has not ended."""

    def begin(self) -> Events:
        """Return the events that open the item."""
        ...

    def more(self, text: str) -> Events:
        """Return the event of a piece that comes to it."""
        ...

    def end(self, status: str) -> Events:
        """Return the events that close it as `completed` or `incomplete`."""
        ...


class MessageItem:
    """Text of the answer."""

    def __init__(self, item_id: str, index: int) -> None:
        self._id = item_id
        self._index = index
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def begin(self) -> Events:
        """Open the item and its one part."""
        return [
            _added(self._item([], IN_PROGRESS), self._index),
            self._event("response.content_part.added", part=_text_part("", [])),
        ]

    def more(self, text: str, logprobs: Sequence[dict[str, Any]] = ()) -> Events:
        """Grow the text."""
        told = [_logprob(one) for one in logprobs]
        self._pieces.append(text)
        self._logprobs += told
        return [
            {
                "type": "response.output_text.delta",
                "item_id": self._id,
                "output_index": self._index,
                "content_index": 0,
                "delta": text,
                "logprobs": told,
            }
        ]

    def end(self, status: str) -> Events:
        """Close the part and the item."""
        text = "".join(self._pieces)
        part = _text_part(text, self._logprobs)
        return [
            self._event("response.output_text.done", text=text, logprobs=self._logprobs),
            self._event("response.content_part.done", part=part),
            _done(self._item([part], status), self._index),
        ]

    def _item(self, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        place = {"item_id": self._id, "output_index": self._index, "content_index": 0}
        return {"type": kind, **place, **more}


class ReasoningItem:
    """Thoughts, shown as a summary of one part: clients display nothing else."""

    def __init__(self, item_id: str, index: int) -> None:
        self._id = item_id
        self._index = index
        self._pieces: list[str] = []

    def begin(self) -> Events:
        """Open the item and its one part."""
        return [
            _added(self._item([], IN_PROGRESS), self._index),
            self._event("response.reasoning_summary_part.added", part=_summary_part("")),
        ]

    def more(self, text: str) -> Events:
        """Grow the thoughts."""
        self._pieces.append(text)
        return [self._event("response.reasoning_summary_text.delta", delta=text)]

    def end(self, status: str) -> Events:
        """Close the part and the item."""
        text = "".join(self._pieces)
        return [
            self._event("response.reasoning_summary_text.done", text=text),
            self._event("response.reasoning_summary_part.done", part=_summary_part(text)),
            _done(self._item([_summary_part(text)], status), self._index),
        ]

    def _item(self, summary: list[dict[str, Any]], status: str) -> dict[str, Any]:
        return {"type": "reasoning", "id": self._id, "status": status, "summary": summary}

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        place = {"item_id": self._id, "output_index": self._index, "summary_index": 0}
        return {"type": kind, **place, **more}


class FunctionCallItem:
    """A call of a function. `head` names the call, the function and its namespace."""

    def __init__(self, item_id: str, index: int, head: dict[str, Any]) -> None:
        self._id = item_id
        self._index = index
        self._head = head
        self._pieces: list[str] = []

    def begin(self) -> Events:
        """Open the item."""
        return [_added(self._item("", IN_PROGRESS), self._index)]

    def more(self, text: str) -> Events:
        """Grow the arguments."""
        self._pieces.append(text)
        return [
            {
                "type": "response.function_call_arguments.delta",
                "item_id": self._id,
                "output_index": self._index,
                "delta": text,
            }
        ]

    def end(self, status: str) -> Events:
        """Close the item. A call without arguments has an empty object of them."""
        events = [] if any(self._pieces) else self.more("{}")
        arguments = "".join(self._pieces)
        return [
            *events,
            {
                "type": "response.function_call_arguments.done",
                "item_id": self._id,
                "output_index": self._index,
                "name": self._head["name"],
                "arguments": arguments,
            },
            _done(self._item(arguments, status), self._index),
        ]

    def _item(self, arguments: str, status: str) -> dict[str, Any]:
        head = {"type": "function_call", "id": self._id, "status": status, **self._head}
        return {**head, "arguments": arguments}


class CustomCallItem:
    """A call of a custom tool: the model's arguments hold its text."""

    def __init__(self, item_id: str, index: int, head: dict[str, Any]) -> None:
        self._id = item_id
        self._index = index
        self._head = head
        self._reader = CustomInput()
        self._pieces: list[str] = []

    def begin(self) -> Events:
        """Open the item."""
        return [_added(self._item("", IN_PROGRESS), self._index)]

    def more(self, text: str) -> Events:
        """Grow the input by what this piece of the arguments says of it."""
        return self._grown(self._reader.feed(text))

    def end(self, status: str) -> Events:
        """Close the item."""
        events = self._grown(self._reader.finish())
        text = "".join(self._pieces)
        return [
            *events,
            {
                "type": "response.custom_tool_call_input.done",
                "item_id": self._id,
                "output_index": self._index,
                "input": text,
            },
            _done(self._item(text, status), self._index),
        ]

    def _grown(self, text: str) -> Events:
        if not text:
            return []
        self._pieces.append(text)
        return [
            {
                "type": "response.custom_tool_call_input.delta",
                "item_id": self._id,
                "output_index": self._index,
                "delta": text,
            }
        ]

    def _item(self, text: str, status: str) -> dict[str, Any]:
        head = {"type": "custom_tool_call", "id": self._id, "status": status, **self._head}
        return {**head, "input": text}


def _text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprob(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return one token's log probability with every field that this dialect has."""
    top = told.get("top_logprobs")
    return {
        **_likely(told),
        "top_logprobs": [
            _likely(one) for one in (top if isinstance(top, list) else []) if isinstance(one, dict)
        ],
    }


def _likely(told: Mapping[str, Any]) -> dict[str, Any]:
    token = told.get("token")
    text = token if isinstance(token, str) else ""
    return {
        "token": text,
        "bytes": told.get("bytes") or list(text.encode("utf-8", "surrogatepass")),
        "logprob": told.get("logprob"),
    }


def _summary_part(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def _added(item: dict[str, Any], index: int) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(item: dict[str, Any], index: int) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}
