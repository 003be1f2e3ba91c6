"""What Sanic's handlers say stands on the wire as it should; what is direct does not meet Sanic."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from sanic import HTTPResponse, Request
from sanic.response import empty, text

from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.envelopes import answer
from cortex_uplink.lean_app import LeanApp, start_server
from cortex_uplink.serving import make_app, send_now
from tests.libs.cortex_uplink.fronts import exchange

CLOSE = b"host: a\r\nconnection: close\r\n\r\n"


async def _whole(request: Request) -> HTTPResponse:
    return text(f"{request.ip} {request.path} {request.args.get('q')} {request.body.decode()}")


async def _nothing(_: Request) -> HTTPResponse:
    return empty()


async def _now(request: Request) -> None:
    await send_now(request, answer({"now": True}))


async def _parts(request: Request) -> None:
    response = await request.respond(content_type="text/plain")
    for part in ("one", b"", b"two"):
        await response.send(part)
    await response.eof()


async def _fails(_: Request) -> HTTPResponse:
    raise ValueError("secret")


async def _fails_late(request: Request) -> None:
    response = await request.respond()
    await response.send("some")
    raise ValueError("secret")


async def _direct(request: ClientRequest) -> HTTPResponse:
    return answer(request.target)


async def _direct_fails(_: ClientRequest) -> HTTPResponse:
    raise ValueError("secret")


async def _direct_fails_late(request: ClientRequest) -> HTTPResponse:
    ClientWriter(request).open({})
    raise ValueError("secret")


async def _answers_twice(request: ClientRequest) -> HTTPResponse:
    ClientWriter(request).whole(200, {}, b"once")
    return answer("twice")


def app() -> LeanApp:
    """Return an app with handlers of every kind."""
    made = make_app("streams", request_max_mb=1)
    for handler in (_whole, _nothing, _now, _parts, _fails, _fails_late):
        made.add_route(handler, f"/{handler.__name__[1:]}", methods=["GET", "POST", "HEAD"])
    for straight in (_direct, _direct_fails, _direct_fails_late, _answers_twice):
        made.add_direct_route(straight, f"/{straight.__name__[1:]}", straight.__name__)
    return made


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """Serve that app on a free loopback port."""
    connections: set[ClientConnection] = set()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    server = await start_server(app(), listener, connections)
    try:
        yield port
    finally:
        for connection in list(connections):
            connection.abort()
        server.close()
        await server.wait_closed()


async def ask(line: str, body: bytes = b"") -> tuple[str, dict[str, str], bytes]:
    """Return status line, headers and what follows them, of the answer to one request."""
    length = b"content-length: %d\r\n" % len(body) if body else b""
    async with serving() as port:
        heard = b""
        with suppress(ConnectionResetError):
            heard = await exchange(port, f"{line} HTTP/1.1\r\n".encode() + length + CLOSE + body)
    head, _, rest = heard.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    names = [one.partition(": ")[0] for one in lines]
    assert len(set(names)) == len(names), names
    return first, dict(zip(names, [one.partition(": ")[2] for one in lines], strict=True)), rest


async def test_a_whole_answer() -> None:
    """With what the request said."""
    first, headers, body = await ask("POST /whole?q=1", b"said")

    assert (first, body) == ("HTTP/1.1 200 OK", b"127.0.0.1 /whole 1 said")
    assert headers["content-length"] == str(len(body))
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["x-request-id"].startswith("req-")


async def test_head_gets_a_head() -> None:
    """Of the length that GET would get."""
    first, headers, body = await ask("HEAD /whole")

    assert (first, headers["content-length"]) == ("HTTP/1.1 200 OK", "22")
    assert body == b""


async def test_no_content_is_none() -> None:
    """And has no length."""
    first, headers, body = await ask("GET /nothing")

    assert (first, body) == ("HTTP/1.1 204 No Content", b"")
    assert "content-length" not in headers


async def test_an_answer_from_inside_the_handler_is_sent_once() -> None:
    """Sanic ends it once more."""
    first, headers, body = await ask("GET /now")

    assert (first, body) == ("HTTP/1.1 200 OK", b'{"now":true}')
    assert headers["content-length"] == str(len(body))


async def test_a_stream_comes_in_chunks() -> None:
    """Nothing in between is not its end."""
    _, headers, body = await ask("GET /parts")

    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("line", ["GET /fails", "POST /direct_fails"])
async def test_a_failure_is_an_envelope(line: str) -> None:
    """Which tells nothing of the inside."""
    first, _, body = await ask(line)

    assert first == "HTTP/1.1 500 Internal Server Error"
    assert b'"code":"internal_error"' in body
    assert b"secret" not in body


@pytest.mark.parametrize("line", ["GET /fails_late", "POST /direct_fails_late"])
async def test_a_failure_after_the_head_ends_the_connection(line: str) -> None:
    """No second answer, and no end that the first does not have."""
    first, _, rest = await ask(line)

    assert first in {"HTTP/1.1 200 OK", ""}
    assert b"0\r\n\r\n" not in rest
    assert b"HTTP/" not in rest


async def test_nobody_is_answered_twice() -> None:
    """The next request would be taken to be answered."""
    _, _, body = await ask("POST /answers_twice")

    assert body == b"once"


@pytest.mark.parametrize(
    ("told", "target"),
    [
        ("/direct", "/direct"),
        ("/direct/", "/direct/"),
        ("/direct?x", "/direct?x"),
        ("http://b/direct", "/direct"),
        ("https://b:1/direct?x", "/direct?x"),
    ],
)
async def test_a_direct_route_is_found_however_it_is_addressed(told: str, target: str) -> None:
    """Sanic, which would find it too, never gets to see such a request."""
    first, _, body = await ask(f"POST {told}")

    assert (first, body.decode()) == ("HTTP/1.1 200 OK", f'"{target}"')


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /direct", 405),
        ("POST //direct", 404),
        ("POST /%64irect", 404),
        ("POST /direct/%ff", 404),
        ("POST /Direct", 404),
        ("POST /", 404),
        ("GET http://b", 404),
        ("OPTIONS *", 404),
        ("CONNECT b:1", 400),
        ("GET direct", 400),
        ("GET ?x", 400),
        ("GET http:///direct", 400),
        ("GET http://[::1/direct", 405),
        ("BREW /whole", 405),
    ],
)
async def test_an_odd_address_is_refused_in_an_envelope(line: str, status: int) -> None:
    """Whatever Sanic makes of it."""
    first, _, body = await ask(line)

    assert first.startswith(f"HTTP/1.1 {status} ")
    assert body.startswith(b'{"error":{"message":')


async def test_sanic_waits_for_a_client_that_takes_too_little() -> None:
    """A stream goes on when there is room."""
    sent: list[int] = []
    done = asyncio.Event()

    async def flood(request: Request) -> None:
        response = await request.respond()
        for number in range(200):
            await response.send(b"x" * 100_000)
            sent.append(number)
        await response.eof()
        done.set()

    made = make_app("flood", request_max_mb=1)
    made.add_route(flood, "/flood")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    connections: set[ClientConnection] = set()
    server = await start_server(made, listener, connections)
    reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1024)
    writer.write(b"GET /flood HTTP/1.1\r\n" + CLOSE)
    await asyncio.sleep(0.2)
    assert 0 < len(sent) < 200
    async with asyncio.timeout(5):
        assert len(await reader.read()) > 200 * 100_000
        await done.wait()
    writer.close()
    server.close()
    await server.wait_closed()
