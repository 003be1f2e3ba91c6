"""Structured logs of both daemons: one event a line on standard error, JSON when nobody watches.

Lines of one moment go out in one call. A warning and what is worse is out at once, with everything
before it.
"""

import asyncio
import atexit
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

import orjson
import structlog

from cortex_uplink.event_memory import EventMemory

_HOLD_SECS = 0.01
_HOLD_LINES = 256


class LineLogger:
    """What structlog gives its lines to; it holds harmless ones where an event loop can wake it."""

    def __init__(self, stream: TextIO, memory: EventMemory | None = None) -> None:
        self._stream = stream
        self._memory = memory
        # Threads log, too: nothing that one puts in may be lost while another writes.
        self._lines: deque[str] = deque()
        self._waits = False
        atexit.register(self._flush)

    def debug(self, line: str) -> None:
        """Write a line soon."""
        self._lines.append(line)
        if self._memory is not None:
            self._memory.keep(line)
        if self._waits and len(self._lines) < _HOLD_LINES:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread's, or none runs yet
            self._flush()
            return
        if self._waits:
            self._flush()
        self._waits = True
        loop.call_later(_HOLD_SECS, self._rung)

    info = msg = debug

    def warning(self, line: str) -> None:
        """Write a line, and all before it, now."""
        self._lines.append(line)
        if self._memory is not None:
            self._memory.keep(line)
        self._flush()

    error = critical = fatal = failure = err = warn = exception = warning

    def _rung(self) -> None:
        self._waits = False
        self._flush()

    def _flush(self) -> None:
        lines: list[str] = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        if lines:
            # A reader that has left takes no daemon with it.
            with suppress(OSError, ValueError):
                self._stream.write("\n".join((*lines, "")))
                self._stream.flush()


class _Lines:
    """Where lines go: set once by `configure_logs`."""

    as_json: LineLogger | None = None


def configure_logs(memory: EventMemory | None = None) -> None:
    """Send structlog and the standard library's warnings to standard error.

    What structlog says is kept in `memory`, too, as JSON whoever watches.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    in_colours = sys.stderr.isatty()
    lines = LineLogger(sys.stderr, None if in_colours else memory)
    renderer: structlog.typing.Processor
    if in_colours:
        if memory is not None:
            shared.append(_keeping(memory))
        renderer = structlog.dev.ConsoleRenderer()
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_json)
        _Lines.as_json = lines
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def log_often(event: str, fields: dict[str, Any]) -> None:
    """Write an event of level info as structlog would: for those that every request causes."""
    lines = _Lines.as_json
    if lines is None:
        structlog.get_logger().info(event, **fields)
        return
    fields["event"], fields["level"], fields["timestamp"] = event, "info", _timestamp(time.time())
    lines.info(_json(fields, repr))


def _keeping(memory: EventMemory) -> structlog.typing.Processor:
    def keep(_: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        copy = structlog.processors.format_exc_info(None, method, dict(event))
        memory.keep(_json(copy, repr))
        return event

    return keep


@lru_cache(2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _timestamp(now: float) -> str:
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1e6):06d}Z"


def _json(event: Any, default: Callable[[Any], Any]) -> str:
    try:
        return orjson.dumps(event, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a file's name that is no UTF-8, a number beyond 64 bits
        return json.dumps(event, default=default)
