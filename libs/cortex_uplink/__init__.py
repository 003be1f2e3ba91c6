"""Moving bytes: the streaming HTTP path of both daemons, and the shell they serve from."""

from cortex_uplink.client import (
    HOP_BY_HOP,
    Answer,
    ConnectFailed,
    ConnectionLost,
    FirstByteTimeout,
    IdleTimeout,
    Limits,
    Uplink,
    UplinkError,
)

__all__ = [
    "HOP_BY_HOP",
    "Answer",
    "ConnectFailed",
    "ConnectionLost",
    "FirstByteTimeout",
    "IdleTimeout",
    "Limits",
    "Uplink",
    "UplinkError",
]
