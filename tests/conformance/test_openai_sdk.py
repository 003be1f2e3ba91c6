"""The official OpenAI SDK, unchanged, against a real cortex with a real model behind it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fleet.conversations import entry, in_flight
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

pytestmark = pytest.mark.fleet

HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def bench_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Daemons for the whole file."""
    with workbench(tmp_path_factory.mktemp("sdk")) as made:
        yield made


@pytest.fixture(scope="module")
def neuron(bench_of_module: Workbench) -> Daemon:
    """One node."""
    return bench_of_module.neuron()


@pytest.fixture(scope="module")
def cortex(bench_of_module: Workbench, neuron: Daemon, demo_model: Path) -> Daemon:
    """A cortex with a chat model, an embedding model and an alias."""
    models = [
        entry("demo", demo_model),
        entry("org/embed", demo_model, capabilities=["embedding"]),
    ]
    return bench_of_module.cortex({"n1": neuron.url}, models, {"gpt-4o": "demo"})


@pytest.fixture
def client(cortex: Daemon) -> Iterator[OpenAI]:
    """The SDK's client."""
    with OpenAI(base_url=f"{cortex.url}/v1", api_key="anything", max_retries=0) as made:
        yield made


def test_chat(client: OpenAI) -> None:
    """A whole answer with usage."""
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=8, temperature=0
    )

    assert answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_an_alias_answers(client: OpenAI) -> None:
    """Clients that only know one name are served too."""
    answer = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, max_tokens=2, temperature=0
    )

    assert answer.choices[0].message.content is not None


def test_streamed_chat(client: OpenAI) -> None:
    """Chunks, a finish reason, and no usage that was not asked for."""
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=8, temperature=0, stream=True
        )
    )

    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


def test_streamed_usage(client: OpenAI) -> None:
    """The closing chunk, for those who ask."""
    *_, last = client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )

    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 8


async def test_the_async_client(cortex: Daemon) -> None:
    """Streams and whole answers."""
    async with AsyncOpenAI(base_url=f"{cortex.url}/v1", api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=4, temperature=0, stream=True
        )
        text = [chunk.choices[0].delta.content async for chunk in stream]
        answer = await client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=4, temperature=0
        )

    assert any(text)
    assert answer.choices[0].message.content


def test_completions(client: OpenAI) -> None:
    """The old route, whole and streamed."""
    whole = client.completions.create(model="demo", prompt="Once upon", max_tokens=6, temperature=0)
    streamed = list(
        client.completions.create(
            model="demo", prompt="Once upon", max_tokens=6, temperature=0, stream=True
        )
    )

    assert whole.choices[0].text
    assert whole.usage is not None
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices)


def test_embeddings(client: OpenAI) -> None:
    """As floats and, as the SDK asks by default, as base64."""
    default = client.embeddings.create(model="org/embed", input=["a cat", "a dog"])
    floats = client.embeddings.create(
        model="org/embed", input=["a cat", "a dog"], encoding_format="float"
    )

    assert [len(row.embedding) for row in default.data] == [576, 576]
    assert default.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-4)
    assert default.data[0].embedding != default.data[1].embedding


def test_models(client: OpenAI) -> None:
    """Listed and retrieved, with a slash in the id."""
    assert {model.id for model in client.models.list()} == {"demo", "gpt-4o", "org/embed"}
    assert client.models.retrieve("org/embed").id == "org/embed"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_schema_is_obeyed(client: OpenAI) -> None:
    """response_format reaches the engine."""
    schema = {
        "type": "object",
        "properties": {"greeting": {"type": "string", "maxLength": 12}},
        "required": ["greeting"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_tokens=60,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "greeting", "schema": schema, "strict": True},
        },
    )

    assert set(json.loads(answer.choices[0].message.content or "")) == {"greeting"}


def test_sampling_parameters_reach_the_engine(client: OpenAI) -> None:
    """Several answers, log probabilities, stop words."""
    answer = client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_completion_tokens=4,
        n=2,
        logprobs=True,
        top_logprobs=2,
        seed=1,
    )
    stopped = client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=40, temperature=0, stop=["!"]
    )

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.content or []) == 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert "!" not in (stopped.choices[0].message.content or "")
    assert stopped.choices[0].finish_reason == "stop"


def test_errors_become_the_sdks_own(client: OpenAI) -> None:
    """404 and 400 arrive as the classes that clients catch."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nothing", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="demo", messages=7)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model="demo", input="a")

    assert missing.value.code == "model_not_found"
    assert wrong.value.code == "wrong_modality"


def test_a_prompt_beyond_the_context_says_so_in_the_words_clients_know(client: OpenAI) -> None:
    """They compact a conversation when they see this code and sentence."""
    long: Any = [{"role": "user", "content": "word " * 2000}]

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="demo", messages=long)

    assert refused.value.code == "context_length_exceeded"
    assert "maximum context length is 512 tokens" in refused.value.message


def test_raw_headers(client: OpenAI) -> None:
    """Every answer names its request."""
    raw = client.chat.completions.with_raw_response.create(
        model="demo",
        messages=HELLO,
        max_tokens=1,
        temperature=0,
        extra_headers={"x-request-id": "mine"},
    )

    assert raw.headers["x-request-id"] == "mine"


def test_a_stream_can_be_closed_early(client: OpenAI, neuron: Daemon) -> None:
    """And its seat is free."""
    stream = client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=400, temperature=0, stream=True
    )
    next(iter(stream))
    stream.close()

    eventually(lambda: in_flight(neuron, "demo") == 0, within=1.0)
