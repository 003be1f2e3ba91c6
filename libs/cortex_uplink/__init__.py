"""Moving bytes: the streaming HTTP path of both daemons, and the shell they serve from."""

from cortex_uplink.client import Answer, Stream, Uplink
from cortex_uplink.connection import Limits, Sink
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
from cortex_uplink.request_head import HOP_BY_HOP

__all__ = [
    "HOP_BY_HOP",
    "Answer",
    "ConnectFailed",
    "ConnectionLost",
    "FirstByteTimeout",
    "Headers",
    "HungUp",
    "IdleTimeout",
    "Limits",
    "MalformedAnswer",
    "RequestRefused",
    "Sink",
    "Stream",
    "Uplink",
    "UplinkError",
]
