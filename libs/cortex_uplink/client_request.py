"""One request of a client, whole."""

import itertools
import re
import secrets
from typing import TYPE_CHECKING

from cortex_core.access import Grant
from cortex_uplink.request_parser import Asked

if TYPE_CHECKING:
    from cortex_uplink.client_connection import ClientConnection

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Ours are unlike those of any other process, and never told twice by this one.
_PREFIX = f"req-{secrets.token_hex(5)}"
_NUMBERS = itertools.count(1)


class ClientRequest:
    """What was asked, and the connection that waits for the answer."""

    __slots__ = (
        "body",
        "connection",
        "grant",
        "headers",
        "keep_alive",
        "method",
        "modern",
        "name",
        "path",
        "target",
    )

    def __init__(self, asked: Asked, connection: "ClientConnection") -> None:
        head, self.body = asked
        self.method, self.target, self.path, self.headers, self.keep_alive, self.modern = head
        self.connection = connection
        #: What a guard found that whoever asks may do.
        self.grant: Grant | None = None
        #: The client's own request id when it is a sane one, else one of ours.
        self.name = request_name(self.headers.get("x-request-id"))


def request_name(theirs: str | None) -> str:
    """Return what a request is called, here and to its client."""
    if theirs is not None and _REQUEST_ID.fullmatch(theirs):
        return theirs
    return f"{_PREFIX}{next(_NUMBERS):06x}"
