"""An unstreamed answer is the fold of the streamed one."""

from cortex_dialects import CompletionFold
from tests.libs.cortex_dialects.streams import DONE, HELLO, ROLE, USAGE, delta, frame


def folded(*chunks: bytes) -> dict[str, object]:
    """Fold these bytes."""
    fold = CompletionFold()
    for chunk in chunks:
        fold.feed(chunk)
    return fold.answer()


def test_text_usage_and_finish_come_together() -> None:
    """The shape of `/v1/chat/completions`."""
    answer = folded(HELLO)

    assert answer == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE["usage"],
    }


def test_an_answer_without_text_is_empty_and_not_null() -> None:
    """Tokens ran out in the middle of a character; a client still finds a string."""
    answer = folded(frame(ROLE), frame(delta(None, finish_reason="length")), DONE)

    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}  # type: ignore[index]


def test_tool_calls_are_put_together() -> None:
    """Ids and names come once, arguments in pieces."""

    def call(**part: object) -> bytes:
        chunk = delta(None)
        chunk["choices"][0]["delta"] = {"tool_calls": [{"index": 0, **part}]}
        return frame(chunk)

    answer = folded(
        frame(ROLE),
        call(id="t1", type="function", function={"name": "f", "arguments": '{"a"'}),
        call(function={"arguments": ":1}"}),
        frame(delta(None, finish_reason="tool_calls")),
        DONE,
    )

    message = answer["choices"][0]["message"]  # type: ignore[index]
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }


def test_thoughts_and_logprobs_are_kept() -> None:
    """Whatever streams, folds."""
    first = delta("a", logprobs={"content": [{"token": "a"}]})
    second = delta("b", logprobs={"content": [{"token": "b"}]})
    second["choices"][0]["delta"]["reasoning_content"] = "hm"

    choice = folded(frame(first), frame(second))["choices"][0]  # type: ignore[index]

    assert choice["message"]["reasoning_content"] == "hm"
    assert [one["token"] for one in choice["logprobs"]["content"]] == ["a", "b"]


def test_text_completions_fold_into_text() -> None:
    """The shape of `/v1/completions`, two answers side by side."""

    def piece(index: int, text: str, reason: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        return frame({"id": "t", "object": "text_completion", "choices": [choice]})

    answer = folded(piece(1, "x"), piece(0, "a"), piece(0, "b", "length"), piece(1, "y", "stop"))

    assert answer["object"] == "text_completion"
    assert [(c["text"], c["finish_reason"]) for c in answer["choices"]] == [  # type: ignore[attr-defined]
        ("ab", "length"),
        ("xy", "stop"),
    ]
