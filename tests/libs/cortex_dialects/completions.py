"""Completions for tests: events as engines may send them, and the bytes that carry them."""

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from orjson import dumps

from cortex_dialects import CompletionWriter, Usage
from cortex_dialects.completion_events import (
    CompletionEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)

texts = st.text(min_size=1, max_size=8)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(min_size=1, max_size=5), json_values, max_size=4
)
usages = st.builds(
    lambda prompt, completion, cached: Usage(
        prompt=prompt + (cached or 0), completion=completion, cached=cached
    ),
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.none() | st.integers(0, 99),
)


@st.composite
def calls(draw: st.DrawFn) -> list[list[ToolCallDelta]]:
    """Return some calls, each in pieces: who it is first, then its arguments, cut anywhere."""
    made = []
    for position in range(draw(st.integers(1, 3))):
        text = dumps(draw(objects)).decode()
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        first = ToolCallDelta(position, f"call_{position}", draw(names), pieces[0])
        made.append([first, *(ToolCallDelta(position, None, None, piece) for piece in pieces[1:])])
    return made


@st.composite
def answers(draw: st.DrawFn) -> list[CompletionEvent]:
    """Return one whole answer: thoughts and text in any order, calls, the finish, the usage."""
    events: list[CompletionEvent] = list(
        draw(
            st.lists(
                st.builds(TextDelta, texts, st.just(())) | st.builds(ReasoningDelta, texts),
                max_size=6,
            )
        )
    )
    reason = draw(st.sampled_from(["stop", "length", "content_filter", "engine's own"]))
    if draw(st.booleans()):
        events += [piece for call in draw(calls()) for piece in call]
        reason = draw(st.sampled_from(["tool_calls", "stop", "length"]))
    stop = draw(st.none() | texts) if reason == "stop" else None
    events.append(Finished(reason, stop))
    if draw(st.booleans()):
        events.append(UsageReported(draw(usages)))
    return events


#: Anything an engine could send, in an order that none should.
chaos = st.lists(
    st.builds(TextDelta, texts, st.just(()))
    | st.builds(ReasoningDelta, texts)
    | st.builds(
        ToolCallDelta,
        st.integers(0, 2),
        st.none() | names,
        st.none() | names,
        st.sampled_from(["", "{", '{"a":1}', "}", "nonsense"]),
    )
    | st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]))
    | st.builds(UsageReported, usages),
    max_size=12,
)


def stream_of(events: Iterable[CompletionEvent]) -> bytes:
    """Return the chat completion stream that says this."""
    writer = CompletionWriter(completion_id="c1", model="m", created=7)
    return b"".join([writer.open(), *(writer.take(event) for event in events), writer.close()])


def answer_of(events: Iterable[CompletionEvent]) -> dict[str, Any]:
    """Return the whole chat completion that says this."""
    writer = CompletionWriter(completion_id="c1", model="m", created=7)
    writer.open()
    for event in events:
        writer.take(event)
    return writer.answer()


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """Return the bytes cut at these places."""
    places = sorted({place % (len(data) + 1) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def merged(events: Iterable[CompletionEvent]) -> list[CompletionEvent]:
    """Return events with pieces of the same thing put together, empty ones left out."""
    out: list[CompletionEvent] = []
    for event in events:
        last = out[-1] if out else None
        match last, event:
            case TextDelta(before), TextDelta(text):
                out[-1] = TextDelta(before + text)
            case ReasoningDelta(before), ReasoningDelta(text):
                out[-1] = ReasoningDelta(before + text)
            case ToolCallDelta(position, call, name, before), ToolCallDelta(same, _, _, more) if (
                position == same
            ):
                out[-1] = ToolCallDelta(position, call, name, before + more)
            case _:
                out.append(event)
    return out
