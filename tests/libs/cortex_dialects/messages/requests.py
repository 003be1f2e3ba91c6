"""Messages requests for tests, in the form that a way there and back leaves as it is."""

from typing import Any

from hypothesis import strategies as st

from tests.libs.cortex_dialects.completions import names, objects, texts

_images = st.sampled_from(
    [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
        },
    ]
)
_text_blocks = st.builds(lambda text: {"type": "text", "text": text}, texts)


@st.composite
def _user(draw: st.DrawFn, open_calls: list[str]) -> dict[str, Any]:
    results = [
        {"type": "tool_result", "tool_use_id": call, "content": draw(st.text(max_size=8))}
        for call in open_calls
    ]
    if results:
        return {"role": "user", "content": results + draw(st.lists(_text_blocks, max_size=2))}
    content = draw(texts | st.lists(_text_blocks | _images, min_size=2, max_size=3))
    return {"role": "user", "content": content}


@st.composite
def _assistant(draw: st.DrawFn, number: int) -> tuple[dict[str, Any], list[str]]:
    text = draw(texts)
    if draw(st.booleans()):
        return {"role": "assistant", "content": text}, []
    blocks: list[dict[str, Any]] = []
    if draw(st.booleans()):
        blocks.append({"type": "thinking", "thinking": draw(texts), "signature": ""})
    if draw(st.booleans()):
        blocks.append({"type": "text", "text": text})
    calls = [f"toolu_{number}_{n}" for n in range(draw(st.integers(1, 2)))]
    for call in calls:
        use = {"type": "tool_use", "id": call, "name": draw(names), "input": draw(objects)}
        blocks.append(use)
    return {"role": "assistant", "content": blocks}, calls


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Return a request with everything that both dialects can express."""
    turns: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for number in range(draw(st.integers(0, 3))):
        turns.append(draw(_user(open_calls)))
        turn, open_calls = draw(_assistant(number))
        turns.append(turn)
    turns.append(draw(_user(open_calls)))
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": draw(st.integers(1, 9999)),
        "messages": turns,
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "system": texts,
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.sampled_from([0.1, 1]),
        "top_k": st.integers(0, 99),
        "stream": st.just(True),
        "stop_sequences": st.lists(texts, max_size=2),
        "metadata": st.builds(lambda user: {"user_id": user}, texts),
        "thinking": st.just({"type": "adaptive"})
        | st.builds(lambda n: {"type": "enabled", "budget_tokens": n}, st.integers(1024, 9999)),
        "output_config": st.fixed_dictionaries(
            {"effort": st.sampled_from(["low", "high"])},
            optional={"format": st.builds(lambda o: {"type": "json_schema", "schema": o}, objects)},
        ),
    }
    body |= draw(st.fixed_dictionaries({}, optional=optional))
    if draw(st.booleans()):
        body["tools"] = draw(
            st.lists(
                st.fixed_dictionaries(
                    {"name": names, "input_schema": objects},
                    optional={"description": texts, "strict": st.booleans()},
                ),
                min_size=1,
                max_size=3,
            )
        )
        choices = [{"type": "any"}, {"type": "auto"}, {"type": "tool", "name": "f"}]
        alone = st.fixed_dictionaries({}, optional={"disable_parallel_tool_use": st.booleans()})
        chosen = st.builds(lambda choice, more: {**choice, **more}, st.sampled_from(choices), alone)
        body |= draw(
            st.fixed_dictionaries({}, optional={"tool_choice": chosen | st.just({"type": "none"})})
        )
    return body
