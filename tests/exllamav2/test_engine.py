"""An engine as a node meets it: a process, a socket, and OpenAI's words on it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cortex_core.errors import (
    InvalidRequest,
    QueueFull,
)
from tests.exllamav2.engines import CHAT, HELLO, TEXT, Served, serving
from tests.exllamav2.tiny_models import CONTEXT, write_random, write_scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Bergen"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
COLOUR = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
    "required": ["ok", "colour"],
    "additionalProperties": False,
}


def schema(wanted: Any) -> dict[str, Any]:
    """Return a response format of this JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chance(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A model that says anything."""
    async with serving(write_random(tmp_path_factory.mktemp("models") / "chance")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speaker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A model that thinks, and then says a line in pieces."""
    pieces = ["<think>", "hm", "m", "</think>", "It is", " sunny", " in ", "Oslo", ". ", "🌍", "!"]
    async with serving(
        write_scripted(tmp_path_factory.mktemp("models") / "speaker", pieces)
    ) as made:
        yield made


async def test_a_stream_and_a_whole_answer_say_the_same(speaker: Served) -> None:
    """Thoughts apart from text, the emoji in one piece, usage in its own chunk, then the end."""
    whole = await speaker.chat()
    told = await speaker.chat(stream=True, stream_options={"include_usage": True})

    message = whole.body["choices"][0]["message"]
    assert message["content"] == told.text == "It is sunny in Oslo. 🌍!"
    assert message["reasoning_content"] == "hmm"
    assert whole.body["choices"][0]["finish_reason"] == "stop"
    assert told.chunks[-1]["choices"] == []
    assert told.chunks[-1]["usage"]["completion_tokens"] == 12
    assert whole.body["usage"]["completion_tokens"] == 12
    assert told.done


async def test_load_is_told_and_limits_are_known(speaker: Served) -> None:
    """A node sees how far a load is, and afterwards what the engine can hold."""
    assert speaker.progress[0] == (0, 5)
    assert speaker.progress[-1] == (5, 5)
    assert speaker.engine.slots == 4
    assert speaker.engine.context == CONTEXT
    assert speaker.engine.cache is not None
    assert speaker.engine.cache.pages == CONTEXT // 256
    assert speaker.engine.capabilities == ("chat", "completion")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_an_answer_wherever_tokens_are_cut(
    speaker: Served, stream: bool
) -> None:
    """It spans three tokens, and none of it is said."""
    answer = await speaker.chat(stop=["nny in Os"], stream=stream)

    if stream:
        last = answer.chunks[-1]["choices"][0]
        assert answer.text == "It is su"
    else:
        last = answer.body["choices"][0]
        assert last["message"]["content"] == "It is su"
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", "nny in Os")
    await speaker.idle()


async def test_an_answer_can_be_cut(speaker: Served) -> None:
    """`length` is not `stop`, and the tokens are counted."""
    answer = await speaker.chat(max_tokens=5)

    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert answer.body["usage"]["completion_tokens"] == 5


async def test_several_answers_have_their_numbers(chance: Served) -> None:
    """Each its own by its own seed; the prompt counts once."""
    answer = await chance.chat(n=3, temperature=1, seed=3, max_tokens=12)

    texts = [choice["message"]["content"] for choice in answer.body["choices"]]
    assert [choice["index"] for choice in answer.body["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    one = await chance.chat(max_tokens=1)
    assert answer.body["usage"]["prompt_tokens"] == one.body["usage"]["prompt_tokens"]
    assert answer.body["usage"]["completion_tokens"] == 36
    again = await chance.chat(n=3, temperature=1, seed=3, max_tokens=12)
    assert [choice["message"]["content"] for choice in again.body["choices"]] == texts


async def test_log_probabilities_are_told(chance: Served) -> None:
    """Every token of the text, with as many others as were asked for, the likeliest first."""
    chat = await chance.chat(logprobs=True, top_logprobs=2, max_tokens=6)
    text = await chance.ask(TEXT, prompt="the quick", logprobs=2, max_tokens=6, temperature=0)

    rows = chat.body["choices"][0]["logprobs"]["content"]
    assert len(rows) == 6
    for row in rows:
        assert row["top_logprobs"][0]["logprob"] == row["logprob"] < 0
        assert len(row["top_logprobs"]) == 2
    assert len(text.body["choices"][0]["logprobs"]["token_logprobs"]) == 6


async def test_a_schema_is_kept_to(chance: Served) -> None:
    """A model that says anything says nothing else."""
    for seed in range(3):
        answer = await chance.chat(
            response_format=schema(COLOUR), temperature=1, seed=seed, max_tokens=400
        )
        said = json.loads(answer.body["choices"][0]["message"]["content"])
        assert said.keys() == {"ok", "colour"}
        assert said["colour"] in ("red", "green")
        assert answer.body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("body", "pattern"),
    [
        ({"guided_regex": "[a-c]{5}x"}, r"[a-c]{5}x"),
        ({"guided_choice": ["north", "south"]}, "north|south"),
        ({"guided_grammar": 'start: "a"+ "b"'}, "a+b"),
    ],
)
async def test_other_grammars_are_kept_to(
    chance: Served, body: dict[str, Any], pattern: str
) -> None:
    """Expressions, choices and grammars."""
    import re  # noqa: PLC0415

    answer = await chance.ask(TEXT, prompt="say", seed=1, max_tokens=200, **body)

    assert re.fullmatch(pattern, answer.body["choices"][0]["text"])


async def test_a_schema_that_cannot_be_used_is_refused(chance: Served) -> None:
    """Never passed over: unconstrained words in a promised form would be a lie."""
    answer = await chance.chat(response_format=schema({"type": "nonsense"}))

    assert answer.status == 400
    assert answer.error["param"] == "response_format"


async def test_a_call_that_is_required_is_made(chance: Served) -> None:
    """By a model that was never taught to, with arguments by the tool's schema."""
    answer = await chance.chat(
        tools=[WEATHER], tool_choice="required", temperature=1, seed=2, max_tokens=400
    )

    (call,) = answer.body["choices"][0]["message"]["tool_calls"][:1]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Oslo", "Bergen")
    assert answer.body["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_is_told_apart_from_text(tmp_path: Path) -> None:
    """Whole and streamed: the markup of a call is not text, and the answer ends in it."""
    pieces = ["One ", "moment.\n", '<tool_call>\n{"name": "wea', 'ther", "arguments": {"city":']
    model = write_scripted(tmp_path / "m", [*pieces, ' "Oslo"}}\n</tool_', "call>"])
    async with serving(model) as engine:
        whole = await engine.chat(tools=[WEATHER])
        told = await engine.chat(tools=[WEATHER], stream=True)
        plain = await engine.chat()

    message = whole.body["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert message["content"].strip() == told.text.strip() == "One moment."
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert whole.body["choices"][0]["finish_reason"] == "tool_calls"
    assert told.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "<tool_call>" in plain.body["choices"][0]["message"]["content"]


async def test_a_prompt_is_cached(chance: Served) -> None:
    """The second request says how much of its prompt was known."""
    long = [{"role": "user", "content": "the lazy dog " * 120}]
    first = await chance.chat(messages=long, max_tokens=4)
    second = await chance.chat(messages=long, max_tokens=4)

    prompt = second.body["usage"]["prompt_tokens"]
    assert prompt > 256
    assert second.body["usage"]["prompt_tokens_details"]["cached_tokens"] == prompt - 1
    assert second.body["choices"] == first.body["choices"]


async def test_whoever_hangs_up_takes_the_work_along(chance: Served) -> None:
    """Streamed or whole: soon after the connection is gone the engine works on nothing."""
    for stream in (True, False):
        body: dict[str, Any] = {
            "messages": HELLO,
            "max_tokens": 1500,
            "ignore_eos": True,
            "stream": stream,
        }
        asking = asyncio.create_task(chance.ask(**body))
        await chance.until(lambda said: any(job["generated_tokens"] for job in said["jobs"]))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        left = asyncio.get_running_loop().time()
        await chance.idle()

        assert asyncio.get_running_loop().time() - left < 1.0


async def test_the_queue_has_an_end(chance: Served) -> None:
    """Eight are taken (four at a time, four wait), the ninth is told to come again."""
    body: dict[str, Any] = {
        "messages": HELLO,
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": True,
    }
    crowd = [asyncio.create_task(chance.ask(**body)) for _ in range(8)]
    await chance.until(lambda said: len(said["jobs"]) == 8)
    refused = await chance.chat()
    for one in crowd:
        one.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    assert refused.status == 503
    assert isinstance(chance.engine.refusal(refused.status, refused.body), QueueFull)
    await chance.idle()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/embeddings", {"input": "x"}, "wrong_modality"),
        (CHAT, {"messages": HELLO, "beam_width": 4}, "unsupported_parameter"),
        (CHAT, {"messages": HELLO, "echo": True}, "unsupported_parameter"),
        (TEXT, {"prompt": "the " * 3000}, "context_length_exceeded"),
        (TEXT, {"prompt": []}, "invalid_request_body"),
        (TEXT, {"prompt": [999999]}, "invalid_request_body"),
        (CHAT, {"messages": []}, "invalid_request_body"),
        (CHAT, {"messages": HELLO, "temperature": 9}, "invalid_request_body"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "vision_unsupported",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused(
    chance: Served, path: str, body: dict[str, Any], code: str
) -> None:
    """With a reason, before it costs anything, streamed or not, and as the node's own error."""
    for stream in (False, True):
        answer = await chance.ask(path, **body, stream=stream)
        error = chance.engine.refusal(answer.status, answer.body)

        assert answer.status == 400
        assert answer.error["code"] == code
        assert isinstance(error, InvalidRequest)
        assert (error.code, error.message) == (code, answer.error["message"])


async def test_tokens_are_counted(chance: Served) -> None:
    """As many as the answer says its prompt had."""
    counted = await chance.ask("/tokenize", messages=HELLO)
    answer = await chance.chat(max_tokens=1)

    assert counted.body["count"] == answer.body["usage"]["prompt_tokens"]
