"""What real coding agents sent, replayed: `python -m tests.agents --record` makes the fixtures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.agents.scripted_node import (
    COMMAND,
    FINAL_TEXT,
    FIRST_TEXT,
    MODEL,
    Script,
    scripted_node,
)
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron
from tests.fleet.processes import Daemon, workbench
from tests.libs.cortex_dialects.messages.grammar import accept
from tests.libs.cortex_dialects.responses import sdk
from tests.libs.cortex_dialects.responses.grammar import Grammar

pytestmark = pytest.mark.fleet

FIXTURES = Path(__file__).parent / "fixtures"
AGENTS = ("claude-code", "codex")
TURNS = [f"{agent}-{turn}" for agent in AGENTS for turn in ("first-turn", "tool-result")]
BILLING = "x-anthropic-billing-header:"
CALLED = {"claude-code": ("Bash", "command"), "codex": ("exec_command", "cmd")}

_events_of_anthropic: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNeuron]:
    """A node that answers as the scripted one did when the requests were recorded."""
    with scripted_node(Script()) as made:
        yield made


@pytest.fixture(scope="module")
def cortex(node: FakeNeuron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A cortex in front of it."""
    with workbench(tmp_path_factory.mktemp("agents")) as bench:
        models = [{"id": MODEL, "harness": "candle"}]
        yield bench.cortex({"n1": node.url}, models, {"claude-*": MODEL})


@pytest.mark.parametrize("name", TURNS)
def test_the_stream_is_what_the_agent_reads(cortex: Daemon, name: str) -> None:
    """Every event is in its place and complete for the official SDK, up to the proper end."""
    answer = replay(cortex, name)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = payloads(answer.text)
    if name.startswith("claude-code"):
        assert accept(events).state == "end"
        for event in events:
            _events_of_anthropic.validate_python(event)
        assert events[-1]["type"] == "message_stop"
    else:
        grammar = Grammar()
        for event in events:
            grammar.take(event)
            sdk.check_event(event)
        assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("agent", AGENTS)
def test_a_call_comes_as_the_agents_own_tool(cortex: Daemon, agent: str) -> None:
    """By the name that it offered, with whole arguments."""
    events = payloads(replay(cortex, f"{agent}-first-turn").text)

    tool, argument = CALLED[agent]
    if agent == "claude-code":
        started = [one["content_block"] for one in events if "content_block" in one]
        assert [block["type"] for block in started] == ["text", "tool_use"]
        assert started[1]["name"] == tool
        pieces = [one["delta"] for one in events if one["type"] == "content_block_delta"]
        text = "".join(piece.get("partial_json", "") for piece in pieces)
    else:
        said, call = events[-1]["response"]["output"]
        assert said["content"][0]["text"] == "".join(FIRST_TEXT)
        assert call["name"] == tool
        text = call["arguments"]
    assert json.loads(text) == {argument: COMMAND}


def test_repeated_whole_it_is_the_same_message(cortex: Daemon) -> None:
    """Claude Code asks again without streaming when a stream has failed."""
    answer = replay(cortex, "claude-code-tool-result", stream=False)

    message = Message.model_validate(answer.json())
    assert message.stop_reason == "end_turn"
    assert [block.type for block in message.content] == ["text"]
    assert answer.json()["content"][0]["text"] == "".join(FINAL_TEXT)


@pytest.mark.parametrize("name", TURNS)
def test_every_tool_reaches_the_node(cortex: Daemon, node: FakeNeuron, name: str) -> None:
    """As a function with its description and its schema; hosted ones cannot be had here."""
    replay(cortex, name)

    offered = list(functions(fixture(name)["body"]))
    assert offered
    assert [one["type"] for one in node.bodies[-1]["tools"]] == ["function"] * len(offered)
    got = [one["function"] for one in node.bodies[-1]["tools"]]
    assert [(one["name"], one["parameters"]) for one in got] == [
        (tool_name, schema) for tool_name, schema, _ in offered
    ]
    # A group's first function carries the group's description too.
    for one, (_, _, description) in zip(got, offered, strict=True):
        assert one["description"].endswith(description)


@pytest.mark.parametrize("name", TURNS)
def test_the_system_prompt_stands_in_front_as_it_came(
    cortex: Daemon, node: FakeNeuron, name: str
) -> None:
    """One message with every system text, nothing added; only the billing block is left out."""
    replay(cortex, name)

    first, *rest = node.bodies[-1]["messages"]
    assert first == {"role": "system", "content": "\n\n".join(system_texts(fixture(name)["body"]))}
    assert "system" not in {message["role"] for message in rest}


@pytest.mark.parametrize("name", TURNS)
def test_what_the_user_says_is_passed_word_for_word(
    cortex: Daemon, node: FakeNeuron, name: str
) -> None:
    """Task, reminders and environment, in their order."""
    replay(cortex, name)

    def texts(content: Any) -> list[str]:
        parts = [{"text": content}] if isinstance(content, str) else content
        return [part["text"] for part in parts if "text" in part]

    def said(messages: list[dict[str, Any]]) -> list[str]:
        users = [one for one in messages if one.get("role") == "user"]
        return [text for one in users for text in texts(one["content"])]

    body = fixture(name)["body"]
    assert said(node.bodies[-1]["messages"]) == said(body.get("messages") or body["input"])


