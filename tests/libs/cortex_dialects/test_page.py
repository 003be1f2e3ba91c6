"""The page for people who import the library: its code runs, its table knows every field."""

import re
from pathlib import Path

import pytest
from orjson import dumps

import cortex_dialects
from cortex_dialects.messages.request import _OWN_FIELDS as MESSAGES_FIELDS
from cortex_dialects.responses.request import _OWN as RESPONSES_FIELDS
from tests.libs.cortex_dialects.completions import answer_of, stream_of
from tests.libs.cortex_dialects.test_exchange import MESSAGES

PAGE = (Path(cortex_dialects.__file__).parent / "README.md").read_text()
#: Fields that the page covers with "and other advice", or with the dots at a row's end.
UNNAMED = {
    "messages", "inference_geo", "speed", "cache_control",
    "access_programs", "background_options", "client_metadata", "context_management", "image",
    "max_tool_calls", "moderation", "prompt_cache_options", "prompt_cache_retention",
    "safety_identifier", "stream_options", "top_logprobs",
}  # fmt: skip


def test_the_pages_code_runs() -> None:
    """As it stands, on a real request and a real stream."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    names = {
        **vars(cortex_dialects),
        "raw": dumps(MESSAGES),
        "chunk": stream_of([]),
        "answer": dumps(answer_of([])),
    }
    for line in code[1].splitlines():
        exec(line, names)  # noqa: S102  # our own page

    assert names["exchange"].front.model == "m"


@pytest.mark.parametrize("field", sorted((MESSAGES_FIELDS | RESPONSES_FIELDS) - UNNAMED))
def test_every_field_that_is_read_is_in_the_table(field: str) -> None:
    """Whoever adds one says there what becomes of it."""
    assert re.search(rf"`{field}\b|\b{field}`", PAGE)
