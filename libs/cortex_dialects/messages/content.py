"""Content blocks of a Messages turn as chat messages."""

from typing import Any

from cortex_dialects.bad_body import BadBody
from cortex_dialects.encoding import encode
from cortex_dialects.messages.reading import as_list, as_name, as_object, as_text

#: Shown where a failed tool's output does not say by itself that it failed: a chat message of a
#: tool has no other place for it.
_ERROR_PREFIX = "Error: "
_TELLS_ERROR = ("error", "<tool_use_error>")


def user_turns(content: Any, where: str) -> list[dict[str, Any]]:
    """Return a user turn's messages: results of tools first, then what the user says.

    Images that a tool returned follow as the user's. Raises BadBody.
    """
    if content is None or isinstance(content, str):
        return [{"role": "user", "content": content or ""}]
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(as_list(content, where)):
        place = f"{where}.{number}"
        if as_object(block, place).get("type") == "tool_result":
            message, images = _tool_result(block, place)
            results.append(message)
            parts.extend(images)
        else:
            parts.append(_part(block, place))
    if parts or not results:
        results.append({"role": "user", "content": _plain(parts)})
    return results


def assistant_turn(content: Any, where: str) -> dict[str, Any]:
    """Return an assistant turn as one message. Raises BadBody."""
    if content is None or isinstance(content, str):
        return {"role": "assistant", "content": content or ""}
    parts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(as_list(content, where)):
        place = f"{where}.{number}"
        match as_object(block, place).get("type"):
            case "text":
                text = as_text(block.get("text"), f"{place}.text")
                parts.append({"type": "text", "text": text})
            case "compaction" if block.get("content") is not None:
                # What stands for the turns before it; other than its seal, it can be read.
                text = as_text(block["content"], f"{place}.content")
                parts.append({"type": "text", "text": text})
            case "thinking":
                thoughts.append(as_text(block.get("thinking"), f"{place}.thinking"))
            case "tool_use":
                calls.append(_tool_call(block, place))
            case _:
                continue  # What another server's own tools did, and thoughts it sealed.
    message: dict[str, Any] = {"role": "assistant", "content": _plain(parts)}
    if calls and not parts:
        message["content"] = None
    if thoughts := [thought for thought in thoughts if thought]:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: dict[str, Any], where: str) -> dict[str, Any]:
    given = block.get("input")
    arguments = {} if given is None else as_object(given, f"{where}.input")
    return {
        "id": as_name(block.get("id"), f"{where}.id"),
        "type": "function",
        "function": {
            "name": as_name(block.get("name"), f"{where}.name"),
            "arguments": encode(arguments).decode(),
        },
    }


def _tool_result(block: dict[str, Any], where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content = block.get("content")
    texts: list[str] = []
    images: list[dict[str, Any]] = []
    if isinstance(content, str):
        texts.append(content)
    elif content is not None:
        for number, part in enumerate(as_list(content, f"{where}.content")):
            place = f"{where}.content.{number}"
            if as_object(part, place).get("type") == "tool_reference":
                texts.append(as_text(part.get("tool_name"), f"{place}.tool_name"))
                continue
            made = _part(part, place)
            if made["type"] == "text":
                texts.append(made["text"])
            else:
                images.append(made)
    text = "\n".join(texts)
    if block.get("is_error") is True and not text.lower().startswith(_TELLS_ERROR):
        text = _ERROR_PREFIX + text
    call = as_name(block.get("tool_use_id"), f"{where}.tool_use_id")
    return {"role": "tool", "tool_call_id": call, "content": text}, images


def _part(block: dict[str, Any], where: str) -> dict[str, Any]:
    match block.get("type"):
        case "text":
            return {"type": "text", "text": as_text(block.get("text"), f"{where}.text")}
        case "image":
            return {"type": "image_url", "image_url": {"url": _image_url(block, where)}}
        case "search_result":
            return {"type": "text", "text": _search_result(block, where)}
        case "document":
            raise BadBody(
                "documents cannot be read here; send their text as a text block",
                code="unsupported_content",
                param=where,
            )
        case kind:
            raise BadBody(
                f"content of type {kind!r} is not supported; send text, image or tool_result",
                code="unsupported_content",
                param=where,
            )


def _image_url(block: dict[str, Any], where: str) -> str:
    source = as_object(block.get("source"), f"{where}.source")
    match source.get("type"):
        case "base64":
            kind = as_name(source.get("media_type"), f"{where}.source.media_type")
            data = as_name(source.get("data"), f"{where}.source.data")
            return f"data:{kind};base64,{data}"
        case "url":
            return as_name(source.get("url"), f"{where}.source.url")
        case _:
            raise BadBody(
                "an image's source must be 'base64' or 'url'; files are not kept here",
                code="unsupported_content",
                param=f"{where}.source.type",
            )


def _search_result(block: dict[str, Any], where: str) -> str:
    title = [block["title"]] if isinstance(block.get("title"), str) else []
    parts = as_list(block.get("content"), f"{where}.content")
    return "\n".join([*title, *(_part(as_object(p, where), where).get("text", "") for p in parts)])


def _plain(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return text alone as a string, which every template takes."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
