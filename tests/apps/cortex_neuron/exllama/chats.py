"""Small chat templates, one for each way of calling tools, and tools to call."""

from typing import Any

from cortex_neuron.exllama.prompt_reader import PromptReader
from cortex_neuron.exllama.templates import ChatTemplate
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if enable_thinking %}<think>\n{% elif enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}" + _TURNS,
    "mistral": "{% if tools %}[TOOL_CALLS]{{ tools | tojson }}{% endif %}" + _TURNS,
    "mistral_names": "{% if tools %}[TOOL_CALLS]f[ARGS]{{ tools | tojson }}{% endif %}" + _TURNS,
    "llama3": "{% if tools %}<|python_tag|>{{ tools | tojson }}{% endif %}" + _TURNS,
    "unknown": "{% if tools %}{{ tools | tojson }}{% endif %}" + _TURNS,
    "none": _TURNS,
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"city": {"enum": ["Oslo", "Rome"]}},
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "additionalProperties": False}},
}
USER = {"role": "user", "content": "Hello."}


def reader(template: str) -> PromptReader:
    """What is known of a model with this template."""
    return PromptReader(
        bytes_vocabulary(),
        ChatTemplate({"default": TEMPLATES[template]}, named={"eos_token": "<|im_end|>"}),
    )
