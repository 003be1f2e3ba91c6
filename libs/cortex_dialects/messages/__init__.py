"""Anthropic's Messages dialect, to chat completions and back."""

from cortex_dialects.messages.listing import Listed, page
from cortex_dialects.messages.reader import MessageReader, read_message
from cortex_dialects.messages.request import shows_thinking, to_chat
from cortex_dialects.messages.reverse_request import to_messages
from cortex_dialects.messages.writer import PING_FRAME, MessageWriter

__all__ = [
    "PING_FRAME",
    "Listed",
    "MessageReader",
    "MessageWriter",
    "page",
    "read_message",
    "shows_thinking",
    "to_chat",
    "to_messages",
]
