"""What clients and engines say to each other, pure and sans-IO."""

from cortex_dialects.completion_fold import CompletionFold
from cortex_dialects.completion_stream import (
    DONE_FRAME,
    CompletionStream,
    Usage,
    UsageChunk,
    frame_of,
)
from cortex_dialects.front import BadFront, Front, read_front, with_fields
from cortex_dialects.keep_alive import parse_keep_alive
from cortex_dialects.sse import (
    MAX_FRAME_BYTES,
    FrameSplitter,
    FrameTooLarge,
    json_payload,
    payload,
)

__all__ = [
    "DONE_FRAME",
    "MAX_FRAME_BYTES",
    "BadFront",
    "CompletionFold",
    "CompletionStream",
    "FrameSplitter",
    "FrameTooLarge",
    "Front",
    "Usage",
    "UsageChunk",
    "frame_of",
    "json_payload",
    "parse_keep_alive",
    "payload",
    "read_front",
    "with_fields",
]
