"""About how many tokens a chat completion request has, for models whose tokenizer is not at hand.

Four bytes of text are a token, each message costs four more for what a template puts around it, and
tools count as the JSON they are. English prose comes within a fifth of the truth, other languages
and code are overestimated rather than not.
"""

from typing import Any, Final

from orjson import dumps

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4
#: What a picture of usual size costs with the models that see.
TOKENS_PER_IMAGE: Final = 1000


def estimate_tokens(chat: dict[str, Any]) -> int:
    """Return an estimate, at least 1. `chat` is a request that `encode` could write."""
    size = 0
    tokens = 0
    messages = chat.get("messages")
    for message in messages if isinstance(messages, list) else []:
        tokens += TOKENS_PER_MESSAGE
        if not isinstance(message, dict):
            continue
        size += _size(message.get("reasoning_content"))
        calls = message.get("tool_calls")
        size += len(dumps(calls)) if calls else 0
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and "image_url" in part:
                tokens += TOKENS_PER_IMAGE
            else:
                size += _size(part.get("text") if isinstance(part, dict) else part)
    if tools := chat.get("tools"):
        size += len(dumps(tools))
    return max(1, tokens + size // BYTES_PER_TOKEN)


def _size(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
