"""Qwen's coders: tags between tags, every value as it is.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Oslo
    </parameter>
    </function>
    </tool_call>

One newline after a parameter's tag and one before its end are the template's, not the value's. All
values are strings; the tool's schema says what they mean (coercion.py).
"""

import re

from cortex_dialects.splitting.json_end import Reading
from cortex_dialects.splitting.tool_dialect import ToolCall

_HEAD = "<function="
_VALUE_EDGE = re.compile(r"<parameter=|</parameter>|</function>")
_LONGEST_EDGE = len("</parameter>")
_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>(.*?)</parameter>", re.DOTALL)
_END = re.compile(r"\s*</function>\s*")


class FunctionReader:
    """Follows `<function=…>…</function>`; what stands in a parameter is quoted."""

    def __init__(self) -> None:
        self.state = Reading.GOES_ON
        self._head = ""
        self._tail = ""

    def feed(self, text: str, start: int, end: int) -> int:
        """Read on in `text[start:end]`; return how far: to the function's end, or a false start."""
        at = start
        while at < end and len(self._head) < len(_HEAD):
            self._head += text[at]
            at += 1
            if not _HEAD.startswith(self._head):
                self.state = Reading.BROKEN
                return at
        return self._body(text, at, end)

    def _body(self, text: str, at: int, end: int) -> int:
        known = len(self._tail)
        window = self._tail + text[at:end]
        for edge in _VALUE_EDGE.finditer(window):
            quoted = self.state is Reading.QUOTED
            if edge.group() == "</function>" and not quoted:
                self.state = Reading.ENDED
                return at + edge.end() - known
            if edge.group() == "</parameter>":
                self.state = Reading.GOES_ON
            elif edge.group() == "<parameter=":
                self.state = Reading.QUOTED
        # An edge that is seen twice says the same again.
        self._tail = window[-(_LONGEST_EDGE - 1) :]
        return end


def parse_function(block: str) -> list[ToolCall] | None:
    """Return the one call in a block, None where it is malformed or says a parameter twice."""
    function = _FUNCTION.match(block)
    if function is None:
        return None
    arguments: dict[str, str] = {}
    at = function.end()
    while (parameter := _PARAMETER.match(block, at)) is not None:
        key, value = parameter.groups()
        if key in arguments:
            return None
        arguments[key] = value.removeprefix("\n").removesuffix("\n")
        at = parameter.end()
    if _END.fullmatch(block, at) is None:
        return None
    return [ToolCall(function.group(1), dict(arguments))]
