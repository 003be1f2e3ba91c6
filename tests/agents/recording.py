"""Requests of agents as fixtures: their structure, without their prompts and without this machine.

Names, types and numbers stay. What is not ours to keep becomes `<text of N characters>`, ids become
counted ones (the same id the same again, over all requests of one run), paths become examples.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orjson import JSONDecodeError, loads

from tests.agents.scripted_node import COMMAND, CONTENT, FILE, FINAL_TEXT, FIRST_TEXT, TASK
from tests.agents.wiretap import Seen

#: Our own words, which come back to us in the requests.
_OURS = frozenset({TASK, COMMAND, CONTENT, FILE, "".join(FIRST_TEXT), "".join(FINAL_TEXT)})
#: Cortex knows this block by its first words.
_BILLING = "x-anthropic-billing-header:"
_WORD = re.compile(r"[\w.:/$@#?=&+-]{0,80}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}")
_DIGIT = re.compile(r"[0-9a-f]")
#: What people wrote, however short.
_PROSE = frozenset({"content", "description", "instructions", "output", "text"})
_HEADERS_WITHOUT_MEANING = frozenset({"content-length", "host"})


class Scrubber:
    """Takes out of the requests of one run what must not be kept. `folder` is where it ran."""

    def __init__(self, folder: Path) -> None:
        self._folders = {str(folder / "project"): "/home/user/project"}
        self._folders |= {str(folder / "home"): "/home/user"}
        self._ids: dict[str, str] = {}

    def fixture(self, seen: Seen) -> dict[str, Any]:
        """Return a request as it is kept."""
        return {
            "method": seen.method,
            "path": seen.path,
            "headers": {
                name: self._header(name, value)
                for name, value in seen.headers.items()
                if name not in _HEADERS_WITHOUT_MEANING
            },
            "body": self._value(loads(seen.body)) if seen.body else None,
        }

    def _header(self, name: str, value: str) -> str:
        match name:
            case "authorization":
                return "Bearer <secret>"
            case "user-agent":
                return value.partition(" ")[0]  # what follows describes the machine
            case _ if value.startswith("{"):
                return _compact(self._value(loads(value)))
            case _:
                return self._without_ids(value)

    def _value(self, value: Any, key: str = "") -> Any:
        match value:
            case dict():
                return {name: self._value(one, name) for name, one in value.items()}
            case list():
                return [self._value(one) for one in value]
            case str():
                return self._text(value, key)
            case int() if key.endswith("_ms"):
                return 0
            case _:
                return value

    def _text(self, text: str, key: str) -> str:
        if text in _OURS:
            return text
        if text.startswith(_BILLING):
            return f"{_BILLING} {_placeholder(text)}"
        if key in _PROSE:
            return _placeholder(text)
        if text.startswith("{"):
            return self._object(text)
        for real, example in self._folders.items():
            text = text.replace(real, example)
        return self._without_ids(text) if _WORD.fullmatch(text) else _placeholder(text)

    def _object(self, text: str) -> str:
        try:
            value = loads(text)
        except JSONDecodeError:
            return _placeholder(text)
        return _compact(self._value(value))

    def _without_ids(self, text: str) -> str:
        return _ID.sub(lambda found: self._counted(found[0]), text)

    def _counted(self, real: str) -> str:
        number = self._ids.setdefault(real, f"{len(self._ids) + 1}")
        return _DIGIT.sub("0", real)[: -len(number)] + number


def write(folder: Path, agent: str, run_in: Path, kept: Iterable[tuple[str, Seen]]) -> None:
    """Write the named requests of one run as `<agent>-<name>.json`."""
    scrubber = Scrubber(run_in)
    for name, seen in kept:
        text = json.dumps(scrubber.fixture(seen), indent=1, ensure_ascii=False)
        (folder / f"{agent}-{name}.json").write_text(f"{text}\n")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _placeholder(text: str) -> str:
    return f"<text of {len(text)} characters>"
