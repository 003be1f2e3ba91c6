"""Chat messages as content blocks of a Messages turn: the way back of `content`."""

from typing import Any

from orjson import JSONDecodeError, loads

from cortex_dialects.bad_body import BadBody
from cortex_dialects.messages.reading import as_list, as_name, as_object, as_text


def user_blocks(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return a chat message's content as blocks, text alone as it is. Raises BadBody."""
    if content is None or isinstance(content, str):
        return content or ""
    return [
        _block(as_object(part, f"{where}.{n}"), f"{where}.{n}")
        for n, part in enumerate(as_list(content, where))
    ]


def assistant_blocks(message: dict[str, Any], where: str) -> str | list[dict[str, Any]]:
    """Return an assistant's chat message as blocks, text alone as it is. Raises BadBody."""
    content = user_blocks(message.get("content"), f"{where}.content")
    calls = message.get("tool_calls")
    thought = message.get("reasoning_content")
    if not calls and not thought:
        return content
    blocks: list[dict[str, Any]] = []
    if isinstance(thought, str) and thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if isinstance(content, list):
        blocks.extend(content)
    elif content:
        blocks.append({"type": "text", "text": content})
    for number, call in enumerate(as_list(calls or [], f"{where}.tool_calls")):
        blocks.append(_tool_use(call, f"{where}.tool_calls.{number}"))
    return blocks


def tool_result_block(message: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a tool's chat message as the block of a user turn. Raises BadBody."""
    return {
        "type": "tool_result",
        "tool_use_id": as_name(message.get("tool_call_id"), f"{where}.tool_call_id"),
        "content": user_blocks(message.get("content"), f"{where}.content"),
    }


def _tool_use(call: Any, where: str) -> dict[str, Any]:
    function = as_object(as_object(call, where).get("function"), f"{where}.function")
    text = as_text(function.get("arguments"), f"{where}.function.arguments")
    try:
        arguments = loads(text or "{}")
    except JSONDecodeError as error:
        raise BadBody(
            f"{where}.function.arguments is not JSON", param=f"{where}.function.arguments"
        ) from error
    return {
        "type": "tool_use",
        "id": as_name(call.get("id"), f"{where}.id"),
        "name": as_name(function.get("name"), f"{where}.function.name"),
        "input": as_object(arguments, f"{where}.function.arguments"),
    }


def _block(part: dict[str, Any], where: str) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"type": "text", "text": as_text(part.get("text"), f"{where}.text")}
        case "image_url":
            image = as_object(part.get("image_url"), f"{where}.image_url")
            url = as_name(image.get("url"), f"{where}.image_url.url")
            return {"type": "image", "source": _source(url, where)}
        case kind:
            raise BadBody(f"content of type {kind!r} is not supported", param=where)


def _source(url: str, where: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, mark, data = url.removeprefix("data:").partition(";base64,")
    if not mark or not kind or not data:
        raise BadBody("an image's data URL must be base64", param=where)
    return {"type": "base64", "media_type": kind, "data": data}
