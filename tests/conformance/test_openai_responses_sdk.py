"""The official OpenAI SDK's Responses, and chat with tools, against a real cortex."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import BaseModel, ConfigDict, Field

from tests.conformance.scripted import (
    SCRIPTED,
    Fleet,
    Turn,
    arguments,
    lost_after,
    refused,
    script,
    scripted_fleet,
)
from tests.fleet.conversations import in_flight
from tests.fleet.processes import eventually
from tests.libs.cortex_dialects.streams import ROLE, delta, frame

pytestmark = pytest.mark.fleet

#: How to ask the small model: briefly, and for the same answer each time.
BRIEF: Any = {"model": "demo", "max_output_tokens": 16, "input": "Say hello.", "temperature": 0}
ASK: Any = {"model": SCRIPTED, "input": "Say hello."}
CHAT: Any = {"model": SCRIPTED, "messages": [{"role": "user", "content": "Say hello."}]}
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False},
    {"type": "function", "name": "clock", "parameters": {"type": "object"}, "strict": False},
]
CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}},
]
PARIS = ("call_1", "weather", arguments(city='Paris "\u00e9"'))
CLOCK = ("call_2", "clock", "{}")
ROME = ("call_3", "weather", arguments(city="Rome"))


class Greeting(BaseModel):
    """A structured answer that the small model has room for."""

    model_config = ConfigDict(extra="forbid")

    greeting: str = Field(max_length=12)


@pytest.fixture(scope="module")
def fleet_of_module(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Fleet]:
    """Daemons for the whole file."""
    with scripted_fleet(tmp_path_factory.mktemp("responses"), demo_model) as made:
        yield made


@pytest.fixture
def fleet(fleet_of_module: Fleet) -> Iterator[Fleet]:
    """The daemons, with nothing in the script."""
    fleet_of_module.node.reply = None
    yield fleet_of_module
    fleet_of_module.node.reply = None


@pytest.fixture(scope="module")
def client(fleet_of_module: Fleet) -> Iterator[OpenAI]:
    """The SDK's client, as strict as it can be."""
    with OpenAI(
        base_url=fleet_of_module.openai_url,
        api_key="k",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


def told(client: OpenAI, *, stream: bool, **asked: Any) -> Response:
    """Return the same answer whole or as the SDK puts a stream together."""
    if not stream:
        whole: Response = client.responses.create(**{**ASK, **asked})
        return whole
    with client.responses.stream(**{**ASK, **asked}) as events:
        return events.get_final_response()


def items(response: Response) -> list[dict[str, Any]]:
    """Return the output as the client would send it back."""
    return [item.model_dump(exclude_none=True) for item in response.output]


def calls(response: Response) -> list[tuple[str, str, Any]]:
    """Return the calls of an answer."""
    return [
        (item.call_id, item.name, json.loads(item.arguments))
        for item in response.output
        if item.type == "function_call"
    ]


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def test_a_response(client: OpenAI) -> None:
    """Its text, its end and its usage."""
    answer = client.responses.create(**BRIEF)

    assert answer.output_text
    assert (answer.status, answer.model, answer.object) == ("incomplete", "demo", "response")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 16


def test_an_alias_with_a_pattern_answers(client: OpenAI) -> None:
    """On every route, under the name that the client used."""
    answer = client.responses.create(**{**BRIEF, "model": "gpt-5.1-codex"})
    chat = client.chat.completions.create(
        model="gpt-9", messages=CHAT["messages"], max_tokens=1, temperature=0
    )

    assert answer.model == "gpt-5.1-codex"
    assert chat.choices[0].message.content
    assert client.models.retrieve("gpt-5.1-codex").id == "gpt-5.1-codex"


def test_a_stream_says_what_the_whole_response_says(client: OpenAI) -> None:
    """By the helper and by the bare events, which are numbered."""
    whole = client.responses.create(**BRIEF)
    with client.responses.stream(**BRIEF) as stream:
        events = list(stream)
    bare = list(client.responses.create(**BRIEF, stream=True))

    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text
    assert [event.sequence_number for event in bare] == list(range(len(bare)))
    assert [event.type for event in bare[:2]] == ["response.created", "response.in_progress"]
    last = bare[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == text
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 16


async def test_the_async_client(fleet: Fleet) -> None:
    """Whole, streamed, counted."""
    async with AsyncOpenAI(base_url=fleet.openai_url, api_key="k", max_retries=0) as client:
        whole = await client.responses.create(**BRIEF)
        pieces = [
            event.delta
            async for event in await client.responses.create(**BRIEF, stream=True)
            if event.type == "response.output_text.delta"
        ]
        counted = await client.responses.input_tokens.count(model="demo", input="Say hello.")

    assert "".join(pieces) == whole.output_text
    assert counted.input_tokens > 0


@both_ways
def test_tools_over_three_turns(client: OpenAI, fleet: Fleet, stream: bool) -> None:
    """Two calls at once, their results, one more call, and the answer."""
    fleet.node.reply = script(
        Turn(text="I look.", calls=[PARIS, CLOCK]), Turn(calls=[ROME]), Turn(text="Sunny.")
    )
    said: list[Any] = [{"role": "user", "content": "Say hello."}]
    asked: Any = {"stream": stream, "tools": TOOLS, "input": said}

    first = told(client, **asked)
    assert (first.status, first.output_text) == ("completed", "I look.")
    assert calls(first) == [(id_, name, json.loads(text)) for id_, name, text in (PARIS, CLOCK)]
    said += items(first)
    said += [
        {"type": "function_call_output", "call_id": "call_1", "output": "12 degrees"},
        {"type": "function_call_output", "call_id": "call_2", "output": "noon"},
    ]

    second = told(client, **asked, tool_choice="required", parallel_tool_calls=False)
    assert calls(second) == [("call_3", "weather", {"city": "Rome"})]
    body = fleet.received()
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "tool", "tool"]
    assert body["messages"][1]["content"] == "I look."
    assert [call["id"] for call in body["messages"][1]["tool_calls"]] == ["call_1", "call_2"]
    said += items(second)
    said.append({"type": "function_call_output", "call_id": "call_3", "output": "sun"})

    third = told(client, **asked)
    assert (third.status, third.output_text) == ("completed", "Sunny.")
    assert [turn["role"] for turn in fleet.received()["messages"]] == [
        *("user", "assistant", "tool", "tool"),
        *("assistant", "tool"),
    ]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_the_arguments_of_a_call_arrive_piece_by_piece(
    client: OpenAI, fleet: Fleet, side_by_side: bool
) -> None:
    """The pieces are those that the node sent, and the last event has the whole."""
    fleet.node.reply = script(Turn(calls=[PARIS, CLOCK], side_by_side=side_by_side))
    pieces: dict[int, str] = {}
    done: dict[int, str] = {}
    for event in client.responses.create(**ASK, tools=TOOLS, stream=True):
        if event.type == "response.function_call_arguments.delta":
            pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
        elif event.type == "response.function_call_arguments.done":
            done[event.output_index] = event.arguments

    assert pieces == done == {0: PARIS[2], 1: CLOCK[2]}


@both_ways
def test_thoughts_are_items_of_their_own(client: OpenAI, fleet: Fleet, stream: bool) -> None:
    """And go back to the model that had them."""
    fleet.node.reply = script(Turn(thoughts="Hm, well.", calls=[ROME]), Turn(text="Done."))
    first = told(client, stream=stream, tools=TOOLS, reasoning={"effort": "high"})
    result = {"type": "function_call_output", "call_id": "call_3", "output": "sun"}
    asked: Any = [{"role": "user", "content": "Say hello."}, *items(first), result]
    told(client, stream=stream, tools=TOOLS, input=asked)

    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    assert "Hm, well." in json.dumps(items(first)[0])
    assert fleet.received()["messages"][1]["reasoning_content"] == "Hm, well."


def test_a_structured_response_is_parsed(client: OpenAI) -> None:
    """By the SDK, into the class that was asked for."""
    asked = {**BRIEF, "max_output_tokens": 60}
    whole = client.responses.parse(**asked, text_format=Greeting)
    with client.responses.stream(**asked, text_format=Greeting) as stream:
        streamed = stream.get_final_response()

    assert isinstance(whole.output_parsed, Greeting)
    assert streamed.output_parsed == whole.output_parsed


def test_a_structured_chat_answer_is_parsed(client: OpenAI) -> None:
    """By the SDK, into the class that was asked for."""
    answer = client.chat.completions.parse(
        model="demo",
        messages=CHAT["messages"],
        max_tokens=60,
        temperature=0,
        response_format=Greeting,
    )

    assert isinstance(answer.choices[0].message.parsed, Greeting)


def test_tokens_are_counted_as_the_model_counts_them(client: OpenAI) -> None:
    """What is counted before is what is used after."""
    asked: Any = {"model": "demo", "input": "Say hello.", "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(**asked)
    usage = client.responses.create(**asked, max_output_tokens=16).usage

    assert counted.object == "response.input_tokens"
    assert usage is not None
    assert counted.input_tokens == usage.input_tokens


@both_ways
def test_everything_else_that_the_sdk_can_ask_is_taken(
    client: OpenAI, fleet: Fleet, stream: bool
) -> None:
    """What a node can do reaches it; what only OpenAI's servers do does not."""
    fleet.node.reply = script(Turn(thoughts="Hm.", text="Yes.", calls=[ROME]))
    tool = {**TOOLS[0], "defer_loading": True, "allowed_callers": ["direct"], "strict": True}
    asked: Any = {
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief.",
        "max_output_tokens": 16,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "prompt_cache_key": "a-key",
        "prompt_cache_retention": "in_memory",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "someone",
        "service_tier": "auto",
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": "auto",
        "tools": [tool],
        "top_logprobs": 0,
        "top_p": 0.9,
        "truncation": "auto",
        "user": "someone",
    }
    answer = told(client, stream=stream, **asked)

    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert (answer.metadata, answer.prompt_cache_key) == ({"a": "b"}, "a-key")
    body = fleet.received()
    assert {name: body[name] for name in ("max_tokens", "temperature", "top_p")} == {
        "max_tokens": 16,
        "temperature": 0.5,
        "top_p": 0.9,
    }
    # Fields of the same name and meaning in both dialects are the only ones left.
    both = {"model", "temperature", "top_p", "parallel_tool_calls", "tool_choice", "tools"}
    both |= {"stream", "stream_options"}
    assert set(body) & set(ResponseCreateParamsBase.__annotations__) <= both


@both_ways
@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "not kept"),
        ({"conversation": "conv_1"}, "conversation", "not kept"),
        ({"background": True}, "background", "not kept"),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
            "tools[0]",
            "run by OpenAI",
        ),
    ],
    ids=["previous response", "conversation", "background", "hosted tool"],
)
def test_what_needs_openais_own_servers_is_refused(
    client: OpenAI, asked: Any, param: str, words: str, stream: bool
) -> None:
    """With the name of the parameter and what to do instead."""
    with pytest.raises(openai.BadRequestError) as caught:
        told(client, stream=stream, **asked)

    assert caught.value.param == param
    assert words in caught.value.message


