"""The stop string that ended an answer is told, and nothing else of the engine's insides."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import frame_of
from cortex_neuron.llamacpp.conversing import conversation
from cortex_neuron.llamacpp.stopping import StopReasons

TOKEN = frame_of({"choices": [{"index": 0, "delta": {"content": 'a "__verbose" one'}}]})
USAGE = frame_of({"choices": [], "usage": {"prompt_tokens": 1}})
DONE = b"data: [DONE]\n\n"


def closing(word: Any, reason: str = "stop", index: int = 0) -> bytes:
    """Return a closing chunk as llama.cpp sends it when it is asked for its insides."""
    choice = {"index": index, "delta": {}, "finish_reason": reason}
    return frame_of({"choices": [choice], "__verbose": {"stopping_word": word, "prompt": "x"}})


def read(stream: bytes, cuts: tuple[int, ...] = (), stops: tuple[str, ...] = ("END",)) -> bytes:
    """Return what comes out of a stream that comes in pieces."""
    rewriter = StopReasons(frozenset(stops))
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    told = [rewriter.feed(stream[start:end]) for start, end in itertools.pairwise(edges)]
    return b"".join([*told, rewriter.finish()])


def last_choice(stream: bytes) -> dict[str, Any]:
    """Return the choice of the only frame."""
    value = json.loads(stream.removeprefix(b"data: "))
    assert "__verbose" not in value
    choice: dict[str, Any] = value["choices"][0]
    return choice


def test_a_stop_string_is_the_reason() -> None:
    """Beside the finish reason, which is the same for a model that was done by itself."""
    told = last_choice(read(closing("END")))

    assert (told["finish_reason"], told["stop_reason"]) == ("stop", "END")


@pytest.mark.parametrize(
    ("word", "reason"),
    [("", "stop"), ("<|im_end|>", "stop"), ("END", "length"), (None, "stop"), ([], "stop")],
)
def test_no_other_end_has_a_reason(word: Any, reason: str) -> None:
    """Neither the model's own end, nor a stop string of its template, nor the limit."""
    assert "stop_reason" not in last_choice(read(closing(word, reason)))


@given(st.tuples(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999)))
def test_everything_else_passes_as_it_is(cuts: tuple[int, ...]) -> None:
    """Byte for byte and however it was cut; an unfinished end too."""
    stream = TOKEN + b": ping\n\n" + USAGE + DONE

    assert read(stream, cuts) == stream
    assert read(stream[:-1], cuts) == stream[:-1]
    whole = read(TOKEN + closing("END") + DONE, cuts)
    assert whole.startswith(TOKEN)
    assert whole.endswith(DONE)
    assert b'"stop_reason":"END"' in whole


def test_insides_are_asked_for_only_where_something_can_stop() -> None:
    """A request without stop strings is not slowed down by them."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    plain = conversation({**body, "stop": [""]}, knows_tools=True)
    stopping = conversation({**body, "stop": "END"}, knows_tools=True)

    assert "verbose" not in plain.bodies[0]
    assert plain.rewriting is None
    assert stopping.rewriting is not None
    assert stopping.bodies[0]["verbose"] is True
    assert stopping.bodies[0]["response_fields"] == ["stopping_word"]
