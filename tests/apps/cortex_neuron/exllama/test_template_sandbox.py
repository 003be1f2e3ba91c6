"""A template from a stranger: no way out, no end of time, no end of memory."""

from contextlib import suppress
from datetime import datetime
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError, TemplateError

from cortex_neuron.exllama import template_sandbox
from cortex_neuron.exllama.template_sandbox import MAX_CHARS, TemplateEnvironment

MESSAGES = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Hi"}]
ENVIRONMENT = TemplateEnvironment(lambda: datetime(2026, 2, 3))  # noqa: DTZ001  # as a template has it


def run(source: str, **variables: Any) -> str:
    """What a template writes."""
    given = {"messages": MESSAGES, **variables}
    return ENVIRONMENT.run(ENVIRONMENT.from_string(source), given)


def doubling(start: str, step: str) -> str:
    """A template whose `ns.x` grows from `start`, by the same step ninety-nine times."""
    loop = "{% for i in range(99) %}{% set ns.x = " + step + " %}{% endfor %}"
    return "{% set ns = namespace(x=" + start + ") %}" + loop


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            (
                "{% for m in messages %}{{ loop.index0 }}{{ loop.length }}"
                "{{ '|' if not loop.last }}{% endfor %}"
            ),
            "02|12",
        ),
        (
            (
                "{% for m in messages if m.role == 'user' %}"
                "{{ m['content'].split(' ')[-1] }}{% endfor %}"
            ),
            "there",
        ),
        ("{% for x in nothing %}a{% else %}none{% endfor %}", "none"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", "x"),
        (
            (
                "{% for m in messages %}{{ loop.previtem is defined }}"
                "{{ loop.nextitem is defined }};{% endfor %}"
            ),
            "FalseTrue;TrueFalse;",
        ),
        (
            (
                "{% set n = namespace(i=0) %}{% for i in [1, 9] %}"
                "{% set n.i = n.i + i %}{% endfor %}{{ n.i }}"
            ),
            "10",
        ),
        ("{{ {'b': 'é<', 'a': [1, none, true]} | tojson }}", '{"b": "é<", "a": [1, null, true]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant"),
        (
            "{{ messages | join(' ', attribute='role') }}{{ ', '.join(['a', 1|string]) }}",
            "user assistanta, 1",
        ),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages[::-1][0].content ~ 1 ~ none }}", "Hi1None"),
        ("[{{ none }}{{ missing }}{{ true }}]", "[True]"),
        (
            (
                "{{ 'a\nb' | indent(2) }}{{ 'aXb'.replace('X', '-') }}"
                "{{ 'aa' | replace('a', 'b', 1) }}"
            ),
            "a\n  ba-bba",
        ),
        (
            "{{ 2.567 | round(1) }}{{ 7 % 3 }}{{ 2 ** 8 }}{{ '%s-%d' % ('a', 3) }}{{ 'ab' * 2 }}",
            "2.61256a-3abab",
        ),
        (
            "{% macro f(x) %}[{{ x }}{{ caller() }}]{% endmacro %}{% call f(2) %}in{% endcall %}",
            "[2in]",
        ),
        (
            "{% set x | upper %}a{{ 'b' }}{% endset %}{{ x }}{% filter upper %}c{% endfilter %}",
            "ABC",
        ),
        (
            "{% set a, b = 1, [2] %}{{ a }}{{ b }}{{ (1, 2) }}{{ {'k': a}.items() | list }}",
            "1[2](1, 2)[('k', 1)]",
        ),
        ("{% generation %}{{ 'x' }}y{% endgeneration %}", "xy"),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2026"),
        ("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        (
            "{{ messages[0].content | trim | lower }}{{ 'Hello'.startswith('He') }}",
            "hello thereTrue",
        ),
        ("{{ range(3) | list }}{{ dict(a=1) }}", "[0, 1, 2]{'a': 1}"),
        ("{{ '%s=%d' | format('a', 1) }}", "a=1"),
        ("{{ '<' | e }}{{ ('<b>' | safe) + '<' }}", "&lt;<b>&lt;"),
    ],
)
def test_what_templates_do_works_as_they_know_it(source: str, expected: str) -> None:
    """The measuring changes nothing of it."""
    assert run(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x'.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ messages | map(attribute='__class__') | join }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ ['{0.__class__}'] | map('format', 1) | join }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ lipsum.__globals__ }}",
        "{{ self.__init__ }}",
    ],
)
def test_there_is_no_way_out(source: str) -> None:
    """Nothing of Python, of files or of what the template was given can be reached or changed."""
    before = repr(MESSAGES)
    try:
        written = run(source)
    except Exception as error:  # noqa: BLE001  # whatever it is, it was refused
        written = str(error)

    assert "root:" not in written
    assert "<class 'object'>" not in written
    assert repr(MESSAGES) == before


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
        "{% for m in range(99) recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}",
        "{% set l = range(99999) | list %}{% for i in l %}{{ (l | sort)[0] }}{% endfor %}",
    ],
)
def test_there_is_an_end_of_time(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the steps are nested."""
    monkeypatch.setattr(template_sandbox, "MAX_SECS", 0.05)
    began = thread_time()

    with pytest.raises(SecurityError, match="too long"):
        run(source)
    assert thread_time() - began < 1


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 9 ** 9999 ** 9 }}",
        doubling("9", "ns.x * ns.x"),
        doubling("'ab'", "ns.x ~ ns.x"),
        doubling("'ab'", "ns.x + ns.x"),
        doubling("['a']", "[ns.x, ns.x]"),
        doubling("['a']", "(ns.x, ns.x)"),
        doubling("['a']", "{1: ns.x, 2: ns.x}"),
        doubling("['a']", "dict(a=ns.x, b=ns.x)"),
        "{% macro f(x, n) %}{{ f(x ~ x, n - 1) if n else x }}{% endmacro %}{{ f('a', 99) }}",
        (
            "{% macro f(n) %}{% set x %}{{ f(n - 1) * 9 if n else 'a' }}"
            "{% endset %}{{ x }}{% endmacro %}{{ f(8) }}"
        ),
        "{{ '%999999999d' % 1 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%*d' % (99999999, 1) }}",
        "{{ '%.99999999f' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ ('a' * 999999) | replace('a', 'b' * 999999) }}",
        "{{ ('a' * 999999).replace('a', 'b' * 999999) }}",
        "{{ range(99999) | join('b' * 999999) }}",
        "{{ ('b' * 999999).join(range(99999) | map('string')) }}",
        "{{ ('\n' * 999999) | indent(99) }}",
        "{{ 'a' | indent(10**9) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ (1).to_bytes(10**9, 'big') }}",
        "{{ range(10**9) | list }}",
        "{{ strftime_now('%c' * 9999) }}",
        "{% for i in range(99999) %}{{ 'x' * 999999 }}{% endfor %}",
        "{% for i in range(99999) %}" + "x" * 99999 + "{% endfor %}",
        "{% set y %}{% for i in range(99999) %}{{ 'x' * 999999 }}{% endfor %}{% endset %}",
        (
            "{% macro f() %}{% for i in range(9999) %}{{ 'x' * 999999 }}"
            "{% endfor %}{% endmacro %}{{ f() }}"
        ),
    ],
)
def test_there_is_an_end_of_memory(source: str) -> None:
    """What would be too large is refused before it is there."""
    with pytest.raises((SecurityError, OverflowError)):
        run(source)


def test_a_prompt_may_be_as_long_as_any_context() -> None:
    """Megabytes of conversation pass, in no time to speak of."""
    long = [{"role": "user", "content": "x" * 100_000}] * 70
    began = thread_time()
    text = run("{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}", messages=long)

    assert len(text) == 70 * 100_004
    assert len(text) < MAX_CHARS
    assert thread_time() - began < 1


def test_a_conversation_is_longer_than_any_limit() -> None:
    """Then it says so instead of filling the memory."""
    with pytest.raises(SecurityError, match="too much"):
        run("{% for m in messages %}{{ m }}{% endfor %}", messages=["x" * 100_000] * 90)


def test_what_a_template_refuses_comes_out_in_its_words() -> None:
    """They are for whoever sent the conversation."""
    with pytest.raises(TemplateError, match="roles must alternate"):
        run("{{ raise_exception('roles must alternate') }}")


@given(st.text("{}%#'\"()[]|~+*-. abfornimseti01x\n", max_size=40))
def test_any_source_is_run_or_fails(source: str) -> None:
    """In an ordinary way, and soon."""
    began = thread_time()
    with suppress(Exception):
        run(source)

    assert thread_time() - began < 1
