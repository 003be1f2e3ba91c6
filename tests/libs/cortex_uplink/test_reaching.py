"""Every way to reach a server: names and addresses, Unix sockets, TLS; and failing to."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cortex_uplink import ConnectFailed, Limits
from tests.libs.cortex_uplink.peers import (
    CERTIFICATE,
    CHUNKED,
    OK,
    PATIENT,
    answers,
    ask,
    no_new_tasks,
    peer,
    read_request,
    send,
    until,
    uplink,
)


def server_tls() -> ssl.SSLContext:
    """Return what a server needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    """Return what trusts that server."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


async def test_a_name_is_resolved_and_every_address_is_tried() -> None:
    """The server listens on one of those that localhost may have."""
    async with peer(answers(OK)) as node, uplink() as path:
        assert await ask(path, node.url.replace("127.0.0.1", "localhost")) == b"ok"


async def test_a_name_that_does_not_exist_is_a_failed_connection() -> None:
    """Another replica may be asked."""
    async with uplink() as path:
        with pytest.raises(ConnectFailed):
            await ask(path, "http://no-such-host.invalid/")
        with pytest.raises(ConnectFailed):
            await ask(path, f"http://{'x' * 70}.invalid/")


@contextmanager
def full_backlog(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that takes no connection: its queue is full, and further ones are left waiting."""
    with socket.socket() as listening:
        listening.bind((host, port))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for one in waiting:
            one.close()


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses; without one, let it be looked for for ever."""

    async def getaddrinfo(
        host: str, port: int, **options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if not addresses:
            await asyncio.Event().wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 local")
async def test_every_address_is_tried_and_a_silent_one_leaves_time_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One refuses, one says nothing, one serves."""
    async with no_new_tasks(), peer(answers(OK)) as node, uplink() as path:
        port = int(node.url.split(":")[2].split("/")[0])
        resolving(monkeypatch, "127.0.0.3", "127.0.0.2", "127.0.0.1")
        with full_backlog("127.0.0.2", port):
            assert await ask(path, f"http://node.test:{port}/") == b"ok"


async def test_a_name_that_is_looked_for_too_long_is_a_failed_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit on connecting holds for it too."""
    resolving(monkeypatch)
    async with no_new_tasks(), uplink(Limits(connect=0.1, first_byte=9, idle=9)) as path:
        with pytest.raises(ConnectFailed, match=r"within 0\.1 s"):
            await ask(path, "http://node.test/")


async def test_a_server_that_takes_no_connection_has_a_limit() -> None:
    """And leaves nothing behind."""
    with full_backlog() as port:
        async with no_new_tasks(), uplink(Limits(connect=0.2, first_byte=9, idle=9)) as path:
            with pytest.raises(ConnectFailed, match=r"within 0\.2 s"):
                await ask(path, f"http://127.0.0.1:{port}/")
            assert path.open_connections == 0


async def test_cancelled_while_connecting_it_leaves_nothing_behind() -> None:
    """As a client that hangs up early does."""
    with full_backlog() as port:
        async with no_new_tasks(), uplink(PATIENT) as path:
            asking = asyncio.create_task(ask(path, f"http://127.0.0.1:{port}/"))
            await asyncio.sleep(0.02)
            asking.cancel()
            await asyncio.wait((asking,))
            assert asking.cancelled()
            assert path.open_connections == 0


async def test_a_unix_socket_is_a_server_too(tmp_path: Path) -> None:
    """Kept like any other."""
    async with peer(answers(OK, OK), socket_path=tmp_path / "a b.sock") as node, uplink() as path:
        assert await ask(path, node.url) == b"ok"
        assert await ask(path, node.url) == b"ok"

    assert node.made == 1


@pytest.mark.parametrize("name", ["none.sock", "x" * 200])
async def test_a_unix_socket_that_is_not_there_is_a_failed_connection(
    tmp_path: Path, name: str
) -> None:
    """Also one whose path is longer than any may be."""
    url = f"http+unix://{str(tmp_path / name).replace('/', '%2F')}/"

    async with uplink() as path:
        with pytest.raises(ConnectFailed):
            await ask(path, url)


async def test_tls_carries_requests_and_keeps_its_connection() -> None:
    """With a body of either size."""
    size = 3_000_000

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            _, body = await read_request(reader)
            await send(writer, CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    async with peer(play, tls=server_tls()) as node, uplink(PATIENT, tls=client_tls()) as path:
        assert await ask(path, node.url, b"small") == b"small"
        assert await ask(path, node.url, bytes(size)) == bytes(size)

    assert node.made == 1


async def test_leaving_ends_a_request_over_tls_at_once() -> None:
    """As without."""
    gone = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        try:
            await reader.read()
        finally:
            gone.set()

    async with peer(play, tls=server_tls()) as node, uplink(PATIENT, tls=client_tls()) as path:
        async with path.open(node.url, body=b"{}", headers={}) as reply:
            await anext(reply.chunks())
        async with asyncio.timeout(0.25):
            await gone.wait()
        await until(lambda: path.open_connections == 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the server whose client went away
async def test_a_certificate_of_nobody_we_trust_is_refused() -> None:
    """By default only what the system trusts is."""
    async with peer(answers(OK), tls=server_tls()) as node, uplink(PATIENT) as path:
        with pytest.raises(ConnectFailed, match=r"(?i)certificate"):
            await ask(path, node.url)
        await until(lambda: path.open_connections == 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the server whose client went away
async def test_a_certificate_of_another_host_is_refused() -> None:
    """It was reached under a name that it does not have."""
    async with (
        peer(answers(OK), tls=server_tls()) as node,
        uplink(PATIENT, tls=client_tls()) as path,
    ):
        with pytest.raises(ConnectFailed, match=r"(?i)certificate"):
            await ask(path, node.url.replace("localhost", "127.0.0.1"))
        await until(lambda: path.open_connections == 0)


async def test_a_server_without_tls_is_no_server_with_it() -> None:
    """Nothing of the request is sent."""
    got = b""

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal got
        got = await reader.read(1 << 16)

    async with peer(play) as node, uplink(PATIENT, tls=client_tls()) as path:
        with pytest.raises(ConnectFailed):
            await ask(path, node.url.replace("http:", "https:"))
        await until(lambda: path.open_connections == 0)

    assert b"POST" not in got
