"""Where a model's folder has its chat template: the first place that has one counts.

1. `chat_template.jinja`, and others by name in `additional_chat_templates/`;
2. `chat_template.json`;
3. `tokenizer_config.json`.

The last two have one template or several with names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.model_files import read_object, read_text

#: What the template is called that is used where no other is asked for.
DEFAULT: Final = "default"
_FOLDER: Final = "additional_chat_templates"
_ENDING: Final = ".jinja"


def read_templates(folder: Path) -> dict[str, str]:
    """Return a model's chat templates by name; none where it has none. Raises PreflightFailed."""
    if (text := read_text(folder, "chat_template.jinja")) is not None:
        return {DEFAULT: text, **_additional(folder)}
    for name in ("chat_template.json", "tokenizer_config.json"):
        if found := _named((read_object(folder, name) or {}).get("chat_template"), name):
            return found
    return {}


def _additional(folder: Path) -> dict[str, str]:
    paths = sorted((folder / _FOLDER).glob(f"*{_ENDING}"))
    texts = {path.stem: read_text(folder / _FOLDER, path.name) for path in paths}
    return {name: text for name, text in texts.items() if text is not None}


def _named(value: Any, name: str) -> dict[str, str]:
    """Return the templates of one field: a text, texts by name, or a list of names and texts."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list):
        value = {one.get("name"): one.get("template") for one in value if isinstance(one, Mapping)}
    if isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    ):
        return value
    raise PreflightFailed("corrupt", f"{name} of the model has a chat template that is none")
