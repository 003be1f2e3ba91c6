"""The dialects of tool calls by name, and which one a model was taught."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from cortex_dialects.splitting.hermes import Hermes
from cortex_dialects.splitting.llama3 import Llama3
from cortex_dialects.splitting.mistral import Mistral
from cortex_dialects.splitting.pythonic import Pythonic
from cortex_dialects.splitting.tool_dialect import ToolDialect

#: Hermes and Qwen's coders have their tag in common: the same dialect reads both.
TOOL_DIALECTS: Mapping[str, ToolDialect] = MappingProxyType(
    {
        "hermes": Hermes(),
        "qwen_xml": Hermes(),
        "mistral": Mistral(),
        "llama3": Llama3(),
        "pythonic": Pythonic(),
    }
)

_TAGS = ("<tool_call>",)
# What a template has to show, and must not, in this order: one may speak about JSON besides.
_TAUGHT = (
    ("qwen_xml", (*_TAGS, "<function=", "<parameter="), ()),
    # Between the same tags others have keys and values in tags of their own.
    ("hermes", _TAGS, ("<arg_key>",)),
    ("mistral", ("[TOOL_CALLS]",), ()),
    ("llama3", ("<|python_tag|>",), ()),
    ("llama3", ('{"name": function name, "parameters":',), ()),
)
_LIST_OF_CALLS = re.compile(r"\[\w+\(\w+=")


def detect_tool_dialect(chat_template: str) -> str | None:
    """Return the dialect that a model's chat template teaches, None where it is none of ours."""
    for name, shown, foreign in _TAUGHT:
        if all(mark in chat_template for mark in shown) and not any(
            mark in chat_template for mark in foreign
        ):
            return name
    return None if _LIST_OF_CALLS.search(chat_template) is None else "pythonic"
