"""What a client gets of a node's stream is the same however the node's bytes come."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import CompletionStream, UsageChunk, says_more
from cortex_gateway.accounting import Outcome
from cortex_gateway.passing import Passage
from cortex_gateway.responding import EventResponse
from cortex_uplink import whole_frames
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.chunk_decoder import ChunkDecoder
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from tests.libs.cortex_dialects.streams import DONE, HELLO, ROLE, USAGE, delta, frame
from tests.libs.cortex_uplink.fronts import exchange, front
from tests.libs.cortex_uplink.peers import CHUNKED, PATIENT, peer, read_request, uplink

ASK = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
START = frame(ROLE) + frame(delta("first"))
TOKENS = [frame(delta(f"token {number}")) for number in range(20)]
FINISH = frame(delta(None, finish_reason="stop"))
LONG = START + b"".join(TOKENS) + FINISH + frame(USAGE) + DONE
USAGE_IN_TOKEN = frame({**delta("x"), "usage": USAGE["usage"]})
WITH_ERROR = START + b"".join(TOKENS[:5]) + frame({"error": {"message": "no", "type": "api_error"}})


class CountedPassage(Passage):
    """Knows how often bytes passed as they came."""

    raw = 0

    def take_chunks(self, data: bytes) -> bool:
        """Count."""
        took = super().take_chunks(data)
        type(self).raw += took
        return took


def chunk(data: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def passed(pieces: Sequence[bytes], usage: UsageChunk = UsageChunk.PASS) -> tuple[bytes, int]:
    """Return what a client gets of a stream whose bytes come in `pieces`, and how often raw."""
    CountedPassage.raw = 0
    seen: list[bool] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in (CHUNKED, *pieces):
            writer.write(piece)
            for _ in range(3):  # so that it is read by itself
                await asyncio.sleep(0)

    async with peer(play) as node, uplink(PATIENT) as path:

        async def handle(request: ClientRequest, _: ClientWriter) -> None:
            stream = CompletionStream(usage)
            outcome = Outcome(request_id="r", route="/", principal="p", dialect="openai")
            events = EventResponse(request, stream, outcome, 60)
            async with path.open(node.url, body=b"{}", headers={}) as answer:
                await CountedPassage(stream, events, outcome).relay(answer)
            if rest := stream.finish():
                events.write(rest)
            await events.end()
            seen.append(stream.first_token_seen and outcome.first_token is not None)

        async with front(handle) as made:
            heard = await exchange(made.port, ASK)
    parser = AnswerParser()
    body = parser.feed(heard)
    assert parser.complete
    assert not parser.excess
    assert seen == [True]
    return body, CountedPassage.raw


def meant(stream: bytes, usage: UsageChunk = UsageChunk.PASS) -> bytes:
    """Return what a client gets of a stream that comes at once."""
    whole = CompletionStream(usage)
    return whole.feed(stream) + whole.finish()


async def test_tokens_pass_as_they_came() -> None:
    """Without being looked at one by one; what says more is read."""
    frames = [frame(ROLE), frame(delta("first")), *TOKENS, FINISH, frame(USAGE), DONE]
    body, raw = await passed([*map(chunk, frames), b"0\r\n\r\n"])

    assert body == LONG
    assert raw >= len(TOKENS) / 2


@pytest.mark.parametrize("usage", UsageChunk)
async def test_usage_is_treated_alike_on_either_way(usage: UsageChunk) -> None:
    """Withheld, passed, or told where the node did not."""
    for frames in (
        [START, *TOKENS, FINISH, frame(USAGE), DONE],
        [START, *TOKENS, FINISH + frame(USAGE), DONE],
        [START, *TOKENS, USAGE_IN_TOKEN, FINISH, DONE],
    ):
        body, raw = await passed([*map(chunk, frames), b"0\r\n\r\n"], usage)

        assert body == meant(b"".join(frames), usage)
        assert (body.count(b'"usage"') > 0) is (
            usage is not UsageChunk.WITHHOLD or USAGE_IN_TOKEN in frames
        )
        assert raw > 0


@pytest.mark.parametrize(
    "inside", [b'"usa', b"[DO", b'"finish_rea', b'"erro', b'"finish_reason":n']
)
async def test_a_word_that_says_more_is_seen_though_it_is_cut(inside: bytes) -> None:
    """In the middle of a chunk's bytes, and by the end of a chunk."""
    stream = WITH_ERROR if inside == b'"erro' else LONG
    at = stream.rindex(inside) + len(inside)
    head, tail = stream[:at], stream[at:]
    expected = meant(stream, UsageChunk.WITHHOLD)
    whole = b"".join(map(chunk, _frames(stream)))
    place = whole.rindex(inside) + len(inside)

    for pieces in (
        [chunk(START), chunk(head[len(START) :]), chunk(tail)],
        [chunk(head), chunk(tail)],
        [whole[:place], whole[place:]],
    ):
        body, _ = await passed([*pieces, b"0\r\n\r\n"], UsageChunk.WITHHOLD)
        assert body == expected


