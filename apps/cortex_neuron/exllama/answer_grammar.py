"""The grammar of a whole answer: thoughts where the model has them, then the form or the calls.

Calls are of the tools on offer, with arguments by each one's schema, in the way that the model was
taught, where that is of JSON; otherwise they are bare objects.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orjson import JSONEncodeError, dumps

from cortex_core.errors import InvalidRequest
from cortex_dialects.splitting import ThinkMarkers
from cortex_neuron.exllama.answer_form import LONGEST, AnswerForm, json_grammar
from cortex_neuron.exllama.answer_style import AnswerStyle
from cortex_neuron.exllama.grammar import Grammar, Grammars

_ANYTHING = "(?s:.*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls that an answer may have: the tools' schemas by name, and whether more than one."""

    tools: Mapping[str, dict[str, Any] | None]
    several: bool


def compile_answer(
    grammars: Grammars,
    style: AnswerStyle,
    *,
    form: AnswerForm | None,
    calls: Calls | None,
    prompt: str,
) -> Grammar:
    """Return the grammar of an answer in a form, of calls, or of either. Raises InvalidRequest.

    Where `prompt` has opened the thoughts, they come first; where it has closed them, none come.
    """
    rules: list[str] = []
    named: list[dict[str, Any]] = []
    bodies: list[str] = []
    if form is not None:
        bodies.append("@form")
        named.append({"name": "form", **form.grammar})
    if calls is not None:
        bodies.append("calls")
        rules += _calls(grammars, style, calls)
        named += [
            {"name": f"arguments{number}", **json_grammar(schema or {"type": "object"})}
            for number, schema in enumerate(calls.tools.values())
        ]
    thoughts, thinking = _thoughts(grammars, style, prompt)
    start = f"start: {thoughts} ({' | '.join(bodies)})"
    lark = "\n".join([start, *rules, *thinking])
    param = "tools" if form is None else form.param
    try:
        source = dumps({"grammars": [{"lark_grammar": lark}, *named]})
    except JSONEncodeError as error:
        raise InvalidRequest(f"{param!r} is nested too deeply", param=param) from error
    if len(source) > 2 * LONGEST:
        raise InvalidRequest(f"{param!r} has schemas that are too long", param=param)
    return grammars.compile(source.decode(), param=param)


def _thoughts(grammars: Grammars, style: AnswerStyle, prompt: str) -> tuple[str, list[str]]:
    """Return the expression for thoughts before the answer, and its rules."""
    if (opened := style.opened(prompt)) is not None:
        end, rule = _closing(grammars, opened, 0)
        return f"{end} GAP", [rule, _GAP]
    if not style.markers or style.closed(prompt):
        return "", []
    pairs = [(pair, _closing(grammars, pair, at)) for at, pair in enumerate(style.markers)]
    ways = [f"{grammars.marker(pair.open)} {end} GAP" for pair, (end, _) in pairs]
    return f"({' | '.join(ways)})?", [*(rule for _, (_, rule) in pairs), _GAP]


# What templates write between thoughts and answer.
_GAP = r"GAP: /[\r\n]{0,4}/"


def _closing(grammars: Grammars, pair: ThinkMarkers, number: int) -> tuple[str, str]:
    """Return the expression for thoughts up to their close marker, and its rule."""
    name = f"thoughts{number}"
    if grammars.is_token(pair.close):
        return f"{name} {grammars.marker(pair.close)}", f"{name}: /{_ANYTHING}/"
    close = re.escape(pair.close).replace("/", r"\/")
    return name, f"{name}[lazy]: /{_ANYTHING}{close}/"


def _calls(grammars: Grammars, style: AnswerStyle, calls: Calls) -> list[str]:
    """Return the rules for calls, which `calls` is the first of."""
    dialect = style.call_dialect
    key = "parameters" if dialect == "llama3" else "arguments"
    objects = [
        f"{_text(_begun(name, key))} @arguments{number} {_text('}')}"
        for number, name in enumerate(calls.tools)
    ]
    one = f"call: {' | '.join(objects)}"
    if dialect == "mistral":
        opener = grammars.marker("[TOOL_CALLS]")
        if not style.names_first:
            more = f"({_text(', ')} call)*" if calls.several else ""
            return [f"calls: {opener} {_text('[')} call {more} {_text(']')}", one]
        named = [
            f"{_text(name)} {grammars.marker('[ARGS]')} @arguments{number}"
            for number, name in enumerate(calls.tools)
        ]
        return [_repeated(f"{opener} call", "", calls), f"call: {' | '.join(named)}"]
    if dialect == "llama3":
        return [_repeated("call", _text("; "), calls), one]
    newline = _text("\n")
    opener, closer = grammars.marker("<tool_call>"), grammars.marker("</tool_call>")
    tagged = f"{opener} {newline} call {newline} {closer}"
    return [_repeated(tagged, newline, calls), one]


def _begun(name: str, key: str) -> str:
    """Return a call's JSON up to its arguments."""
    return f'{{"name": {_text(name)}, "{key}": '


def _repeated(call: str, between: str, calls: Calls) -> str:
    more = f" ({between} {call})*" if calls.several else ""
    return f"calls: {call}{more}"


def _text(text: str) -> str:
    return dumps(text).decode()
