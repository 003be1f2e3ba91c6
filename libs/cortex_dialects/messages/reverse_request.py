"""A chat completion request as an Anthropic Messages request: the way back of `request`."""

from typing import Any, Final

from cortex_dialects.bad_body import BadBody
from cortex_dialects.messages.reading import as_list, as_object, as_text
from cortex_dialects.messages.reverse_content import (
    assistant_blocks,
    tool_result_block,
    user_blocks,
)
from cortex_dialects.messages.tools import message_tool_choice, message_tools

#: Anthropic requires a limit; chat completions do not.
DEFAULT_MAX_TOKENS: Final = 8192
_SAME: Final = ("model", "temperature", "top_p", "top_k", "stream")


def to_messages(chat: dict[str, Any]) -> dict[str, Any]:
    """Return the Messages request that asks the same. Raises BadBody."""
    limit = chat.get("max_completion_tokens", chat.get("max_tokens"))
    body: dict[str, Any] = {name: chat[name] for name in _SAME if chat.get(name) is not None}
    body["max_tokens"] = DEFAULT_MAX_TOKENS if limit is None else limit
    system, body["messages"] = _turns(as_list(chat.get("messages"), "messages"))
    if system:
        body["system"] = system
    if (stop := chat.get("stop")) is not None:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else as_list(stop, "stop")
    if tools := chat.get("tools"):
        body["tools"] = message_tools(as_list(tools, "tools"))
        choice = message_tool_choice(chat.get("tool_choice"), chat.get("parallel_tool_calls"))
        if choice is not None:
            body["tool_choice"] = choice
    if isinstance(user := chat.get("user"), str):
        body["metadata"] = {"user_id": user}
    body.update(_thinking(chat))
    if config := _output_config(chat):
        body["output_config"] = config
    return body


def _turns(messages: list[Any]) -> tuple[str, list[dict[str, Any]]]:
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        match as_object(message, where).get("role"):
            case "system" | "developer":
                system.extend(_texts(message.get("content"), f"{where}.content"))
            case "user":
                content = user_blocks(message.get("content"), f"{where}.content")
                if turns and turns[-1]["role"] == "user" and _is_results(turns[-1]["content"]):
                    blocks = content if isinstance(content, list) else _text_block(content)
                    turns[-1]["content"].extend(blocks)
                else:
                    turns.append({"role": "user", "content": content})
            case "assistant":
                turns.append({"role": "assistant", "content": assistant_blocks(message, where)})
            case "tool":
                block = tool_result_block(message, where)
                if turns and turns[-1]["role"] == "user" and _is_results(turns[-1]["content"]):
                    turns[-1]["content"].append(block)
                else:
                    turns.append({"role": "user", "content": [block]})
            case _:
                raise BadBody(f"{where}.role is not known", param=f"{where}.role")
    return "\n\n".join(text for text in system if text), turns


def _is_results(content: Any) -> bool:
    """Tell whether a turn holds nothing but results, so that what follows belongs to it."""
    return isinstance(content, list) and all(b["type"] == "tool_result" for b in content)


def _text_block(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _texts(content: Any, where: str) -> list[str]:
    if content is None or isinstance(content, str):
        return [content or ""]
    return [as_text(as_object(part, where).get("text"), where) for part in as_list(content, where)]


def _thinking(chat: dict[str, Any]) -> dict[str, Any]:
    template = chat.get("chat_template_kwargs")
    wanted = template.get("enable_thinking") if isinstance(template, dict) else None
    budget = chat.get("thinking_budget_tokens")
    if wanted is not True:
        return {}
    if isinstance(budget, int) and not isinstance(budget, bool):
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    return {"thinking": {"type": "adaptive"}}


def _output_config(chat: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if isinstance(effort := chat.get("reasoning_effort"), str):
        config["effort"] = effort
    match chat.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            pass
    return config
