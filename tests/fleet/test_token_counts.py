"""A prompt is counted without its model, and the model then bills the same number."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.apps.cortex_neuron.gguf_files import with_template
from tests.apps.cortex_neuron.prompts import TOOLS, Body, called, corpus, say
from tests.fleet.conversations import CHAT
from tests.fleet.processes import Daemon, Workbench, workbench

pytestmark = pytest.mark.fleet

MODEL = "org/never-asked-for"
SLOTS = 4
SOURCE = random.Random(1)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
#: A template in the manner of models that call tools.
CALLING = """\
{%- if tools %}<|im_start|>system
<tools>{%- for tool in tools %}
{{ tool | tojson }}{%- endfor %}
</tools>
Answer with <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{%- endfor %}<|im_end|>
{% endif %}{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
#: One of those that refuse a system message which does not come first, and have no place for tools.
STRICT = """\
{%- for message in messages %}
{%- if message.role == "system" and not loop.first %}
{{- raise_exception("System message must be at the beginning.") }}{%- endif %}
{%- if message.content == "Boom." %}{{- raise_exception("No booms.") }}{%- endif %}
{{- message.role }}: {{ message.content }}
{% endfor %}assistant: """


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Daemon]:
    """A node that has the demo model loaded."""
    with workbench(tmp_path_factory.mktemp("loaded")) as bench:
        neuron = bench.neuron()
        load(neuron, demo_model)
        yield neuron


def test_counts_equal_what_the_engine_bills(bench: Workbench, demo_model: Path) -> None:
    """Two hundred chats of every kind, all counted before anything is loaded, from the source."""
    neuron = bench.neuron()
    bodies = corpus()

    counted = together(bodies, lambda body: count(neuron, body, demo_model))
    assert neuron.http.get(f"{neuron.url}/models").json() == []
    assert neuron.events("model.loaded") == []

    load(neuron, demo_model)
    billed = together(bodies, lambda body: bill(neuron, body))
    assert counted == billed
    assert max(one for one in counted if isinstance(one, int)) > 2000
    assert [one for one in counted if not isinstance(one, int)] == [(400, "tools_unsupported")] * 4


def test_counts_of_a_model_that_calls_tools(
    bench: Workbench, demo_model: Path, tmp_path: Path
) -> None:
    """Tools, choices among them, and calls in the history: each has its place in the prompt."""
    model = with_template(demo_model, tmp_path / "calling.gguf", CALLING)
    neuron = bench.neuron()
    forecast = {"type": "function", "function": {"name": "forecast"}}
    weather = [say("user", "Weather in Rome?")]
    every: Body = {"messages": weather, "tools": list(TOOLS)}
    bodies: list[Body] = [
        every,
        {**every, "tool_choice": "none"},
        {**every, "tool_choice": "auto", "parallel_tool_calls": False},
        {**every, "tool_choice": "required", "parallel_tool_calls": True},
        {**every, "tool_choice": forecast},
        {"messages": weather, "tools": list(TOOLS[:1])},
        *(
            {"messages": called(SOURCE, content, arguments), "tools": list(TOOLS[:1])}
            for content, arguments in ((None, ""), ("", '{"place": "Ro'), ("Let me see.", "{}"))
        ),
    ]

    # One after the other: what they have in common is then read once.
    counted = [count(neuron, body, model) for body in bodies]
    load(neuron, model)
    assert counted == [bill(neuron, body) for body in bodies]
    assert all(isinstance(one, int) for one in counted)
    # A choice is not in the prompt, unless it leaves some tools out.
    assert len(set(counted[:4])) == 1
    assert counted[0] != counted[4] == counted[5]


def test_a_function_that_is_named_is_the_one_that_is_called(
    bench: Workbench, demo_model: Path, tmp_path: Path
) -> None:
    """The engine knows no names, so it is left no other tool, and must call it."""
    model = with_template(demo_model, tmp_path / "calling.gguf", CALLING)
    neuron = bench.neuron()
    load(neuron, model)
    turns = [one for _ in range(3) for one in called(SOURCE, None)[:2]]
    body = {
        "messages": [*turns, say("user", "And now?")],
        "tools": list(TOOLS),
        "tool_choice": {"type": "function", "function": {"name": "clock"}},
        "temperature": 0,
        "max_tokens": 40,
    }
    answer = ask(neuron, body).json()["choices"][0]

    assert answer["finish_reason"] == "tool_calls", answer
    assert {call["function"]["name"] for call in answer["message"]["tool_calls"]} == {"clock"}


