"""Lines of a head: to the letter, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.head_lines import MalformedHead, is_token, split_field, split_head


def test_a_head_is_cut_at_cr_lf() -> None:
    """Blanks at a line's end belong to it."""
    assert split_head(b"a \r\nb\r\n") == ["a ", "b", ""]


@pytest.mark.parametrize("raw", [b"a\nb", b"a\rb", b"a\r\r\nb", b"a\r\n\nb", b"a\0b", b"\n", b"\r"])
def test_no_other_end_of_a_line_is_taken_for_one(raw: bytes) -> None:
    """Nor is it left inside a line, where the next reader may take it for one."""
    with pytest.raises(MalformedHead):
        split_head(raw)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("Name: value", ("name", "value")),
        ("name:value", ("name", "value")),
        ("n: \t a b\tc \t", ("n", "a b\tc")),
        ("n:", ("n", "")),
        ("n: a:b", ("n", "a:b")),
        ("X!#$%&'*+-.^_`|~9: \x80\xff\xa0", ("x!#$%&'*+-.^_`|~9", "\x80\xff\xa0")),
        ("n: \xa0v\x85", ("n", "\xa0v\x85")),
    ],
)
def test_a_field_is_a_name_in_small_letters_and_a_value(line: str, field: tuple[str, str]) -> None:
    """Only blanks and tabs around the value are no part of it."""
    assert split_field(line) == field
    assert split_field(line) == field  # also when the name is known already


@pytest.mark.parametrize(
    "line",
    ["", "n", ": v", " n: v", "\tn: v", "n : v", "n\t: v", "n m: v", "n(: v", "\xe4: v", "n\xaa: v"]
    + [f"n: a{chr(code)}b" for code in (*range(9), *range(10, 32), 127)],
)
def test_what_is_no_field_is_refused(line: str) -> None:
    """A line that goes on with the one before, above all."""
    with pytest.raises(MalformedHead):
        split_field(line)


def test_names_without_end_are_not_remembered_without_end() -> None:
    """Whoever sends ever new ones fills no memory, and is understood all the same."""
    for number in range(5000):
        assert split_field(f"X-{number}: y") == (f"x-{number}", "y")
    long = "X" * 5000
    assert split_field(f"{long}: y") == (long.lower(), "y")


@given(st.text(max_size=6))
def test_a_token_has_no_delimiters_and_nothing_beyond_ascii(text: str) -> None:
    """Nor is it empty."""
    allowed = set("!#$%&'*+-.^_`|~")
    right = bool(text) and all(c in allowed or (c.isascii() and c.isalnum()) for c in text)

    assert is_token(text) is right


@given(st.text(st.characters(max_codepoint=255), max_size=12))
def test_any_line_is_a_field_or_refused(line: str) -> None:
    """With a name that is a token, and no control characters but tabs in its value."""
    try:
        name, value = split_field(line)
    except MalformedHead:
        return
    assert is_token(name)
    assert name == name.lower()
    assert value == value.strip(" \t")
    assert not any((ord(c) < 32 and c != "\t") or c == "\x7f" for c in value)
