"""The official Anthropic SDK, unchanged, against a real cortex."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, ThreadNotFoundError
from anthropic.types.beta.message_create_params import (
    MessageCreateParamsBase as BetaMessageCreateParamsBase,
)
from anthropic.types.message_create_params import MessageCreateParamsBase

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

HELLO: Any = [{"role": "user", "content": "Say hello."}]
#: How to ask the small model: briefly, and for the same answer each time.
BRIEF: Any = {
    "model": "demo",
    "max_tokens": 8,
    "messages": HELLO,
    "extra_body": {"temperature": 0},
}
ASK: Any = {"model": SCRIPTED, "max_tokens": 64, "messages": HELLO}
TOOLS: Any = [
    {
        "name": "weather",
        "description": "The weather of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
]
PARIS = ("call_1", "weather", arguments(city="Paris", days=[1, 2], note='say "hi" \u00e9'))
CLOCK = ("call_2", "clock", "{}")
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()


@pytest.fixture(scope="module")
def fleet_of_module(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Fleet]:
    """Daemons for the whole file."""
    with scripted_fleet(tmp_path_factory.mktemp("anthropic"), demo_model) as made:
        yield made


@pytest.fixture
def fleet(fleet_of_module: Fleet) -> Iterator[Fleet]:
    """The daemons, with nothing in the script."""
    fleet_of_module.node.reply = None
    yield fleet_of_module
    fleet_of_module.node.reply = None


@pytest.fixture(scope="module")
def client(fleet_of_module: Fleet) -> Iterator[Anthropic]:
    """The SDK's client, as strict as it can be."""
    with Anthropic(
        base_url=fleet_of_module.url, api_key="k", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


def blocks(message: Message) -> list[dict[str, Any]]:
    """Return the content of a message as the client would send it back."""
    return [block.model_dump(exclude_none=True) for block in message.content]


def told(client: Anthropic, *, stream: bool, **asked: Any) -> Message:
    """Return the same answer whole or as the SDK puts a stream together."""
    if not stream:
        whole: Message = client.messages.create(**{**ASK, **asked})
        return whole
    with client.messages.stream(**{**ASK, **asked}) as events:
        return events.get_final_message()


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def test_a_message(client: Anthropic) -> None:
    """Its text, its end and its usage."""
    answer = client.messages.create(**BRIEF)

    (block,) = answer.content
    assert block.type == "text"
    assert block.text
    assert (answer.role, answer.stop_reason, answer.model) == ("assistant", "max_tokens", "demo")
    assert answer.usage.output_tokens == 8
    assert answer.id.startswith("msg_")


def test_an_alias_with_a_pattern_answers(client: Anthropic) -> None:
    """Under the name that the client used."""
    answer = client.messages.create(**{**BRIEF, "model": "claude-opus-5-5"})

    assert answer.model == "claude-opus-5-5"
    assert answer.content


def test_a_stream_says_what_the_whole_message_says(client: Anthropic) -> None:
    """By the helper and by the bare events."""
    whole = client.messages.create(**BRIEF)
    with client.messages.stream(**BRIEF) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    bare = list(client.messages.create(**BRIEF, stream=True))

    assert blocks(final) == blocks(whole)
    assert text == blocks(whole)[0]["text"]
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 8
    kinds = [event.type for event in bare]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


async def test_the_async_client(fleet: Fleet) -> None:
    """Whole, streamed, counted."""
    async with AsyncAnthropic(base_url=fleet.url, api_key="k", max_retries=0) as client:
        whole = await client.messages.create(**BRIEF)
        async with client.messages.stream(**BRIEF) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        counted = await client.messages.count_tokens(model="demo", messages=HELLO)

    assert blocks(final) == blocks(whole)
    assert text
    assert counted.input_tokens > 0


@both_ways
@pytest.mark.parametrize(
    "system",
    [
        "Be brief.\n\nBe kind.",
        [
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
    ],
    ids=["string", "blocks"],
)
def test_a_system_prompt_reaches_the_model(
    client: Anthropic, fleet: Fleet, system: Any, stream: bool
) -> None:
    """However it was written."""
    fleet.node.reply = script(Turn(text="Yes."))
    answer = told(client, stream=stream, system=system)

    assert blocks(answer) == [{"type": "text", "text": "Yes."}]
    assert fleet.received()["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Say hello."},
    ]


@both_ways
def test_an_image_for_a_model_that_cannot_see_is_refused(client: Anthropic, stream: bool) -> None:
    """In words that say so."""
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        told(client, stream=stream, model="demo", messages=[{"role": "user", "content": content}])

    assert "cannot see" in caught.value.message


@both_ways
def test_tools_over_three_turns(client: Anthropic, fleet: Fleet, stream: bool) -> None:
    """Two calls at once, their results, one more call, and the answer."""
    again = ("call_3", "weather", arguments(city="Rome"))
    fleet.node.reply = script(
        Turn(text="I look.", calls=[PARIS, CLOCK]), Turn(calls=[again]), Turn(text="Sunny.")
    )
    messages: list[Any] = [*HELLO]
    asked: Any = {"stream": stream, "tools": TOOLS, "messages": messages}

    first = told(client, **asked)
    assert first.stop_reason == "tool_use"
    assert blocks(first)[0] == {"type": "text", "text": "I look."}
    assert [(b["id"], b["name"], b["input"]) for b in blocks(first)[1:]] == [
        (id_, name, json.loads(given)) for id_, name, given in (PARIS, CLOCK)
    ]
    seen = {"type": "text", "text": "12 degrees"}
    results = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [seen]},
        {"type": "tool_result", "tool_use_id": "call_2", "content": "no clock", "is_error": True},
    ]
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]

    second = told(client, **asked, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert [b["input"] for b in blocks(second)] == [{"city": "Rome"}]
    body = fleet.received()
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    calls = body["messages"][1]["tool_calls"]
    assert [(call["id"], call["function"]["name"]) for call in calls] == [
        ("call_1", "weather"),
        ("call_2", "clock"),
    ]
    assert json.loads(calls[0]["function"]["arguments"]) == json.loads(PARIS[2])
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: no clock"},
    ]
    messages += [
        {"role": "assistant", "content": second.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "call_3", "content": "sun"}],
        },
    ]

    third = told(client, **asked)
    assert (third.stop_reason, blocks(third)) == ("end_turn", [{"type": "text", "text": "Sunny."}])
    assert [turn["role"] for turn in fleet.received()["messages"]] == [
        *("user", "assistant", "tool", "tool"),
        *("assistant", "tool"),
    ]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_the_input_of_a_call_arrives_piece_by_piece(
    client: Anthropic, fleet: Fleet, side_by_side: bool
) -> None:
    """The pieces are those that the node sent, and each is its own call's."""
    fleet.node.reply = script(Turn(calls=[PARIS, CLOCK], side_by_side=side_by_side))
    pieces: dict[int, str] = {0: "", 1: ""}
    for event in client.messages.create(**ASK, tools=TOOLS, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            pieces[event.index] += event.delta.partial_json

    assert pieces[0] == PARIS[2]
    assert json.loads(pieces[1] or "{}") == {}


@both_ways
def test_arguments_that_are_no_object_are_shown(
    client: Anthropic, fleet: Fleet, stream: bool
) -> None:
    """Under a name of their own: the SDK would fail on anything but an object."""
    fleet.node.reply = script(Turn(calls=[("call_1", "weather", "city=Paris")]))

    (block,) = blocks(told(client, stream=stream, tools=TOOLS))
    assert block["input"] == {"unparsed_arguments": "city=Paris"}


@both_ways
@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive"}, True),
        ({"type": "adaptive", "display": "omitted"}, False),
        ({"type": "disabled"}, False),
        (None, False),
    ],
    ids=["enabled", "adaptive", "omitted", "disabled", "not asked"],
)
def test_thinking_is_shown_to_those_who_ask(
    client: Anthropic, fleet: Fleet, thinking: Any, shown: bool, stream: bool
) -> None:
    """And can be sent back."""
    fleet.node.reply = script(Turn(thoughts="Hm, well.", text="Yes."), Turn(text="Done."))
    asked: Any = {} if thinking is None else {"thinking": thinking}
    answer = told(client, stream=stream, **asked)
    back = [*HELLO, {"role": "assistant", "content": answer.content}, *HELLO]
    told(client, stream=stream, messages=back, **asked)

    *thoughts, text = answer.content
    assert text.type == "text"
    assert [block.thinking for block in thoughts if block.type == "thinking"] == (
        ["Hm, well."] if shown else []
    )
    assert all(block.type == "thinking" and block.signature for block in thoughts)
    assistant = fleet.received()["messages"][1]
    assert assistant.get("reasoning_content") == ("Hm, well." if shown else None)


