"""What can go wrong between a gateway and a node, and what a client must get for it.

Each fault says what becomes of a whole answer and of a streamed one when no other replica has the
model, and whether another replica takes over where there is one: only before the first byte.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.faulty_node import At, Fault, FaultyNode, Play, chunk
from tests.chaos.outcomes import SERVED, Outcome, event, refused
from tests.chaos.plays import (
    OK,
    after_head,
    answers_twice,
    conflicting,
    die_when_used_again,
    drop_by_drop,
    early_hints,
    half,
    head_drop_by_drop,
    in_body,
    leave,
    old_protocol,
    one_endless_line,
    raw,
    refuses_early,
    refusing,
    reset,
    silence,
    too_long,
    too_short,
    with_trailers,
    without_length,
)

LOST = refused(503, "upstream_unreachable")
LOST_MIDSTREAM = event("upstream_unreachable", 503)
SILENT = refused(504, "upstream_timeout")
SILENT_MIDSTREAM = event("upstream_timeout", 504)
MALFORMED = refused(502, "upstream_malformed_response")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFault:
    """One fault: its name in the table, how it is made, and what it must look like outside."""

    name: str
    how: str
    make: Callable[[FaultyNode], None]
    whole: Outcome
    streamed: Outcome
    replaced: bool
    within_secs: float = 1.5
    fast: bool = True
    not_yet: str = ""
    one_by_one: bool = False
    text: str = "hi"
    undo: Callable[[FaultyNode], None] = FaultyNode.disarm


def _armed(at: At) -> Callable[[Play], Callable[[FaultyNode], None]]:
    return lambda play: lambda node: node.arm(Fault(at, play))


on_accept, on_head, on_request = _armed(At.ACCEPT), _armed(At.HEAD), _armed(At.REQUEST)


NODE_FAULTS: tuple[NodeFault, ...] = (
    NodeFault(
        name="connection refused",
        how="nobody listens on the node's port",
        make=FaultyNode.refuse_connections,
        undo=FaultyNode.listen_again,
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="accept queue full",
        how="the port listens and nobody accepts, so no handshake ends; `connect` ends the wait",
        make=FaultyNode.fill_accept_queue,
        undo=FaultyNode.listen_again,
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="reset on accept",
        how="the connection is reset before a byte is read",
        make=on_accept(reset),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="closed on accept",
        how="the connection is closed before a byte is read",
        make=on_accept(leave),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="reset after the request's head",
        how="its body is never read",
        make=on_head(reset),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="reset after the request",
        how="nothing is answered",
        make=on_request(reset),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="closed after the request",
        how="nothing is answered",
        make=on_request(leave),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="reset inside the answer's head",
        how="after `HTTP/1.1 200 OK` and half a field",
        make=on_request(raw(OK + b"x-half: o", reset)),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="garbage instead of HTTP",
        how="the answer is the greeting of an SSH server",
        make=on_request(raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n" * 3)),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="200 kB of answer head",
        how="fields without end",
        make=on_request(raw(OK + b"x-big: " + b"x" * 200_000 + b"\r\n\r\n")),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="two content-lengths",
        how="5 and 6",
        make=on_request(conflicting("content-length: 5", "content-length: 6")),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="content-length and chunked",
        how="both in one head",
        make=on_request(conflicting("content-length: 5", "transfer-encoding: chunked")),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="negative content-length",
        how="-5",
        make=on_request(conflicting("content-length: -5", "x: y")),
        whole=LOST, streamed=LOST, replaced=True,
    ),
    NodeFault(
        name="node answers 503",
        how="busy, without a reason",
        make=on_request(refusing("503 Service Unavailable", b"busy", "retry-after: 7\r\n")),
        whole=refused(503, "service_unavailable"),
        streamed=refused(503, "service_unavailable"),
        replaced=True,
    ),
    NodeFault(
        name="node answers 429",
        how="no seat is free there",
        make=on_request(refusing("429 Too Many Requests", b"{}", "retry-after: 7\r\n")),
        whole=refused(503, "rate_limit_exceeded"),
        streamed=refused(503, "rate_limit_exceeded"),
        replaced=True,
    ),
    NodeFault(
        name="node answers 500",
        how="with a stack trace, which stays inside",
        make=on_request(refusing("500 Oops", b"panicked at /srv/secret.rs:7")),
        whole=MALFORMED, streamed=MALFORMED, replaced=False,
    ),
    NodeFault(
        name="node answers 302",
        how="a redirect, which is not followed",
        make=on_request(refusing("302 Found", b"", "location: http://127.0.0.1:1/\r\n")),
        whole=MALFORMED, streamed=MALFORMED, replaced=False,
    ),
    NodeFault(
        name="node never answers",
        how="silence after the request; `first_byte` ends it",
        make=on_request(silence),
        whole=SILENT, streamed=SILENT_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="answer's head byte by byte",
        how="a byte each 50 ms, no end; `first_byte` ends it",
        make=on_request(head_drop_by_drop(0.05)),
        whole=SILENT, streamed=SILENT_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="reset after the answer's head",
        how="200, and nothing of the body",
        make=on_request(after_head(reset)),
        whole=LOST, streamed=LOST, replaced=False,
    ),
    NodeFault(
        name="reset inside a chunk's size",
        how="tokens, then half a size line",
        make=on_request(in_body(lambda _: b"1", reset)),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="reset inside a chunk",
        how="tokens, then half a chunk",
        make=on_request(in_body(half, reset)),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="closed inside a chunk",
        how="tokens, then half a chunk",
        make=on_request(in_body(half)),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="closed between chunks",
        how="tokens, then the connection's end",
        make=on_request(in_body(lambda _: b"")),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="closed before the last chunk",
        how="everything was said but that it was everything",
        make=on_request(in_body(chunk)),
        whole=LOST, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="a chunk of size zz",
        how="tokens, then nonsense where a size belongs",
        make=on_request(in_body(lambda _: b"zz\r\nhello\r\n")),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="a chunk of 10^21 bytes",
        how="tokens, then a size beyond all numbers",
        make=on_request(in_body(lambda _: b"f" * 18 + b"\r\nhello\r\n")),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="content-length too long",
        how="the connection ends 100 bytes early",
        make=on_request(too_long),
        whole=LOST, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="content-length too short",
        how="the rest follows, and must not become the next answer",
        make=on_request(too_short),
        fast=False,
        not_yet="its connection is used again while the rest is still to come: the next request "
        "may fail with 503",
        one_by_one=True,
        whole=MALFORMED, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="no length, closed early",
        how="an answer that ends with its connection",
        make=on_request(without_length),
        whole=MALFORMED, streamed=LOST_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="silence inside an answer",
        how="tokens, then nothing; `idle` ends it",
        make=on_request(in_body(lambda _: b"", silence)),
        whole=SILENT, streamed=SILENT_MIDSTREAM, replaced=False,
    ),
    NodeFault(
        name="50 bytes a second",
        how="a good answer in drops; slow is not silent",
        make=on_request(drop_by_drop(0.02, 40)),
        whole=SERVED, streamed=SERVED, replaced=False, within_secs=3.0,
    ),
    NodeFault(
        name="1 byte a second",
        how="twelve seconds of it, then the rest",
        make=on_request(drop_by_drop(1.0, 12)),
        whole=SERVED, streamed=SERVED, replaced=False, within_secs=16.0, fast=False,
    ),
    NodeFault(
        name="trailers",
        how="a field after the last chunk",
        make=on_request(with_trailers),
        whole=SERVED, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="HTTP/1.0",
        how="an answer that ends with its connection",
        make=on_request(old_protocol),
        whole=SERVED, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="an answer nobody asked for",
        how="a second one behind the first; it never becomes the next request's",
        make=on_request(answers_twice),
        fast=False,
        not_yet="it may become the next one, or fail it with 503",
        one_by_one=True,
        whole=SERVED, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="an early refusal",
        how="413 at the sight of the request's head, whose body is long",
        make=on_head(refuses_early),
        text="x" * 900_000,
        whole=refused(413, "too_much"), streamed=refused(413, "too_much"), replaced=False,
    ),
    NodeFault(
        name="early hints",
        how="two answers of 103 before the answer",
        make=on_request(early_hints),
        whole=SERVED, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="dead kept-alive connection",
        how="closed when its second request arrives; that one is sent again",
        make=on_request(die_when_used_again),
        one_by_one=True,
        whole=SERVED, streamed=SERVED, replaced=False,
    ),
    NodeFault(
        name="an event without end",
        how="tokens, then 600 MB without a line's end",
        make=on_request(one_endless_line),
        whole=LOST, streamed=event("upstream_malformed_response", 502), replaced=False,
        within_secs=20.0, fast=False,
    ),
)  # fmt: skip
