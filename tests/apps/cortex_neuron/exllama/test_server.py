"""The engine's server on a real socket, with a backend that says what a test has written."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.jobs import Limits
from cortex_neuron.exllama.reading import Reader
from cortex_neuron.exllama.sampling import ModelDefaults
from cortex_neuron.exllama.server import EngineApi
from cortex_neuron.exllama.sockets import listen
from cortex_neuron.exllama.templates import ChatTemplate
from cortex_uplink import Limits as Patience
from cortex_uplink import Uplink, UplinkError
from cortex_uplink.lean_app import start_server
from tests.apps.cortex_neuron.exllama.fake_backend import FakeBackend
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LIMITS = Limits(context=512, cache=1024, page=256, slots=2)
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
HI = [{"role": "user", "content": "hello"}]
LONG = [{"role": "user", "content": "a " * 600}]
EOS = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A server and its backend."""

    backend: FakeBackend
    engine: EngineThread
    url: str
    uplink: Uplink

    @asynccontextmanager
    async def asked(self, path: str, body: Mapping[str, Any] | None) -> AsyncIterator[Any]:
        """Ask, and give the answer as it begins."""
        async with self.uplink.open(
            f"{self.url}{path}",
            body=b"" if body is None else json.dumps({"model": "m", **body}).encode(),
            headers={"content-type": "application/json"},
            method="GET" if body is None else "POST",
        ) as answer:
            yield answer

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and body; of a stream its chunks."""
        async with self.asked(path, body) as answer:
            raw = (await answer.read(1 << 20)).decode()
        if not raw.startswith("data:"):
            return answer.status, json.loads(raw)
        frames = [frame.removeprefix("data: ") for frame in raw.split("\n\n") if frame]
        return answer.status, [one if one == "[DONE]" else json.loads(one) for one in frames]

    async def chat(self, **more: Any) -> tuple[int, Any]:
        """Return the answer to a chat."""
        return await self.ask(CHAT, {"messages": HI, **more})


@asynccontextmanager
async def serving(folder: Path, text: str, limits: Limits = LIMITS) -> AsyncIterator[Server]:
    """Serve a model that says `text` and ends."""
    vocabulary = bytes_vocabulary()
    backend = FakeBackend([*vocabulary.encode_chat(text), EOS], limits=limits)
    engine = EngineThread(lambda: backend, max_waiting=2)
    engine.load()
    reader = Reader(
        limits,
        vocabulary=vocabulary,
        defaults=ModelDefaults(vocabulary=vocabulary.size, values={"typical_p": 0.3}),
        template=ChatTemplate({"default": TEMPLATE}, named=vocabulary.named),
    )
    app = EngineApi(engine=engine, reader=reader).app(request_max_mb=1)
    server = await start_server(app, listen(folder / "s"), set())
    uplink = Uplink(Patience(connect=5, first_byte=10, idle=10), keep_alive=False)
    url = f"http+unix://{quote(str(folder / 's'), safe='')}"
    try:
        yield Server(backend, engine, url, uplink)
    finally:
        backend.gate.set()
        await uplink.aclose()
        await engine.close()
        server.close()


async def until(check: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110  # the engine's thread tells nobody
            await asyncio.sleep(0.001)


async def test_a_chat_is_answered(tmp_path: Path) -> None:
    """Whole: role, text, why it ended, and what it cost."""
    async with serving(tmp_path, "once upon a time") as server:
        status, body = await server.chat(max_tokens=100)

    assert status == 200
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "once upon a time"}
    assert choice["finish_reason"] == "stop"
    assert body["model"] == "m"
    prompt = len(server.backend.seen[0].prompt)
    assert body["usage"]["prompt_tokens"] == prompt
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == prompt // 2
    assert body["usage"]["completion_tokens"] == len(server.backend.script)


async def test_a_stream_is_the_answer_in_pieces(tmp_path: Path) -> None:
    """First who speaks, then text, then the end; usage only for whoever wants it."""
    async with serving(tmp_path, "once upon a time") as server:
        _, plain = await server.chat(stream=True)
        _, told = await server.chat(stream=True, stream_options={"include_usage": True})

    assert plain[0]["choices"][0]["delta"]["role"] == "assistant"
    text = [one["choices"][0]["delta"].get("content") for one in plain[:-1]]
    assert "".join(filter(None, text)) == "once upon a time"
    assert plain[-2]["choices"][0]["finish_reason"] == "stop"
    assert plain[-1] == told[-1] == "[DONE]"
    assert told[-2]["choices"] == []
    assert told[-2]["usage"]["completion_tokens"] == len(server.backend.script)
    assert len({one["id"] for one in plain[:-1]}) == 1


async def test_texts_are_completed(tmp_path: Path) -> None:
    """Several prompts, several answers each: numbered in order, and each prompt counts once."""
    async with serving(tmp_path, " lazy dog") as server:
        status, body = await server.ask(TEXT, {"prompt": ["the", [40, 41, 42]], "n": 2, "seed": 7})

    assert status == 200
    assert [one["index"] for one in body["choices"]] == [0, 1, 2, 3]
    assert {one["text"] for one in body["choices"]} == {" lazy dog"}
    prompts = [job.prompt for job in server.backend.seen]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3] == (40, 41, 42)
    assert body["usage"]["prompt_tokens"] == len(prompts[0]) + 3
    assert [job.seed for job in server.backend.seen] == [7, 8, 7, 8]


async def test_a_stop_string_gives_the_job_up(tmp_path: Path) -> None:
    """As soon as it is complete: the library knows nothing of it."""
    async with serving(tmp_path, "the quick brown fox jumps over the lazy dog. " * 8) as server:
        server.backend.step_secs = 0.005
        _, body = await server.chat(stop=["n fox"])
        await until(lambda: bool(server.backend.cancelled))

    (choice,) = body["choices"]
    assert choice["message"]["content"] == "the quick brow"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "n fox")
    assert body["usage"]["completion_tokens"] < 12


async def test_what_only_began_like_a_stop_string_is_said(tmp_path: Path) -> None:
    """When the answer ends there, whole and streamed."""
    async with serving(tmp_path, "over the") as server:
        _, body = await server.chat(stop=["they"])
        _, told = await server.chat(stop=["they"], stream=True)

    assert body["choices"][0]["message"]["content"] == "over the"
    said = [one["choices"][0]["delta"].get("content") for one in told[:-1]]
    assert "".join(filter(None, said)) == "over the"


async def test_a_sampling_that_the_library_lacks_is_refused(tmp_path: Path) -> None:
    """Where it is asked for; what its makers recommend is nobody's wish."""
    lacking = replace(LIMITS, lacks=frozenset({"typical_p"}))
    async with serving(tmp_path, "hello", lacking) as server:
        refused, body = await server.chat(typical_p=0.5)
        off, _ = await server.chat(typical_p=1)
        plain, _ = await server.chat()

    assert (refused, body["error"]["param"]) == (400, "typical_p")
    assert (off, plain) == (200, 200)


