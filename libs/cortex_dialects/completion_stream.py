"""Read along in an OpenAI stream: tokens, usage, finish, without rebuilding what passes through.

Only frames that can matter are parsed: those before the first token, and those that mention usage,
a finish reason or an error. All others are forwarded as the bytes they were.
"""

from enum import Enum
from typing import Any

from cortex_dialects.failure import Envelope, Failure, render
from cortex_dialects.sse import COMMENT_FRAME, FrameSplitter, frame_of, json_payload, payload
from cortex_dialects.usage import Usage

_BLANK_LINE = b"\n\n"
_WORDS = (b'"usage"', b'"error"', b"[DONE]")
_FINISH = b'"finish_reason"'
_UNFINISHED = (b":null", b": null")


class UsageChunk(Enum):
    """What becomes of the closing usage chunk (the one whose `choices` are empty)."""

    PASS = "pass"  # noqa: S105  # no password: it passes
    WITHHOLD = "withhold"
    ENSURE = "ensure"


class CompletionStream:
    """One stream of chat or text completion chunks, read along as it passes.

    After it ended: `usage`, `finish_reason`, `done` ([DONE] was seen), `failure` (an error frame).
    `first_token_seen` turns true with the first frame that carries generated text, thoughts or a
    tool call: a role delta is not a token.
    """

    def __init__(self, usage_chunk: UsageChunk = UsageChunk.PASS) -> None:
        self.keep_alive = COMMENT_FRAME
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.first_token_seen = False
        self.done = False
        self.failure: dict[str, Any] | None = None
        self._usage_chunk = usage_chunk
        self._usage_chunk_seen = False
        self._head: dict[str, Any] = {}
        self._frames = FrameSplitter()

    @property
    def complete(self) -> bool:
        """The stream came to a proper end."""
        return self.failure is None and (self.done or self.finish_reason is not None)

    @property
    def steady(self) -> bool:
        """Whole frames that say nothing but tokens (`says_more`) now pass, and change nothing."""
        return self.first_token_seen and self._frames.between

    def open(self) -> bytes:
        """Return what opens the stream: nothing, the node's first frame does."""
        return b""

    def fail(self, failure: Failure) -> bytes:
        """Return the end of a stream that failed: an error frame, unless it carried one."""
        return b"" if self.failure else frame_of(render(failure, Envelope.OPENAI, ""))

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes to forward for `chunk`: whole frames only, the rest is kept."""
        out: list[bytes] = []
        while chunk:
            if self.steady:
                passing = _passing(chunk)
                if passing == len(chunk):
                    out.append(chunk)
                    break
                out.append(chunk[:passing])
                chunk = chunk[passing:]
            if (found := self._frames.first(chunk)) is None:
                out += [self._frame(frame) for frame in self._frames.feed(chunk)]
                break
            frame, chunk = found
            out.append(self._frame(frame))
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self) -> bytes:
        """Return the last frame, where the stream ended without the blank line behind it.

        Half a frame is left out: what follows would be read as its other half.
        """
        frame = self._frames.finish()
        if json_payload(frame) is None and payload(frame) != b"[DONE]":
            return b""
        return self._frame(frame.rstrip() + b"\n\n")

    def _frame(self, frame: bytes) -> bytes:
        if self.first_token_seen and not says_more(frame):
            return frame
        if payload(frame) == b"[DONE]":
            self.done = True
            return self._missing_usage() + frame
        value = json_payload(frame)
        if value is None:
            return frame
        return b"" if self._read(value) else frame

    def _read(self, value: dict[str, Any]) -> bool:
        """Take in one chunk; return whether it is to be withheld."""
        if not self._head:
            self._head = {k: value[k] for k in ("id", "created", "model", "object") if k in value}
        if isinstance(value.get("error"), dict):
            self.failure = value["error"]
        choices = value.get("choices")
        rows = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
        for choice in rows:
            if isinstance(reason := choice.get("finish_reason"), str):
                self.finish_reason = reason
            self.first_token_seen = self.first_token_seen or _has_token(choice)
        if (usage := Usage.parse(value.get("usage"))) is not None:
            self.usage = _merge(self.usage, usage) if self._usage_chunk_seen else usage
            if choices == []:
                self._usage_chunk_seen = True
                return self._usage_chunk is UsageChunk.WITHHOLD
        return False

    def _missing_usage(self) -> bytes:
        wanted = self._usage_chunk is UsageChunk.ENSURE and not self._usage_chunk_seen
        if not wanted or self.usage is None:
            return b""
        return frame_of({**self._head, "choices": [], "usage": self.usage.as_json()})


def _passing(chunk: bytes) -> int:
    """Return how many bytes at the start are whole frames that say nothing but tokens."""
    end = len(chunk)
    if says_more(chunk):
        places = [_finish(chunk), *map(chunk.find, _WORDS)]
        end = min(at for at in places if at >= 0)
    elif chunk.endswith(_BLANK_LINE):
        return end
    blank = chunk.rfind(_BLANK_LINE, 0, end)
    return 0 if blank < 0 else blank + len(_BLANK_LINE)


def _finish(chunk: bytes) -> int:
    """Return where the first finish reason is told that is one; -1: nowhere."""
    at = chunk.find(_FINISH)
    while at >= 0 and chunk.startswith(_UNFINISHED, at + len(_FINISH)):
        at = chunk.find(_FINISH, at + len(_FINISH))
    return at


def says_more(frames: bytes) -> bool:
    """Tell whether any of the frames may say more than another token."""
    if b'"usage"' in frames or b'"error"' in frames or b"[DONE]" in frames:
        return True
    told = frames.count(b'"finish_reason"')
    unknown = frames.count(b'"finish_reason":null')
    return told > unknown and told > unknown + frames.count(b'"finish_reason": null')


def _has_token(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(key) for key in ("content", "reasoning_content", "tool_calls"))
    return bool(choice.get("text"))


def _merge(one: Usage | None, other: Usage) -> Usage:
    """Add up the parallel answers of one prompt (`n` > 1): the prompt counts once."""
    if one is None:
        return other
    return Usage(
        prompt=other.prompt, completion=one.completion + other.completion, cached=other.cached
    )
