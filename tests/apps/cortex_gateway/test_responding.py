"""A stream's company ends with the stream."""

import asyncio

import pytest

from cortex_dialects import CompletionStream
from cortex_gateway import responding
from cortex_gateway.accounting import Outcome
from cortex_gateway.responding import EventResponse
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from tests.libs.cortex_uplink.fronts import exchange, front

ASK = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def heard(secs: float, data: bytes) -> bytes:
    """Return all that a client gets of a stream that says `data` after `secs`."""

    async def handle(request: ClientRequest, _: ClientWriter) -> None:
        outcome = Outcome(request_id="r", route="/", principal="p", dialect="openai")
        events = EventResponse(request, CompletionStream(), outcome, 0)
        events.keep_alive()
        await asyncio.sleep(secs)
        events.write(data)
        await events.end()
        # Whoever waits for the client to take the rest has not stopped it yet.
        await asyncio.sleep(0.1)
        events.stop()

    async with front(handle) as made:
        return await exchange(made.port, ASK)


async def test_silence_is_filled_and_what_follows_the_end_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client would read it as the next answer."""
    monkeypatch.setattr(responding, "KEEP_ALIVE_SECS", 0.01)
    parser = AnswerParser()
    body = parser.feed(await heard(0.1, b"data: [DONE]\n\n"))

    assert parser.complete
    assert not parser.excess
    assert body.startswith(b": keep-alive\n\n" * 2)
    assert body.endswith(b"data: [DONE]\n\n")