async def test_one_call_is_enough_where_one_was_asked_for(tmp_path: Path) -> None:
    """The job is given up behind it."""
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with serving(tmp_path, call * 3) as server:
        server.backend.step_secs = 0.005
        _, body = await server.chat(tools=tools, parallel_tool_calls=False)
        await until(lambda: bool(server.backend.cancelled))
        _, all_of_them = await server.chat(tools=tools)

    assert len(body["choices"][0]["message"]["tool_calls"]) == 1
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert len(all_of_them["choices"][0]["message"]["tool_calls"]) == 3


async def test_what_a_request_wants_reaches_its_job(tmp_path: Path) -> None:
    """Length, seed, stops and grammar; what is not said is as long as there is room."""
    async with serving(tmp_path, "{}") as server:
        await server.chat(max_tokens=7, min_tokens=2, seed=3, stop_token_ids=[9])
        await server.chat(ignore_eos=True, max_tokens=3)
        await server.chat(response_format={"type": "json_object"}, logprobs=True, top_logprobs=2)
        one, free, formed = server.backend.seen

    assert (one.max_tokens, one.min_tokens, one.seed) == (7, 2, 3)
    assert one.stop_tokens == {0, EOS, 9}
    assert free.stop_tokens == frozenset()
    assert formed.mask is not None
    assert formed.top_logprobs == 2
    assert formed.max_tokens == LIMITS.context - len(formed.prompt)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/embeddings", {"input": "x"}, 400, "wrong_modality"),
        (CHAT, {"messages": HI, "suffix": "x"}, 400, "unsupported_parameter"),
        (CHAT, {"messages": HI, "top_p": 7}, 400, "invalid_request_body"),
        (CHAT, {"messages": []}, 400, "invalid_request_body"),
        (CHAT, {"messages": LONG}, 400, "context_length_exceeded"),
        (TEXT, {"prompt": ""}, 400, "invalid_request_body"),
        (TEXT, {"prompt": [[1, -1]]}, 400, "invalid_request_body"),
        (TEXT, {"prompt": ["a"] * 65, "n": 2}, 400, "invalid_request_body"),
        (TEXT, {"prompt": "a", "guided_json": "{"}, 400, "invalid_request_body"),
        ("/v1/nowhere", {}, 404, "route_not_found"),
    ],
)  # fmt: skip
async def test_a_request_is_refused_before_it_costs_anything(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    """With a status of its own, also where a stream was asked for; no job is made."""
    async with serving(tmp_path, "never") as server:
        for stream in (False, True):
            found, said = await server.ask(path, {**body, "stream": stream})

            assert (found, said["error"]["code"]) == (status, code)
        assert server.backend.seen == []


async def test_a_full_queue_has_a_status(tmp_path: Path) -> None:
    """And says when to come again."""
    async with serving(tmp_path, "hello") as server:
        server.backend.gate.clear()
        crowd = [asyncio.create_task(server.chat()) for _ in range(4)]
        await until(lambda: len(server.engine.jobs) == 4)
        async with server.asked(CHAT, {"messages": HI}) as answer:
            assert answer.status == 503
            assert answer.headers.get("retry-after") is not None
        server.backend.gate.set()

        assert [status for status, _ in await asyncio.gather(*crowd)] == [200] * 4


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_token_has_a_status(tmp_path: Path, stream: bool) -> None:
    """Nothing was said yet, so nothing has to be taken back."""
    async with serving(tmp_path, "hello") as server:
        server.backend.failures.append(RuntimeError("CUDA out of memory"))
        status, body = await server.chat(stream=stream)

    assert (status, body["error"]["code"]) == (503, "out_of_memory")


async def test_a_failure_inside_a_stream_is_its_end(tmp_path: Path) -> None:
    """An error event, and no false end."""
    async with serving(tmp_path, "the quick brown fox") as server:
        server.backend.failures_at[3] = RuntimeError("shapes")
        status, told = await server.chat(stream=True)

    assert status == 200
    assert told[0]["choices"][0]["delta"]["role"] == "assistant"
    assert told[-1]["error"]["code"] == "internal_error"


async def test_hanging_up_gives_the_jobs_up(tmp_path: Path) -> None:
    """All of them, waiting ones too."""
    async with serving(tmp_path, "hello " * 60) as server:
        server.backend.gate.clear()
        asking = asyncio.create_task(server.chat(n=4))
        await until(lambda: len(server.engine.jobs) == 4)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: server.engine.jobs == {})
        server.backend.gate.set()
        await until(lambda: not server.backend.waiting)

        assert sum(server.backend.said.values()) <= 2