@pytest.mark.parametrize("agent", AGENTS)
def test_a_tool_result_follows_its_call(cortex: Daemon, node: FakeNeuron, agent: str) -> None:
    """Under the same id, with the tool's own words."""
    name = f"{agent}-tool-result"
    replay(cortex, name)

    *_, called, result = node.bodies[-1]["messages"]
    call = called["tool_calls"][0]
    tool, argument = CALLED[agent]
    assert called["content"] == "".join(FIRST_TEXT)
    assert call["function"]["name"] == tool
    assert json.loads(call["function"]["arguments"]) == {argument: COMMAND}
    assert result == {
        "role": "tool",
        "tool_call_id": call["id"],
        "content": tool_output(fixture(name)["body"]),
    }


@pytest.mark.parametrize("name", TURNS)
def test_the_same_request_becomes_the_same_bytes(
    cortex: Daemon, node: FakeNeuron, name: str
) -> None:
    """The order of keys included."""
    for _ in range(2):
        replay(cortex, name)

    first, second = node.bodies[-2:]
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_second_turn_begins_with_the_first(
    cortex: Daemon, node: FakeNeuron, agent: str
) -> None:
    """So that the engine finds its cache again: same tools, same messages, more behind them."""
    for turn in ("first-turn", "tool-result"):
        replay(cortex, f"{agent}-{turn}")

    first, second = node.bodies[-2:]
    assert json.dumps(first["tools"]) == json.dumps(second["tools"])
    known = len(first["messages"])
    assert json.dumps(first["messages"]) == json.dumps(second["messages"][:known])
    assert [one["role"] for one in second["messages"][known:]] == ["assistant", "tool"]
    others = [{k: v for k, v in one.items() if k != "messages"} for one in (first, second)]
    assert others[0] == others[1]


@pytest.mark.parametrize("name", ["claude-code-count", "claude-code-count-tool"])
def test_tokens_are_counted(cortex: Daemon, name: str) -> None:
    """Claude Code weighs each part of its prompt alone, also with an empty list of tools."""
    answer = replay(cortex, name)

    assert MessageTokensCount.model_validate(answer.json()).input_tokens > 0
    assert answer.headers["x-cortex-token-count"] == "estimate"


def test_claude_code_finds_a_model_under_its_name(cortex: Daemon) -> None:
    """It takes only ids that begin with `claude`, and shows their display name."""
    rows = [
        ModelInfo.model_validate(row) for row in replay(cortex, "claude-code-models").json()["data"]
    ]

    assert [(row.id, row.display_name) for row in rows if row.id.startswith("claude")] == [
        (f"claude-{MODEL}", MODEL)
    ]


def test_the_clients_secret_stays_here(cortex: Daemon, node: FakeNeuron) -> None:
    """A node never sees what the agent signs in with."""
    for name in TURNS:
        replay(cortex, name)

        assert "authorization" in fixture(name)["headers"]
        assert "authorization" not in node.headers[-1]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
def test_a_fixture_holds_nobodys_words(path: Path) -> None:
    """Prose is replaced by its length, and nothing tells of the machine that recorded it."""
    text = path.read_text()

    assert path.stat().st_size < 50_000
    assert json.loads(text)["headers"]["authorization"] == "Bearer <secret>"
    longest = max(strings(json.loads(text)["body"]), key=lambda one: one.count(" "), default="")
    assert longest.count(" ") < 20
    assert "/tmp" not in text


def fixture(name: str) -> dict[str, Any]:
    """Return a recorded request."""
    recorded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return recorded


def replay(cortex: Daemon, name: str, **changes: Any) -> httpx.Response:
    """Send a recorded request, with some fields of its body changed."""
    recorded = fixture(name)
    body = recorded["body"]
    return cortex.http.request(
        recorded["method"],
        f"{cortex.url}{recorded['path']}",
        headers=recorded["headers"],
        content=None if body is None else json.dumps({**body, **changes}),
    )


def payloads(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def functions(body: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield name, schema and description of the tools that a node can be given."""
    for tool in body["tools"]:
        match tool:
            case {"input_schema": schema}:
                yield tool["name"], schema, tool["description"]
            case {"type": "function"}:
                yield tool["name"], tool["parameters"], tool["description"]
            case {"type": "namespace"}:
                for one in tool["tools"]:
                    name = f"{tool['name']}__{one['name']}"
                    yield name, one["parameters"], one["description"]


def system_texts(body: dict[str, Any]) -> list[str]:
    """Return the texts that count as instructions, in their order."""
    turns = body.get("messages") or body["input"]
    contents = [turn["content"] for turn in turns if turn.get("role") in ("system", "developer")]
    lists = [[{"text": one}] if isinstance(one, str) else one for one in contents]
    texts = [block["text"] for blocks in (body.get("system", []), *lists) for block in blocks]
    return [text for text in texts if not text.startswith(BILLING)]


def tool_output(body: dict[str, Any]) -> str:
    """Return what the tool said in the last turn."""
    if "messages" in body:
        output: str = body["messages"][-1]["content"][0]["content"]
    else:
        output = body["input"][-1]["output"]
    return output


def strings(value: Any) -> Iterator[str]:
    """Yield every text in a value."""
    match value:
        case str():
            yield value
        case dict():
            for one in value.values():
                yield from strings(one)
        case list():
            for one in value:
                yield from strings(one)
