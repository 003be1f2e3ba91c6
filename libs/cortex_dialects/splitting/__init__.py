"""Engines that give plain text: their answers as the same events that streams carry."""

from cortex_dialects.splitting.answer_splitter import AnswerEvent, AnswerSplitter
from cortex_dialects.splitting.coercion import coerce_arguments
from cortex_dialects.splitting.reasoning import (
    THINK_MARKERS,
    ReasoningSplitter,
    ThinkMarkers,
    opened_by,
)
from cortex_dialects.splitting.tool_dialect import ToolCall, ToolDialect
from cortex_dialects.splitting.tool_dialects import TOOL_DIALECTS, detect_tool_dialect
from cortex_dialects.splitting.tool_splitter import MAX_BLOCK_CHARS, ToolSplitter

__all__ = [
    "MAX_BLOCK_CHARS",
    "THINK_MARKERS",
    "TOOL_DIALECTS",
    "AnswerEvent",
    "AnswerSplitter",
    "ReasoningSplitter",
    "ThinkMarkers",
    "ToolCall",
    "ToolDialect",
    "ToolSplitter",
    "coerce_arguments",
    "detect_tool_dialect",
    "opened_by",
]
