"""What an Anthropic stream may look like: a small acceptor, written from the documentation."""

from collections.abc import Iterable
from typing import Any

_DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}
_STOP_REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"}


class Malformed(AssertionError):
    """An event came where it must not."""


class Acceptor:
    """Takes the events of one stream and raises Malformed at the first that is out of place."""

    def __init__(self) -> None:
        self.state = "begin"
        self.blocks = 0
        self.open: str | None = None
        self.signed = True

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event["type"]
        if self.state == "end":
            raise Malformed(f"{kind} after the end")
        if kind == "error":
            self._check(set(event["error"]) == {"type", "message"}, event)
            self.state = "end"
        elif kind == "ping":
            self._check(self.state != "begin", event)
        else:
            getattr(self, f"_{kind}")(event)

    def _message_start(self, event: dict[str, Any]) -> None:
        self._check(self.state == "begin", event)
        message = event["message"]
        self._check(message["content"] == [] and message["stop_reason"] is None, event)
        self.state = "blocks"

    def _content_block_start(self, event: dict[str, Any]) -> None:
        self._check(self.state == "blocks" and self.open is None, event)
        self._check(event["index"] == self.blocks, event)
        self.open = event["content_block"]["type"]
        self.signed = self.open != "thinking"

    def _content_block_delta(self, event: dict[str, Any]) -> None:
        self._check(self.open is not None and event["index"] == self.blocks, event)
        kind = event["delta"]["type"]
        self._check(kind in _DELTAS[self.open or ""], event)
        self.signed = self.signed or kind == "signature_delta"

    def _content_block_stop(self, event: dict[str, Any]) -> None:
        self._check(self.open is not None and event["index"] == self.blocks, event)
        self._check(self.signed, event)
        self.open = None
        self.blocks += 1

    def _message_delta(self, event: dict[str, Any]) -> None:
        self._check(self.state == "blocks" and self.open is None, event)
        self._check(event["delta"]["stop_reason"] in _STOP_REASONS, event)
        self._check(all(type(count) is int for count in event["usage"].values()), event)
        self.state = "told"

    def _message_stop(self, event: dict[str, Any]) -> None:
        self._check(self.state == "told", event)
        self.state = "end"

    def _check(self, fine: bool, event: dict[str, Any]) -> None:
        if not fine:
            raise Malformed(f"{event} in state {self.state}, block {self.blocks} ({self.open})")


def accept(events: Iterable[dict[str, Any]]) -> Acceptor:
    """Return the acceptor after all events. Raises Malformed."""
    acceptor = Acceptor()
    for event in events:
        acceptor.take(event)
    return acceptor


def folded(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that a client puts together; arguments stay the text they came as."""
    message: dict[str, Any] = {}
    for event in events:
        match event:
            case {"type": "message_start", "message": start}:
                message = {**start, "content": []}
            case {"type": "content_block_start", "content_block": block}:
                message["content"].append({**block, "input": ""} if "input" in block else {**block})
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                _add(message["content"][index], delta)
            case {"type": "message_delta", "delta": delta, "usage": usage}:
                message |= {**delta, "usage": usage}
    return message


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta:
        case {"type": "text_delta", "text": text}:
            block["text"] += text
        case {"type": "thinking_delta", "thinking": text}:
            block["thinking"] += text
        case {"type": "signature_delta", "signature": text}:
            block["signature"] = text
        case {"type": "input_json_delta", "partial_json": text}:
            block["input"] += text
