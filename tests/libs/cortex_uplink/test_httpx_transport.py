"""`httpx.AsyncClient` over the uplink."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from cortex_uplink.httpx_transport import UplinkTransport
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    OK,
    Play,
    answers,
    no_new_tasks,
    peer,
    read_request,
    send,
    silent,
    until,
)

#: Nothing else of httpx's (proxies, certificates of the environment) is wanted.
TIMEOUT = httpx.Timeout(5, read=0.3)


def client(timeout: httpx.Timeout = TIMEOUT) -> httpx.AsyncClient:
    """Return a client over the uplink."""
    return httpx.AsyncClient(transport=UplinkTransport(), timeout=timeout, trust_env=False)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with what it was."""
    while True:
        head, body = await read_request(reader)
        framing = b"\n".join(
            line for line in head.splitlines() if line.startswith((b"content-l", b"transfer"))
        )
        told = head.split(b" ")[0] + b"|" + framing + b"|" + body
        await send(
            writer, b"HTTP/1.1 201 Made\r\nX-A: 1\r\ncontent-length: %d\r\n\r\n" % len(told), told
        )


async def test_requests_and_answers_are_httpxs() -> None:
    """Methods, JSON, headers, status."""
    async with no_new_tasks(), peer(echo) as node, client() as http:
        got = await http.get(node.url)
        posted = await http.post(node.url, json={"a": 1})

    assert (got.status_code, got.headers["x-a"], got.content) == (201, "1", b"get||")
    assert posted.content == b'post|content-length: 7|{"a":1}'
    assert posted.http_version == "HTTP/1.1"
    assert node.made == 1


async def test_a_body_may_be_streamed() -> None:
    """In chunks, or with the length that the caller gives."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with no_new_tasks(), peer(echo) as node, client() as http:
        chunked = await http.post(node.url, content=parts())
        counted = await http.post(node.url, content=parts(), headers={"content-length": "3"})
        with pytest.raises(httpx.LocalProtocolError):
            await http.post(node.url, content=parts(), headers={"content-length": "9"})
        with pytest.raises(httpx.LocalProtocolError):
            await http.post(node.url, content=parts(), headers={"content-length": "x"})

    assert chunked.content == b"post|transfer-encoding: chunked|abc"
    assert counted.content == b"post|content-length: 3|abc"


async def test_an_answer_may_be_streamed() -> None:
    """Each piece when it comes; leaving early ends the request at once."""
    go_on, gone = asyncio.Event(), asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"3\r\none\r\n")
        await go_on.wait()
        await send(writer, b"3\r\ntwo\r\n")
        await reader.read()
        gone.set()

    async with no_new_tasks(), peer(play) as node, client() as http:
        async with http.stream("POST", node.url, content=b"{}") as answer:
            pieces = answer.aiter_raw()
            first = await anext(pieces)
            go_on.set()
            second = await anext(pieces)
        async with asyncio.timeout(0.25):
            await gone.wait()

    assert (first, second) == (b"one", b"two")


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Break off in the middle."""
    await read_request(reader)
    await send(writer, CHUNKED, b"1\r\nx\r\n")


async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Fall silent in the middle."""
    await broken(reader, writer)
    await reader.read()


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (answers(), httpx.RemoteProtocolError),
        (answers(b"nonsense"), httpx.RemoteProtocolError),
        (answers(b"HTTP/1.1 200 OK\r\n"), httpx.RemoteProtocolError),
        (broken, httpx.RemoteProtocolError),
        (silent, httpx.ReadTimeout),
        (stalled, httpx.ReadTimeout),
    ],
)
async def test_failures_are_httpxs(play: Play, error: type[Exception]) -> None:
    """With the request that failed."""
    async with no_new_tasks(), peer(play) as node, client() as http:
        with pytest.raises(error) as caught:
            await http.post(node.url, content=b"{}")
        await until(lambda: not node.writers)

    assert isinstance(caught.value, httpx.TransportError)
    assert str(caught.value.request.url) == node.url


async def test_failures_to_connect_are_httpxs() -> None:
    """Nobody there, no time, and nothing that could be sent."""
    async with peer(answers(OK)) as node:
        url = node.url

    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
        with pytest.raises(httpx.LocalProtocolError):
            await http.get("ftp://node/")
    async with client(httpx.Timeout(5, connect=0.0)) as http:
        with pytest.raises(httpx.ConnectTimeout):
            await http.get(url)


async def test_no_limit_is_no_limit() -> None:
    """A None of theirs."""
    async with peer(answers(OK)) as node, client(httpx.Timeout(None)) as http:
        assert (await http.get(node.url)).content == b"ok"