async def test_health_says_what_it_works_on(tmp_path: Path) -> None:
    """How far each job is; and when nothing comes of anything any more."""
    async with serving(tmp_path, "hello") as server:
        assert (await server.ask("/health"))[1]["jobs"] == []
        server.backend.gate.clear()
        asking = asyncio.create_task(server.chat())
        await until(lambda: bool(server.engine.jobs))
        status, body = await server.ask("/health")
        server.backend.failures.append(RuntimeError("CUDA error: device-side assert triggered"))
        server.backend.gate.set()
        lost, _ = await asking
        after, said = await server.ask("/health")

    assert status == 200
    assert body["jobs"][0]["generated_tokens"] == 0
    assert lost == 503
    assert (after, said["status"]) == (503, "failed")


async def test_tokens_are_counted_without_a_job(tmp_path: Path) -> None:
    """Of a chat as its answer counts them, of a text, and of several texts."""
    async with serving(tmp_path, "hello") as server:
        chat = (await server.ask("/tokenize", {"messages": HI}))[1]["count"]
        texts = (await server.ask("/tokenize", {"prompt": ["the", "the"]}))[1]["count"]
        one = (await server.ask("/tokenize", {"prompt": "the"}))[1]["count"]
        assert server.backend.seen == []
        _, body = await server.chat()

    assert chat == body["usage"]["prompt_tokens"]
    assert texts == 2 * one


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """Before it is read."""
    async with serving(tmp_path, "hello") as server:
        try:
            status, body = await server.chat(user="x" * (2 << 20))
        except UplinkError:
            return  # the answer may be overtaken by the end of the connection

    assert (status, body["error"]["code"]) == (413, "request_too_large")


async def test_a_model_without_a_template_completes_only(tmp_path: Path) -> None:
    """What it serves is known beforehand."""
    vocabulary = bytes_vocabulary()
    reader = Reader(
        replace(LIMITS),
        vocabulary=vocabulary,
        defaults=ModelDefaults(vocabulary=vocabulary.size),
        template=ChatTemplate({}, named={}),
    )

    assert reader.capabilities == ("completion",)
