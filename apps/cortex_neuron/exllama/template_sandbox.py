"""Jinja for templates that anybody may have written: no way out, and bounds on time and size.

Chat templates come with models from strangers. Beside Jinja's own sandbox (no private attributes,
nothing is changed, nothing is imported):

1. every turn of a loop, every call and every output looks at the clock (processor time of this
   thread): a template has `MAX_SECS`;
2. every value that a template makes is measured, containers with all that is in them, and so is
   what is printed: `MAX_CHARS` each. What would first have to be made to be measured
   (`'x' * 10**9`, a replacement, an indent) is reckoned up before;
3. filters and methods that no chat template needs and that make much out of a number are not there.

A single step may still take what a pass over `MAX_CHARS` characters takes.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from time import thread_time
from typing import Any, Final, NoReturn, cast

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SECS: Final = 5.0
MAX_CHARS: Final = 8 << 20
_MAX_PRINTED: Final = 4 * MAX_CHARS  # What a macro prints is printed again where it is called.
_ELEMENT: Final = 8  # Characters that an element of a container counts for.
_MAX_BITS: Final = 4096
_MAX_DIGITS: Final = 30
_MAX_INDENT: Final = 100
_MAX_TIME_FORMAT: Final = 200

_FILTERS: Final = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
    *("groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject"),
    *("rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string", "title", "trim"),
    *("truncate", "unique", "upper", "wordcount"),
)
_NO_METHODS: Final = frozenset(
    {
        *("center", "encode", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"),
        *("maketrans", "translate", "to_bytes", "from_bytes"),
    }
)
_WIDE_FORMAT: Final = re.compile(r"%[^%a-zA-Z]*(?:\*|\d{4})")


class _Account:
    """What one rendering has used."""

    def __init__(self) -> None:
        self._end = thread_time() + MAX_SECS
        self._printed = 0

    def tick(self) -> None:
        if thread_time() > self._end:
            raise SecurityError("it takes too long")

    def print(self, size: int) -> None:
        self.tick()
        self._printed += size
        if self._printed > _MAX_PRINTED:
            raise SecurityError("it writes too much")


_ACCOUNT: ContextVar[_Account] = ContextVar("account")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates; `render` runs them. `clock` is what `strftime_now` tells."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _GenerationTag],
            finalize=_printed,
            # What it worked out while compiling would be out of all bounds.
            optimized=False,
        )
        self.filters = {name: FILTERS[name] for name in _FILTERS}
        self.filters |= {"tojson": _to_json, "join": _join_filter, "replace": _replace}
        self.filters |= {"indent": _indent, "round": _round, "format": _format}
        self.filters |= {"bounded": _bounded, "counted": _counted}
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _raise,
            "strftime_now": lambda form: _now(clock, form),
        }

    def run(self, template: Template, variables: dict[str, Any]) -> str:
        """Return what a compiled template writes. Whatever it raises comes out."""
        token = _ACCOUNT.set(_Account())
        try:
            text = template.render(variables)
        finally:
            _ACCOUNT.reset(token)
        if len(text) > MAX_CHARS:
            raise SecurityError("it writes too much")
        return text

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = Parser(self, source, name, filename).parse()
        bounded: nodes.Template = _Bounding().visit(tree)
        bounded.set_environment(self)
        return bounded

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Tell whether a template may see an attribute."""
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Return none: `format` is not there at all."""
        del value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator, where it is no larger than may be."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check(left.bit_length() * max(0, right) <= _MAX_BITS)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        return bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls."""
        _ACCOUNT.get().tick()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            return _join(args[0], owner)
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args)
        return super().call(context, obj, *args, **kwargs)


class _Bounding(NodeTransformer):
    """Puts the measuring into a template."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, "counted")
        elif isinstance(node, nodes.AssignBlock):
            node.filter = _filtered(node.filter, "bounded")
        elif isinstance(node, nodes.CallBlock):
            node.call = cast("nodes.Call", cast("nodes.Filter", node.call).node)  # It must be one.
        elif isinstance(node, nodes.TemplateData):
            return nodes.Const(node.data, lineno=node.lineno)
        elif isinstance(node, nodes.Concat):
            node.nodes = [_filtered(one, "bounded") for one in node.nodes]
            return _filtered(node, "bounded")
        elif isinstance(node, nodes.Call | nodes.Filter | nodes.List | nodes.Dict) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        ):
            return _filtered(node, "bounded")
        return node


def _filtered(node: Any, name: str) -> nodes.Filter:
    lineno = 0 if node is None else node.lineno
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)


class _GenerationTag(Extension):
    """`{% generation %}`: what the model is trained on, which is of no matter here."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A template's variables. Printed, it is a word: what is in it may have no end."""

    def __repr__(self) -> str:
        return "namespace"


