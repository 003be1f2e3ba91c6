"""What clients and engines say to each other, pure and sans-IO."""

from cortex_dialects.bad_body import BadBody
from cortex_dialects.completion_fold import CompletionFold
from cortex_dialects.completion_stream import CompletionStream, UsageChunk
from cortex_dialects.front import Front, read_front, with_fields
from cortex_dialects.keep_alive import parse_keep_alive
from cortex_dialects.sse import (
    COMMENT_FRAME,
    DONE_FRAME,
    MAX_FRAME_BYTES,
    FrameSplitter,
    FrameTooLarge,
    frame_of,
    json_payload,
    payload,
)
from cortex_dialects.usage import Usage

__all__ = [
    "COMMENT_FRAME",
    "DONE_FRAME",
    "MAX_FRAME_BYTES",
    "BadBody",
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
