"""The items of a request's input, as the messages of a chat.

A chat has one assistant message a turn, where Responses has an item for each thought, text and
call: items of one turn are gathered. Tool results must follow their calls directly, so the images
that they hold come after the last of them, in a message of the user.
"""

from collections.abc import Mapping
from typing import Any

from orjson import dumps

from cortex_dialects.bad_body import BadBody
from cortex_dialects.responses.content import Content, read_content, text_only
from cortex_dialects.responses.fields import name_of, text_of
from cortex_dialects.responses.tools import ToolTable


def read_messages(body: Mapping[str, Any], tools: ToolTable) -> list[dict[str, Any]]:
    """Return the chat's messages. Raises BadBody."""
    chat = _Chat(tools)
    if instructions := text_of(body, "instructions"):
        chat.system(instructions)
    given = body.get("input")
    if isinstance(given, str):
        chat.user(read_content(given, "input"))
    elif isinstance(given, list):
        for position, item in enumerate(given):
            _read_item(chat, item, f"input[{position}]")
    elif given is None:
        raise BadBody("the field 'input' is missing", code="missing_input_field", param="input")
    else:
        raise BadBody("'input' must be a string or an array of items", param="input")
    if messages := chat.finish():
        return messages
    raise BadBody("'input' holds nothing that a model could answer", param="input")


def _read_item(chat: "_Chat", item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise BadBody(f"'{where}' must be an object", param=where)
    kind = item.get("type")
    at = f"{where}."
    match kind:
        case "message":
            _read_message(chat, item, where)
        case None if item.get("role") is not None:
            _read_message(chat, item, where)
        case "function_call" | "custom_tool_call" | "local_shell_call":
            _read_call(chat, item, where)
        case "function_call_output" | "custom_tool_call_output" | "local_shell_call_output":
            chat.result(_call_id(item, at), _output(item.get("output"), f"{at}output"))
        case "reasoning":
            for field in ("content", "summary"):
                if text := text_only(item.get(field), at + field, "\n\n"):
                    chat.thought(text)
                    break
        case "compaction" | "compaction_trigger" | "item_reference" | None:
            raise _unkept(kind, where)


def _unkept(kind: str | None, where: str) -> BadBody:
    """Return why an item that stands for others is refused."""
    if kind in ("compaction", "compaction_trigger"):
        return BadBody(
            f"'{where}' shortens the conversation on the server, which is not done here;"
            " send the items themselves",
            code="compaction_unsupported",
            param=where,
        )
    return BadBody(
        f"'{where}' refers to an item kept on the server, and none are kept here;"
        " send the item itself (SDKs do when 'store' is false)",
        code="item_reference_unsupported",
        param=where,
    )


def _read_message(chat: "_Chat", item: dict[str, Any], where: str) -> None:
    content = f"{where}.content"
    match item.get("role"):
        case "system" | "developer":
            chat.system(text_only(item.get("content"), content, "\n\n"))
        case "user":
            chat.user(read_content(item.get("content"), content))
        case "assistant":
            chat.assistant(text_only(item.get("content"), content, ""))
        case _:
            raise BadBody(
                f"'{where}.role' must be 'system', 'developer', 'user' or 'assistant'",
                param=f"{where}.role",
            )


def _read_call(chat: "_Chat", item: dict[str, Any], where: str) -> None:
    at = f"{where}."
    call_id = _call_id(item, at)
    if item["type"] == "local_shell_call":
        chat.call(call_id, "local_shell", _json(item.get("action"), f"{at}action"))
        return
    namespace, name = text_of(item, "namespace", at), name_of(item, "name", at)
    if item["type"] == "custom_tool_call":
        arguments = _json({"input": text_of(item, "input", at) or ""}, where)
    else:
        arguments = _arguments(item, at)
    chat.call(call_id, chat.tools.wire_name(namespace, name), arguments)


class _Chat:
    """The messages so far."""

    def __init__(self, tools: ToolTable) -> None:
        self.tools = tools
        self._messages: list[dict[str, Any]] = []
        self._turn: dict[str, Any] | None = None
        self._thoughts: list[str] = []
        self._media: list[dict[str, Any]] = []

    def system(self, text: str) -> None:
        self._end_turn()
        if not text:
            return
        # Many templates know one system message, and only as the first.
        if len(self._messages) == 1 and self._messages[0]["role"] == "system":
            self._messages[0]["content"] += f"\n\n{text}"
        else:
            self._messages.append({"role": "system", "content": text})

    def user(self, content: Content) -> None:
        self._end_turn()
        self._messages.append({"role": "user", "content": _shortest(content)})

    def assistant(self, text: str) -> None:
        turn = self._turn
        # Text after a call belongs to its turn; the call's result would not follow it otherwise.
        if turn is None or "tool_calls" not in turn:
            turn = self._begin_turn(text)
        elif text:
            turn["content"] = "\n\n".join(filter(None, [turn["content"], text]))
        self._think(turn)

    def call(self, call_id: str, name: str, arguments: str) -> None:
        turn = self._turn or self._begin_turn("")
        turn["content"] = turn["content"] or None
        function = {"name": name, "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)
        self._think(turn)

    def thought(self, text: str) -> None:
        self._thoughts.append(text)

    def result(self, call_id: str, content: Content) -> None:
        self._leave_turn()
        text = "\n".join(content.texts)
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        self._media += content.media

    def finish(self) -> list[dict[str, Any]]:
        self._end_turn()
        return self._messages

    def _begin_turn(self, text: str) -> dict[str, Any]:
        self._end_results()
        self._turn = {"role": "assistant", "content": text}
        self._messages.append(self._turn)
        return self._turn

    def _think(self, turn: dict[str, Any]) -> None:
        if self._thoughts:
            before = turn.get("reasoning_content")
            turn["reasoning_content"] = "\n\n".join(filter(None, [before, *self._thoughts]))
            self._thoughts.clear()

    def _end_turn(self) -> None:
        self._end_results()
        self._leave_turn()

    def _leave_turn(self) -> None:
        if self._turn is not None:
            self._think(self._turn)
        self._turn = None
        # Thoughts that led to nothing have no message to stand in.
        self._thoughts.clear()

    def _end_results(self) -> None:
        if self._media:
            self._messages.append({"role": "user", "content": self._media})
            self._media = []


def _shortest(content: Content) -> str | list[dict[str, Any]]:
    """Return plain text as a string, which every template can read."""
    if not content.parts:
        return ""
    if len(content.parts) == 1 and content.texts:
        return content.texts[0]
    return content.parts


def _call_id(item: dict[str, Any], at: str) -> str:
    return text_of(item, "call_id", at) or name_of(item, "id", at)


def _arguments(item: dict[str, Any], at: str) -> str:
    value = item.get("arguments")
    if isinstance(value, str):
        return value or "{}"
    return "{}" if value is None else _json(value, f"{at}arguments")


def _output(value: Any, where: str) -> Content:
    if value is None or isinstance(value, str | list):
        return read_content(value, where)
    return Content([{"type": "text", "text": _json(value, where)}])


def _json(value: Any, where: str) -> str:
    try:
        return dumps(value).decode()
    except TypeError as error:
        raise BadBody(f"'{where}' cannot be written as JSON: {error}", param=where) from None