def bounded(value: Any) -> Any:
    """Return `value` where it is no larger than may be. Raises SecurityError."""
    if isinstance(value, str):
        _check(len(value) <= MAX_CHARS)
    elif isinstance(value, int):
        _check(value.bit_length() <= _MAX_BITS)
    elif isinstance(value, list | tuple | dict | set):
        _check(_size(value, MAX_CHARS) <= MAX_CHARS)
    return value


def _size(value: Any, limit: int) -> int:
    """Return the characters that a container and all in it count for, or more than `limit`."""
    size = 0
    waiting: list[Any] = [value]
    while waiting and size + len(waiting) * _ELEMENT <= limit:
        one = waiting.pop()
        size += _ELEMENT
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple | set):
            waiting += one
    return size + len(waiting) * _ELEMENT


def _check(fits: bool) -> None:  # noqa: FBT001  # the condition itself
    if not fits:
        raise SecurityError("it makes something too large")


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, str):
            _check(len(other) * one <= MAX_CHARS)
        elif isinstance(one, int) and isinstance(other, list | tuple):
            _check(_size(other, MAX_CHARS) * one <= MAX_CHARS)
        elif isinstance(one, int) and isinstance(other, int):
            _check(one.bit_length() + other.bit_length() <= _MAX_BITS)


def _check_format(form: str) -> None:
    _check(_WIDE_FORMAT.search(form) is None)


@pass_context
def _printed(context: Context, value: Any) -> Any:  # noqa: ARG001  # so that Jinja takes nothing for constant
    """What is printed for a value: nothing for None, which is what clients' null becomes."""
    text = "" if value is None else value if isinstance(value, str) else str(value)
    _ACCOUNT.get().print(len(text))
    return text


@pass_context
def _bounded(context: Context, value: Any) -> Any:  # noqa: ARG001  # as above
    return bounded(value)


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    account = _ACCOUNT.get()
    for value in values:
        account.tick()
        yield value


def _to_json(value: Any, ensure_ascii: bool = False, **form: Any) -> str:  # noqa: FBT001, FBT002  # as templates call it
    indent = form.get("indent")
    steps = len(indent) if isinstance(indent, str) else indent or 0
    _check(isinstance(steps, int) and steps <= _MAX_INDENT)
    known = {key: form[key] for key in ("indent", "separators", "sort_keys") if key in form}
    return json.dumps(value, ensure_ascii=ensure_ascii, **known)


@pass_context
def _join_filter(context: Context, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = FILTERS["map"](context, value, attribute=attribute)
    return _join(value, glue=str(d))


def _join(values: Iterable[Any], glue: str) -> str:
    size, texts = 0, list[str]()
    for value in values:
        texts.append(str(value))
        size += len(glue) + max(_ELEMENT, len(texts[-1]))
        _check(size <= MAX_CHARS)
    return glue.join(texts)


def _replace(text: Any, old: Any, new: Any, count: int | None = -1) -> str:
    before, new = str(text), str(new)
    _check(len(before) + before.count(str(old)) * len(new) <= MAX_CHARS)
    return before.replace(str(old), new, -1 if count is None else count)


def _format(form: Any, *args: Any, **kwargs: Any) -> str:
    _check_format(str(form))
    return str(FILTERS["format"](str(form), *args, **kwargs))


def _indent(text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:  # noqa: FBT001, FBT002  # as templates call it
    text, steps = str(text), len(width) if isinstance(width, str) else width
    _check(steps <= _MAX_INDENT and len(text) + (text.count("\n") + 1) * steps <= MAX_CHARS)
    return str(FILTERS["indent"](text, width, first, blank))


def _round(value: Any, precision: int = 0, method: str = "common") -> float:
    _check(abs(precision) <= _MAX_DIGITS)
    return float(FILTERS["round"](value, precision, method))


def _raise(message: Any = "") -> NoReturn:
    raise TemplateError(str(message))


def _now(clock: Callable[[], datetime], form: Any) -> str:
    _check(isinstance(form, str) and len(form) <= _MAX_TIME_FORMAT)
    return clock().strftime(form)