def test_a_strict_template_gets_its_system_messages_in_front(
    bench: Workbench, demo_model: Path, tmp_path: Path
) -> None:
    """Counted and answered alike; what it still refuses is told in its own words."""
    model = with_template(demo_model, tmp_path / "strict.gguf", STRICT)
    neuron = bench.neuron()
    late = {"messages": [say("user", "Hi."), say("system", "Be brief."), say("developer", "Now.")]}
    front = {"messages": [say("system", "Be brief.\n\nNow."), say("user", "Hi.")]}
    boom = {"messages": [say("user", "Boom."), say("system", "Be brief.")]}

    counted = [count(neuron, body, model) for body in (late, front, boom)]
    load(neuron, model)
    refused = ask(neuron, boom)
    assert counted == [bill(neuron, body) for body in (late, front, boom)]
    assert counted[0] == counted[1]
    assert counted[2] == (400, "template_render_failed")
    assert "No booms." in refused.json()["error"]["message"]
    assert "raise_exception" not in refused.text


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        ({"messages": [say("user", [PICTURE])]}, "vision_unsupported", "cannot see"),
        (
            {"messages": [say("user", [{"type": "zorg"}])]},
            "invalid_request_body",
            "content part",
        ),
        (
            {"messages": [say("user", "x")], "tools": [{"type": "custom"}]},
            "invalid_request_body",
            "'tools' cannot be read",
        ),
        (
            {
                "messages": [say("user", "x")],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"$ref": "#/nowhere"}},
                },
            },
            "invalid_request_body",
            "schema",
        ),
        ({"messages": [{"content": "x"}]}, "invalid_request_body", "role"),
    ],
    ids=["image", "part", "tool", "schema", "role"],
)
def test_what_no_prompt_can_be_made_of_is_refused_by_both(
    loaded: Daemon, demo_model: Path, body: Body, code: str, hint: str
) -> None:
    """Counting and answering say the same, and it is the client's to mend."""
    answers = [ask(loaded, body), tokenize(loaded, body, demo_model)]

    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == code
        assert hint in answer.json()["error"]["message"]


def test_the_more_recent_limit_wins(loaded: Daemon) -> None:
    """`max_completion_tokens`, alone or beside its predecessor."""
    limits = [{"max_completion_tokens": 2}, {"max_tokens": 5, "max_completion_tokens": 2}]
    made = [
        ask(loaded, {"messages": [say("user", "Hi.")], "max_tokens": None, **limit}).json()["usage"]
        for limit in limits
    ]

    assert [usage["completion_tokens"] for usage in made] == [2, 2]


def test_files_that_are_not_here_are_not_fetched(bench: Workbench, tmp_path: Path) -> None:
    """A source in the right words is a 404 at once, wherever it points."""
    neuron = bench.neuron(cache_dir=str(tmp_path))
    chat = {"messages": [say("user", "Hi.")]}
    codes = [
        tokenize(neuron, chat, source).json()["error"]["code"]
        for source in ("hf:org/none", "pypi:none==1.0/m.gguf", tmp_path / "m.gguf", tmp_path, None)
    ]
    wrong = tokenize(neuron, chat, "ftp:x")

    assert codes == ["model_not_found"] * 5
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_source")
    assert list(tmp_path.glob("pypi/*")) == []


def tokenize(neuron: Daemon, body: Body, source: Path | str | None) -> httpx.Response:
    """Have a body counted."""
    named = {"model": MODEL, **body} | ({} if source is None else {"source": str(source)})
    return neuron.http.post(f"{neuron.url}/tokenize", json=named)


def ask(neuron: Daemon, body: Body) -> httpx.Response:
    """Have a body answered."""
    return neuron.http.post(f"{neuron.url}{CHAT}", json={"model": MODEL, "max_tokens": 1, **body})


def count(neuron: Daemon, body: Body, source: Path) -> int | tuple[int, str]:
    """Return a body's tokens, or status and code of the refusal."""
    answer = tokenize(neuron, body, source)
    return answer.json()["count"] if answer.is_success else refusal(answer)


def bill(neuron: Daemon, body: Body) -> int | tuple[int, str]:
    """Return what the engine says that a body's prompt had, or status and code of the refusal."""
    answer = ask(neuron, body)
    return answer.json()["usage"]["prompt_tokens"] if answer.is_success else refusal(answer)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code."""
    return answer.status_code, answer.json()["error"]["code"]


def together(
    bodies: Sequence[Body], do: Callable[[Body], int | tuple[int, str]]
) -> list[int | tuple[int, str]]:
    """Return what `do` says of each body, having done as many at once as the engine can."""
    with ThreadPoolExecutor(SLOTS) as pool:
        return list(pool.map(do, bodies))


def load(neuron: Daemon, source: Path) -> None:
    """Load the model."""
    options = {"context": 4096, "parallel": SLOTS, "shared_context": True, "threads": 2}
    order = {"model_id": MODEL, "source": str(source), "options": options}
    answer = neuron.http.post(f"{neuron.url}/models/load", json=order)
    assert answer.json() == {"status": "loaded"}, answer.text
