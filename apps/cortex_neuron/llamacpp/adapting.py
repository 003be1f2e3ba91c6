"""A request's body as llama.cpp takes it: what it refuses or ignores is put so that it does not.

Both inference and counting go through here, so that both see the same prompt. A chat is made plain
(chat_body.py), and a `response_format` that llama.cpp would pass over in silence is refused, and so
are log probabilities beside tools.
"""

from collections.abc import Mapping
from typing import Any

from cortex_core.errors import InvalidRequest
from cortex_neuron.chat_body import (
    check_format,
    choose_tools,
    gather_system,
    plain_messages,
    stop_strings,
    tools_of,
)


def adapted(body: Mapping[str, Any], *, knows_tools: bool) -> dict[str, Any]:
    """Return `body` as llama.cpp takes it. Raises InvalidRequest."""
    out = dict(body)
    if "stop" in out:
        out["stop"] = list(stop_strings(body))
    if "messages" in out:
        out["messages"] = plain_messages(body["messages"])
        choose_tools(out, knows_tools=knows_tools)
        check_format(out.get("response_format"))
        if out.get("logprobs") and tools_of(out):
            raise InvalidRequest(
                "log probabilities cannot be had together with tools",
                code="unsupported_parameter",
                param="logprobs",
            )
    return out


def gathered(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an adapted chat with its system messages as one in front, None when they are so."""
    messages = gather_system(body.get("messages", []))
    return None if messages is None else {**body, "messages": messages}
