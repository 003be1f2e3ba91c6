"""Which of the official SDKs' own tests are run, and what they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

#: What the suites import and our own environment lacks.
TEST_PACKAGES: Final = (
    "asttokens==3.0.2",
    "executing==2.3.0",
    "http-snapshot==0.1.9",
    "inline-snapshot==0.32.5",
)
#: Every name that the suites ask for: the model behind it is the small one.
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "claude-*": "demo",
        "gpt-*": "demo",
        "model": "demo",
        "model_id": "demo",
        "text-embedding-*": "embed",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tests of one SDK. `base_path` is what its clients have behind the host."""

    package: str
    base_path: str
    files: Sequence[str]
    options: Sequence[str] = ()


SUITES: Final = (
    Suite(
        package="anthropic",
        base_path="",
        files=("test_messages", "test_models", "beta/test_messages", "beta/test_models"),
        options=("-p", "tests._alias_httpx"),
    ),
    Suite(
        package="openai",
        base_path="/v1",
        files=(
            "chat/test_completions",
            "test_completions",
            "test_embeddings",
            "test_models",
            "test_responses",
            "responses/test_input_tokens",
        ),
    ),
)