@both_ways
def test_a_stop_sequence_is_named(client: Anthropic, fleet: Fleet, stream: bool) -> None:
    """Where the engine tells which it was."""
    fleet.node.reply = script(Turn(text="One, two", stopped_by="three"))
    answer = told(client, stream=stream, stop_sequences=["three", "four"])

    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "three")
    assert fleet.received()["stop"] == ["three", "four"]


def test_a_stop_sequence_stops_the_small_model(client: Anthropic) -> None:
    """It is not in the answer."""
    answer = client.messages.create(**{**BRIEF, "max_tokens": 40, "stop_sequences": ["!"]})

    assert "!" not in blocks(answer)[0]["text"]
    assert answer.stop_reason in {"stop_sequence", "end_turn"}


@both_ways
@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_tokens"), ("content_filter", "refusal")]
)
def test_an_answer_that_is_not_whole_says_so(
    client: Anthropic, fleet: Fleet, finish: str, reason: str, stream: bool
) -> None:
    """It never ends its turn."""
    fleet.node.reply = script(Turn(text="Well", finish=finish))

    assert told(client, stream=stream).stop_reason == reason


def test_tokens_are_counted_as_the_model_counts_them(client: Anthropic) -> None:
    """What is counted before is what is used after."""
    asked: Any = {"model": "demo", "messages": HELLO, "system": "Be brief."}
    counted = client.messages.count_tokens(**asked)
    usage = client.messages.create(**asked, max_tokens=1).usage

    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models_are_listed_page_by_page(client: Anthropic) -> None:
    """Forwards, backwards and one by one."""
    first = client.models.list(limit=2)
    walked = [model.id for model in client.models.list(limit=2)]

    assert walked == sorted({*walked})
    assert {"claude-demo", "demo", SCRIPTED} <= set(walked)
    assert first.has_more
    assert [model.id for model in first.data] == walked[:2]
    backwards = client.models.list(before_id=walked[3], limit=2)
    assert [model.id for model in backwards.data] == walked[1:3]
    one = client.models.retrieve("claude-haiku-9")
    assert (one.id, one.display_name, one.lifecycle) == ("claude-haiku-9", "demo", "active")
    assert client.models.retrieve(SCRIPTED).id == SCRIPTED
    assert client.models.retrieve("demo").max_input_tokens == 512


