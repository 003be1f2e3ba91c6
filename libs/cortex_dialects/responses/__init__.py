"""OpenAI's Responses, translated to chat completions and back."""

from cortex_dialects.responses.request import to_chat
from cortex_dialects.responses.writer import ResponsesWriter

__all__ = ["ResponsesWriter", "to_chat"]
