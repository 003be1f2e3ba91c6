"""Why the other side could not be used. The messages are for the log, not for a client.

UplinkError
├── RequestRefused    the request is not one that may be sent; nothing was
├── ConnectFailed     no connection, or
│   └── HungUp        one that was lost before anything of the answer came
├── FirstByteTimeout  the request was taken, but no answer began
├── IdleTimeout       the answer began and then fell silent
├── ConnectionLost    the answer broke off
└── MalformedAnswer   what came is not an answer that can be trusted
"""


class UplinkError(Exception):
    """The other side could not be used; the message is for the log, not for a client."""


class RequestRefused(UplinkError):
    """The URL, method or a header is not what HTTP allows, so nothing was sent."""


class ConnectFailed(UplinkError):
    """No connection, or one that was lost before anything of the answer came."""


class HungUp(ConnectFailed):
    """The connection was there, and lost before anything of the answer came."""


class FirstByteTimeout(UplinkError):
    """The request was taken, but no answer began within the limit."""


class IdleTimeout(UplinkError):
    """The answer began and then fell silent for longer than the limit."""


class ConnectionLost(UplinkError):
    """The answer broke off."""


class MalformedAnswer(UplinkError):
    """What came is not HTTP/1.1, or could be read in more than one way."""