@both_ways
@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"model": "nothing"}, openai.NotFoundError, "model_not_found"),
        ({"input": 7}, openai.BadRequestError, "invalid_request_body"),
        (
            {"model": "demo", "input": "word " * 2000},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"input": "word " * 300_000}, openai.APIStatusError, "request_too_large"),
    ],
    ids=["model", "input", "context", "size"],
)
def test_refusals_are_the_sdks_own_classes(
    client: OpenAI, asked: Any, error: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    """With the code that clients act on, and the request's name."""
    with pytest.raises(error) as caught:
        told(client, stream=stream, **asked)

    assert caught.value.code == code
    assert caught.value.request_id


@both_ways
@pytest.mark.parametrize(
    ("status", "becomes", "retry"), [(429, 503, "3"), (503, 503, "3"), (500, 502, None)]
)
def test_a_nodes_failures_are_the_sdks_own_classes(
    client: OpenAI, fleet: Fleet, status: int, becomes: int, retry: str | None, stream: bool
) -> None:
    """When to try again is told if and only if it can help."""
    fleet.node.reply = refused(status, "thread panicked at /srv/secret.rs", retry_after="3")
    with pytest.raises(openai.InternalServerError) as caught:
        told(client, stream=stream)

    assert caught.value.status_code == becomes
    assert caught.value.response.headers.get("retry-after") == retry


def test_a_request_is_named(client: OpenAI, fleet: Fleet) -> None:
    """In the answer, by ours or by the client's own name."""
    fleet.node.reply = script(*[Turn(text="Yes.")] * 2)
    answer = client.responses.create(**ASK)
    mine = client.responses.with_raw_response.create(**ASK, extra_headers={"x-request-id": "mine"})

    assert answer._request_id  # noqa: SLF001  # the SDK's public name for it
    assert mine.headers["x-request-id"] == "mine"


def test_the_sdk_gets_through_when_it_tries_again(client: OpenAI, fleet: Fleet) -> None:
    """A node that was busy for a moment is not noticed."""
    fleet.node.reply = script(refused(503, "busy", retry_after="1"), Turn(text="Here."))
    patient = client.with_options(max_retries=2)

    assert told(patient, stream=False).output_text == "Here."


def test_a_node_lost_in_the_middle_is_a_failed_response(client: OpenAI, fleet: Fleet) -> None:
    """What came is there, and the last event says that it is not whole."""
    fleet.node.reply = lost_after(frame(ROLE), frame(delta("Hel")))
    events = list(client.responses.create(**ASK, stream=True))

    assert [e.delta for e in events if e.type == "response.output_text.delta"] == ["Hel"]
    last = events[-1]
    assert last.type == "response.failed"
    assert (last.response.status, last.response.output) == ("failed", [])
    assert last.response.error is not None
    assert last.response.error.code == "server_error"


def test_a_chat_lost_in_the_middle_raises(client: OpenAI, fleet: Fleet) -> None:
    """The SDK's own error, after what came."""
    fleet.node.reply = lost_after(frame(ROLE), frame(delta("Hel")))
    stream = client.chat.completions.create(**CHAT, stream=True)
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="the node was lost"):
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    assert "".join(pieces) == "Hel"


