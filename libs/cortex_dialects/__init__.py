"""What clients and engines say to each other, pure and sans-IO.

A gateway needs `read_passed`, `read_messages` and `read_responses`; an engine the folds and
splitters. `messages` and `responses` hold each dialect by itself.
"""

from cortex_dialects.bad_body import BadBody
from cortex_dialects.completion_fold import CompletionFold
from cortex_dialects.completion_stream import CompletionStream, UsageChunk, says_more
from cortex_dialects.completion_writer import CompletionWriter
from cortex_dialects.estimating import estimate_tokens
from cortex_dialects.exchange import (
    AnswerStream,
    Exchange,
    Ticket,
    Translated,
    envelope_of,
    read_messages,
    read_passed,
    read_responses,
)
from cortex_dialects.failure import Envelope, Failure, render
from cortex_dialects.front import Front, read_front, with_fields, with_model
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
    "AnswerStream",
    "BadBody",
    "CompletionFold",
    "CompletionStream",
    "CompletionWriter",
    "Envelope",
    "Exchange",
    "Failure",
    "FrameSplitter",
    "FrameTooLarge",
    "Front",
    "Ticket",
    "Translated",
    "Usage",
    "UsageChunk",
    "envelope_of",
    "estimate_tokens",
    "frame_of",
    "json_payload",
    "parse_keep_alive",
    "payload",
    "read_front",
    "read_messages",
    "read_passed",
    "read_responses",
    "render",
    "says_more",
    "with_fields",
    "with_model",
]
