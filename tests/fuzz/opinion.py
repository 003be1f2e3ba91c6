"""A second opinion on what a message says: h11's, which shares no code with ours."""

from dataclasses import dataclass

import h11

from tests.libs.cortex_uplink.answers import Read
from tests.libs.cortex_uplink.requests import Heard, Seen


@dataclass(frozen=True, slots=True)
class Said:
    """A message as h11 reads it."""

    status: int
    body: bytes


def of_answer(raw: bytes, *, to_head: bool) -> Said | None:
    """Return what h11 reads in `raw` and the connection's end after it; None: nothing whole."""
    ours = h11.Connection(h11.CLIENT)
    ours.send(h11.Request(method="HEAD" if to_head else "GET", target="/", headers=[("host", "a")]))
    ours.send(h11.EndOfMessage())
    status, body, ended = 0, b"", False
    try:
        ours.receive_data(raw)
        while True:
            event = ours.next_event()
            if event is h11.NEED_DATA and not ended:
                ours.receive_data(b"")
                ended = True
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Said(status, body)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except (h11.RemoteProtocolError, RuntimeError):
        return None


def agrees(read: Read | None, said: Said | None) -> bool:
    """Tell whether nobody could be made to see two different answers in the same bytes."""
    if read is None or said is None or not read.complete:
        return True
    return (read.status, read.body) == (said.status, said.body)


def of_request(raw: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes] | None:
    """Return method, target, headers and body of the only request in `raw`; None: it is not one."""
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(raw)
    try:
        request = theirs.next_event()
        body = b""
        while isinstance(event := theirs.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or not isinstance(event, h11.EndOfMessage):
        return None
    if theirs.trailing_data[0]:
        return None
    return request.method, request.target, list(request.headers), body


def of_requests(raw: bytes) -> tuple[list[Seen], bool]:
    """Return the requests that h11 reads in `raw`, and whether it refuses what follows them."""
    seen: list[Seen] = []
    while raw:
        theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        theirs.receive_data(raw)
        try:
            request = theirs.next_event()
            if not isinstance(request, h11.Request):
                break
            body = b""
            while isinstance(event := theirs.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError:
            return seen, True
        if not isinstance(event, h11.EndOfMessage):
            break
        seen.append(Seen(request.method.decode(), request.target.decode(), bytes(body)))
        raw = theirs.trailing_data[0]
    return seen, False


def sees_no_other(heard: Heard, raw: bytes) -> bool:
    """Tell whether h11 could not be made to see other requests in `raw`, or other ends of them.

    Whoever refuses is not deceived: what counts is what both have read.
    """
    seen, refuses = of_requests(raw)
    both = min(len(seen), len(heard.requests))
    if not all(map(_alike, heard.requests[:both], seen[:both])):
        return False
    if len(heard.requests) > both:
        return refuses
    return heard.over or len(seen) == both


def _alike(ours: Seen, theirs: Seen) -> bool:
    if (ours.method, ours.body) != (theirs.method, theirs.body):
        return False
    # An address is told by its path, which is the end of it.
    return ours.target == theirs.target or theirs.target.endswith(ours.target.strip("/"))
