"""Moving bytes: the streaming HTTP path of both daemons, and the shell they serve from."""

from cortex_uplink.chunk_decoder import whole_frames
from cortex_uplink.client import Answer, Stream, Uplink
from cortex_uplink.connection import ChunkSink, Limits, Sink
from cortex_uplink.errors import (
    ConnectFailed,
    ConnectionLost,
    FirstByteTimeout,
    HungUp,
    IdleTimeout,
    MalformedAnswer,
    RequestRefused,
    UplinkError,
)
from cortex_uplink.headers import Headers
from cortex_uplink.request_head import HOP_BY_HOP, Prepared

__all__ = [
    "HOP_BY_HOP",
    "Answer",
    "ChunkSink",
    "ConnectFailed",
    "ConnectionLost",
    "FirstByteTimeout",
    "Headers",
    "HungUp",
    "IdleTimeout",
    "Limits",
    "MalformedAnswer",
    "Prepared",
    "RequestRefused",
    "Sink",
    "Stream",
    "Uplink",
    "UplinkError",
    "whole_frames",
]