def test_the_beta_namespace(client: Anthropic, fleet: Fleet) -> None:
    """Betas that nobody here knows are no reason to refuse."""
    fleet.node.reply = script(Turn(thoughts="Hm.", text="Yes."), Turn(text="Yes."))
    asked: Any = {
        **ASK,
        "betas": ["interleaved-thinking-2025-05-14", "context-management-2025-06-27", "x-2099"],
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "output_config": {"effort": "high"},
        "extra_body": {"something_new": {"deep": [1]}},
    }
    whole = client.beta.messages.create(
        **asked, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    with client.beta.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    counted = client.beta.messages.count_tokens(
        model="demo", messages=HELLO, betas=["token-counting-2024-11-01"]
    )

    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert [block.type for block in final.content] == ["text"]
    assert counted.input_tokens > 0
    assert client.beta.models.retrieve("claude-demo").display_name == "demo"


def test_everything_the_sdk_can_ask_is_read_here(client: Anthropic, fleet: Fleet) -> None:
    """No node gets a field that only Anthropic's servers know."""
    fields = {
        *MessageCreateParamsBase.__annotations__,
        *BetaMessageCreateParamsBase.__annotations__,
    }
    fleet.node.reply = script(Turn(text="Yes."))
    refused_here: Any = {"mcp_servers", "thread", "compaction"}
    given = dict.fromkeys(fields - {"model", "max_tokens", "messages", *refused_here})
    client.messages.create(**ASK, extra_body=given)

    ours = {"model", "max_tokens", "messages", "chat_template_kwargs"}
    assert set(fleet.received()) & fields <= ours


@both_ways
def test_a_thread_is_replayed_since_none_are_kept(
    client: Anthropic, fleet: Fleet, stream: bool
) -> None:
    """The SDK's tool runner sends only what is new, until it hears that we have no more."""
    again = ("call_2", "weather", arguments(city="Rome"))
    fleet.node.reply = script(
        Turn(calls=[("call_1", "weather", arguments(city="Paris"))]),
        Turn(calls=[again]),
        Turn(text="Sunny."),
    )

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"fine in {city}"

    asked: Any = {**ASK, "tools": [weather]}
    if stream:
        runner: Any = client.beta.messages.tool_runner(**asked, stream=True)
        last = [events.get_final_message() for events in runner][-1]
    else:
        last = client.beta.messages.tool_runner(**asked).until_done()

    assert last.content[0].text == "Sunny."
    assert [turn["role"] for turn in fleet.received()["messages"]] == [
        *("user", "assistant", "tool"),
        *("assistant", "tool"),
    ]
    assert fleet.received()["tools"][0]["function"]["name"] == "weather"


def test_what_goes_on_with_a_thread_is_not_found(client: Anthropic) -> None:
    """Never answered as if it were the whole conversation."""
    going_on: Any = {"type": "continue", "previous_message_id": "msg_1"}
    with pytest.raises(ThreadNotFoundError):
        client.beta.messages.create(**ASK, thread=going_on)


@both_ways
@pytest.mark.parametrize(
    ("asked", "error", "kind", "words"),
    [
        ({"model": "nothing"}, anthropic.NotFoundError, "not_found_error", "nothing"),
        (
            {"messages": [{"role": "nobody", "content": "hi"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "messages.0.role",
        ),
        ({"max_tokens": 0}, anthropic.BadRequestError, "invalid_request_error", "max_tokens"),
        (
            {"model": "demo", "messages": [{"role": "user", "content": "word " * 2000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "prompt is too long",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 300_000}]},
            anthropic.RequestTooLargeError,
            "request_too_large",
            "1 MiB",
        ),
    ],
    ids=["model", "role", "max_tokens", "context", "size"],
)
def test_refusals_are_the_sdks_own_classes(
    client: Anthropic,
    asked: Any,
    error: type[anthropic.APIStatusError],
    kind: str,
    words: str,
    stream: bool,
) -> None:
    """With the type that Anthropic has for them, and the request's name."""
    with pytest.raises(error) as caught:
        told(client, stream=stream, **asked)

    assert caught.value.type == kind
    assert words in caught.value.message
    assert caught.value.request_id
    body: Any = caught.value.body
    assert body["request_id"] == caught.value.request_id


@both_ways
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, anthropic.ServiceUnavailableError, "overloaded_error"),
        (503, anthropic.ServiceUnavailableError, "overloaded_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
    ],
)
def test_a_nodes_failures_are_the_sdks_own_classes(
    client: Anthropic,
    fleet: Fleet,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
    stream: bool,
) -> None:
    """When to try again is told if and only if it can help."""
    fleet.node.reply = refused(status, "thread panicked at /srv/secret.rs", retry_after="3")
    with pytest.raises(error) as caught:
        told(client, stream=stream)

    assert caught.value.type == kind
    retry = caught.value.response.headers.get("retry-after")
    assert retry == ("3" if kind == "overloaded_error" else None)


def test_a_request_is_named(client: Anthropic, fleet: Fleet) -> None:
    """In the answer, by ours or by the client's own name."""
    fleet.node.reply = script(*[Turn(text="Yes.")] * 3)
    answer = client.messages.create(**ASK)
    mine = client.messages.with_raw_response.create(**ASK, extra_headers={"x-request-id": "mine"})

    assert answer._request_id  # noqa: SLF001  # the SDK's public name for it
    assert mine.headers["request-id"] == "mine"
    with client.messages.stream(**ASK) as stream:
        assert stream.request_id


def test_the_sdk_gets_through_when_it_tries_again(client: Anthropic, fleet: Fleet) -> None:
    """A node that was busy for a moment is not noticed."""
    fleet.node.reply = script(refused(503, "busy", retry_after="1"), Turn(text="Here."))
    patient = client.with_options(max_retries=2)

    assert blocks(told(patient, stream=True)) == [{"type": "text", "text": "Here."}]
    assert fleet.node.asked[-2:] == [f"infer {SCRIPTED}"] * 2


@pytest.mark.parametrize("helper", [False, True], ids=["bare", "helper"])
def test_a_node_lost_in_the_middle_raises(client: Anthropic, fleet: Fleet, helper: bool) -> None:
    """What came is there, and then the SDK's error: never a message that looks whole."""
    fleet.node.reply = lost_after(frame(ROLE), frame(delta("Hel")))
    pieces: list[str] = []

    def read() -> None:
        if helper:
            with client.messages.stream(**ASK) as stream:
                pieces.extend(stream.text_stream)
            return
        pieces.extend(
            event.delta.text
            for event in client.messages.create(**ASK, stream=True)
            if event.type == "content_block_delta" and event.delta.type == "text_delta"
        )

    with pytest.raises(anthropic.APIStatusError) as caught:
        read()

    assert pieces == ["Hel"]
    assert caught.value.type == "overloaded_error"
    assert caught.value.request_id


def test_a_node_lost_in_the_middle_of_a_whole_answer(client: Anthropic, fleet: Fleet) -> None:
    """Is an error with a status, that can be tried again."""

    def half(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "4000")
        handler.end_headers()
        handler.wfile.write(b'{"id": ')
        handler.close_connection = True

    fleet.node.reply = script(half, half, Turn(text="Here."))
    with pytest.raises(anthropic.ServiceUnavailableError):
        told(client, stream=False)


def test_a_cancelled_stream_frees_its_seat(client: Anthropic, fleet: Fleet) -> None:
    """In the engine, too."""
    with client.messages.stream(**{**BRIEF, "max_tokens": 400}) as stream:
        next(stream.text_stream)
        assert in_flight(fleet.neuron, "demo") == 1

    eventually(lambda: in_flight(fleet.neuron, "demo") == 0, within=1.0)


def test_a_schema_is_obeyed(client: Anthropic) -> None:
    """`output_config.format` reaches the engine."""
    schema = {
        "type": "object",
        "properties": {"greeting": {"type": "string", "maxLength": 12}},
        "required": ["greeting"],
        "additionalProperties": False,
    }
    answer = client.messages.create(
        **{**BRIEF, "max_tokens": 60},
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )

    assert set(json.loads(blocks(answer)[0]["text"])) == {"greeting"}
