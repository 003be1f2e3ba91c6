"""An Anthropic Messages request as a chat completion request.

The same request always becomes the same bytes, and a conversation that goes on becomes the bytes it
was with more behind them, so that engines find their cache again. What cannot be expressed and
would change the answer is refused; fields that are new or only advice are left out.
"""

from collections.abc import Iterator
from typing import Any, Final

from cortex_dialects.bad_body import BadBody
from cortex_dialects.failure import THREAD_NOT_FOUND
from cortex_dialects.messages.content import assistant_turn, user_turns
from cortex_dialects.messages.reading import as_list, as_name, as_object, as_text
from cortex_dialects.messages.tools import chat_tool_choice, chat_tools

#: The first system block of some agents is a header meant for Anthropic's accounts, with a hash
#: that may change from request to request: at the head of the prompt it would spoil every cache.
BILLING_PREFIX: Final = "x-anthropic-billing-header:"

#: What is read here, or is advice that only Anthropic's own servers can follow.
_OWN_FIELDS: Final = frozenset(
    {
        "betas",
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "mcp_servers",
        "messages",
        "metadata",
        "output_config",
        "output_format",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "thinking",
        "thread",
        "tool_choice",
        "tools",
        "user_profile_id",
        "workspace_id",
    }
)


def to_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat completion request that asks the same. Raises BadBody.

    Fields that are neither Anthropic's own nor named here, such as an engine's sampling options,
    pass as they are.
    """
    chat: dict[str, Any] = {k: v for k, v in body.items() if k not in _OWN_FIELDS}
    _check_max_tokens(body)
    _refuse_what_a_server_would_do(body)
    chat["messages"] = list(_messages(body))
    if body.get("stream"):
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}
    if (stops := body.get("stop_sequences")) is not None:
        chat["stop"] = [
            as_text(stop, f"stop_sequences.{n}")
            for n, stop in enumerate(as_list(stops, "stop_sequences"))
        ]
    tools = chat_tools(body.get("tools"))
    if tools:
        chat["tools"] = tools
        chat.update(chat_tool_choice(body.get("tool_choice")))
    chat.update(_thinking(body.get("thinking"), chat.get("chat_template_kwargs")))
    chat.update(_output(body))
    match body.get("metadata"):
        case {"user_id": str(user)}:
            chat["user"] = user
        case _:
            pass
    return chat


def shows_thinking(body: dict[str, Any]) -> bool:
    """Tell whether the client wants to see the model's thoughts."""
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and _thinks(thinking) and thinking.get("display") != "omitted"


def _messages(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    turns = as_list(body.get("messages"), "messages")
    if not turns:
        raise BadBody("messages: at least one message is required", param="messages")
    system = list(_system_texts(body.get("system"), "system"))
    rest: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        where = f"messages.{number}"
        content = as_object(turn, where).get("content")
        match turn.get("role"):
            case "user":
                rest.extend(user_turns(content, f"{where}.content"))
            case "assistant":
                rest.append(assistant_turn(content, f"{where}.content"))
            case "system" | "developer":
                # Templates take one system message, in front.
                system.extend(_system_texts(content, f"{where}.content"))
            case _:
                raise BadBody(
                    f"{where}.role must be 'user', 'assistant' or 'system'", param=f"{where}.role"
                )
    if system:
        yield {"role": "system", "content": "\n\n".join(system)}
    yield from rest


def _system_texts(value: Any, where: str) -> Iterator[str]:
    if value is None:
        return
    blocks = [{"type": "text", "text": value}] if isinstance(value, str) else as_list(value, where)
    for number, block in enumerate(blocks):
        if as_object(block, f"{where}.{number}").get("type", "text") != "text":
            continue  # What is not text is a directive to Anthropic's servers.
        text = as_text(block.get("text"), f"{where}.{number}.text")
        if text and not text.startswith(BILLING_PREFIX):
            yield text


def _refuse_what_a_server_would_do(body: dict[str, Any]) -> None:
    """Refuse what would change the answer and that only Anthropic's servers do."""
    thread = body.get("thread")
    # A thread begins with the whole conversation; what goes on with it holds only what is new.
    if isinstance(thread, dict) and thread.get("type") != "create":
        raise BadBody(
            "conversations are not kept here: send the whole of it in 'messages'",
            code=THREAD_NOT_FOUND,
            param="thread",
        )
    if body.get("mcp_servers"):
        raise BadBody(
            "MCP servers are called by the client here, not by the server",
            code="unsupported_parameter",
            param="mcp_servers",
        )
    if body.get("compaction"):
        raise BadBody(
            "conversations are compacted by the client here: ask for a summary in 'messages'",
            code="unsupported_parameter",
            param="compaction",
        )


def _check_max_tokens(body: dict[str, Any]) -> None:
    limit = body.get("max_tokens")
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadBody("max_tokens must be an integer of at least 1", param="max_tokens")


def _thinking(value: Any, template: Any) -> dict[str, Any]:
    """Return what switches thinking on or off. Kinds that are not known yet count as on."""
    thinking = {} if value is None else as_object(value, "thinking")
    given = template if isinstance(template, dict) else {}
    fields: dict[str, Any] = {
        "chat_template_kwargs": {"enable_thinking": _thinks(thinking), **given}
    }
    budget = thinking.get("budget_tokens")
    if _thinks(thinking) and isinstance(budget, int) and not isinstance(budget, bool):
        fields["thinking_budget_tokens"] = budget
    return fields


def _thinks(thinking: dict[str, Any]) -> bool:
    return bool(thinking.get("type", "disabled") != "disabled")


def _output(body: dict[str, Any]) -> dict[str, Any]:
    """Return effort and the schema of a structured answer."""
    fields: dict[str, Any] = {}
    config = body.get("output_config")
    config = {} if config is None else as_object(config, "output_config")
    if isinstance(effort := config.get("effort"), str):
        fields["reasoning_effort"] = effort
    wanted = config.get("format") or body.get("output_format")
    if wanted is None:
        return fields
    wanted = as_object(wanted, "output_config.format")
    if wanted.get("type") != "json_schema":
        raise BadBody(
            "output_config.format.type must be 'json_schema'", param="output_config.format.type"
        )
    fields["response_format"] = {
        "type": "json_schema",
        "json_schema": {
            "name": as_name(wanted.get("name", "answer"), "output_config.format.name"),
            "schema": as_object(wanted.get("schema"), "output_config.format.schema"),
            "strict": True,
        },
    }
    return fields