async def test_a_chunk_that_ends_inside_a_frame_is_put_together() -> None:
    """And whole ones after it pass again."""
    half = len(TOKENS[3]) // 2
    frames = [START, *TOKENS[:3], TOKENS[3][:half], TOKENS[3][half:], *TOKENS[4:], FINISH, DONE]
    body, raw = await passed([*map(chunk, frames), b"0\r\n\r\n"])

    assert body == b"".join(frames)
    assert raw > 0


@pytest.mark.parametrize("stream", [LONG, HELLO, WITH_ERROR], ids=["long", "hello", "error"])
@pytest.mark.parametrize("seed", range(12))
async def test_cuts_change_nothing(stream: bytes, seed: int) -> None:
    """Neither where chunks end, nor where what is read at a time does."""
    random = Random(seed)
    usage = random.choice(list(UsageChunk))
    parts = list(_frames(stream)) if seed % 3 else list(_cut(random, stream, 12))
    raw = b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    pieces = [raw] if seed == 0 else list(_cut(random, raw, 25))
    if seed % 4 == 1:  # each chunk by itself, some cut in their first line
        pieces = [
            piece
            for part in map(chunk, parts)
            for piece in (_cut(random, part, 1) if random.randrange(2) else [part])
        ] + [b"0\r\n\r\n"]
    body, _ = await passed(pieces, usage)

    assert body == meant(stream, usage)


async def test_a_cut_in_the_line_of_a_size_leads_nowhere() -> None:
    """Between its CR and LF, behind a chunk of nearly that size: it once hung everything."""
    first = frame(delta("a"))
    for gap in range(1, 12):
        second = first[:-2] + b" " * gap + b"\n\n"
        lines = chunk(first) + chunk(second)
        at = lines.index(b"\r\n", len(chunk(first))) + 1
        body, _ = await passed([chunk(START), lines[:at], lines[at:] + b"0\r\n\r\n"])
        assert body == START + first + second


async def test_half_a_size_is_not_taken_for_a_whole_one() -> None:
    """A chunk that has chunks inside, cut in its size, looks like those."""
    inside = b": xxxx\n\n\r\nb\r\n: yyyyyyy\n\n"
    line = chunk(inside)
    assert line.startswith(b"18\r\n")
    assert whole_frames(line[1:])

    for pieces in (
        [chunk(START), line[:1], line[1:]],
        [chunk(START) + line[:1], line[1:]],
    ):
        body, _ = await passed([*pieces, b"0\r\n\r\n"])
        assert body == START + inside


@given(
    st.lists(st.sampled_from([*TOKENS[:3], FINISH, frame(USAGE), b": x\n\n", b"\n\n"]), max_size=6),
    st.lists(st.integers(0, 3000), max_size=4),
    st.lists(st.integers(0, 3000), max_size=8),
    st.sampled_from(UsageChunk),
)
def test_either_way_says_the_same(
    frames: list[bytes], chunk_places: list[int], places: list[int], usage: UsageChunk
) -> None:
    """Whatever may pass as it came is what would have come of it by reading."""
    stream = START + b"".join(frames) + DONE
    read = CompletionStream(usage)
    parser, decoder = AnswerParser(), ChunkDecoder()
    parser.feed(CHUNKED)
    out: list[bytes] = []
    passes = False
    for piece in _at(b"".join(map(chunk, _at(stream, chunk_places))), places):
        if passes and not says_more(piece) and whole_frames(piece):
            decoder.feed(piece, out)
        else:
            body = parser.feed(piece)
            out.append(read.feed(body))
            passes = bool(body) and read.steady and parser.between_chunks

    assert b"".join(out) + read.finish() == meant(stream, usage)


def _at(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges) if end > start]


def _frames(stream: bytes) -> Iterator[bytes]:
    return (part + b"\n\n" for part in stream.split(b"\n\n") if part)


def _cut(random: Random, raw: bytes, most: int) -> Iterator[bytes]:
    places = sorted(random.randrange(1, len(raw)) for _ in range(random.randint(1, most)))
    return (raw[start:end] for start, end in pairwise([0, *places, len(raw)]) if end > start)
