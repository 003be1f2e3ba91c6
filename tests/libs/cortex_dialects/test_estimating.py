"""Token counts where no tokenizer is at hand."""

from hypothesis import given

from cortex_dialects import estimate_tokens
from cortex_dialects.messages import to_chat
from tests.libs.cortex_dialects.completions import objects
from tests.libs.cortex_dialects.messages.requests import requests


def test_text_counts_by_its_length() -> None:
    """Four bytes a token, four tokens a message."""
    chat = {"messages": [{"role": "user", "content": "x" * 400}]}

    assert estimate_tokens(chat) == 104


def test_tools_calls_thoughts_and_images_count_too() -> None:
    """Everything that a template writes into the prompt."""
    bare = estimate_tokens({"messages": [{"role": "user", "content": "hi"}]})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}

    for more in (
        {"tools": [{"type": "function", "function": {"name": "f" * 100}}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "x" * 100}]}]},
        {"messages": [{"role": "assistant", "reasoning_content": "x" * 100}]},
        {"messages": [{"role": "user", "content": [image]}]},
    ):
        counted = estimate_tokens({"messages": [{"role": "user", "content": "hi"}], **more})
        assert bare < counted < 2000


@given(requests())
def test_every_request_has_an_estimate(body: dict[str, object]) -> None:
    """Of at least one token."""
    assert estimate_tokens(to_chat(body)) >= 1


@given(objects)
def test_no_body_crashes_it(chat: dict[str, object]) -> None:
    """Whatever stands where messages and tools should be."""
    assert estimate_tokens(chat) >= 1