def test_a_cancelled_stream_frees_its_seat(client: OpenAI, fleet: Fleet) -> None:
    """In the engine, too."""
    with client.responses.stream(**{**BRIEF, "max_output_tokens": 400}) as stream:
        next(event for event in stream if event.type == "response.output_text.delta")
        assert in_flight(fleet.neuron, "demo") == 1

    eventually(lambda: in_flight(fleet.neuron, "demo") == 0, within=1.0)


def test_chat_tools_over_three_turns(client: OpenAI, fleet: Fleet) -> None:
    """Streamed: the SDK puts together the calls that the node made."""
    fleet.node.reply = script(
        Turn(text="I look.", calls=[PARIS, CLOCK]), Turn(calls=[ROME]), Turn(text="Sunny.")
    )
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Say hello."},
    ]
    asked: Any = {"model": SCRIPTED, "messages": messages, "tools": CHAT_TOOLS}
    reasons = []
    for made in ([PARIS, CLOCK], [ROME], []):
        with client.chat.completions.stream(**asked) as stream:
            (choice,) = stream.get_final_completion().choices
        reasons.append(choice.finish_reason)
        found = choice.message.tool_calls or []
        assert [(c.id, c.function.name, c.function.arguments) for c in found] == made
        messages.append(choice.message.model_dump(exclude_none=True, exclude={"parsed"}))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in found]

    assert reasons == ["tool_calls", "tool_calls", "stop"]
    assert messages[-1]["content"] == "Sunny."
    # The bytes are the client's own: a node speaks this dialect.
    assert fleet.received()["messages"][0] == {"role": "developer", "content": "Be brief."}
    assert [turn["role"] for turn in fleet.received()["messages"]] == [
        *("developer", "user", "assistant", "tool", "tool"),
        *("assistant", "tool"),
    ]


def test_the_developers_words_reach_the_small_model(client: OpenAI) -> None:
    """As its system prompt: the same tokens, the same answer."""
    answers = []
    for role in ("developer", "system"):
        said: Any = {"role": role, "content": "Answer in French."}
        messages = [said, *CHAT["messages"]]
        answers.append(
            client.chat.completions.create(
                model="demo", messages=messages, max_tokens=8, temperature=0
            )
        )

    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    usages = [answer.usage for answer in answers]
    assert usages[0] is not None
    assert usages[1] is not None
    assert usages[0].prompt_tokens == usages[1].prompt_tokens
