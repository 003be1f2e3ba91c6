"""A model's own chat template: a conversation as the one text that the model was taught.

What a template gets is what it would get from the library that models are made with:

1. `messages` as they came, but text in parts is one text (unless the template goes through the
   parts), a call's arguments are values and not JSON text, null is empty, no calls are none, and a
   developer is the system where the template does not know developers;
2. `tools`, `add_generation_prompt`, the texts of the special tokens, and what the request says in
   `chat_template_kwargs`;
3. where it refuses, it gets the conversation once more with all that the system says in front.

What begins a text (a bos) is the template's to say: the prompt is encoded without another.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Template, meta, nodes
from orjson import JSONDecodeError, loads

from cortex_core.errors import InvalidRequest
from cortex_neuron.chat_body import SYSTEM_ROLES, gather_system, plain_messages, text_of
from cortex_neuron.exllama.template_files import DEFAULT, read_templates
from cortex_neuron.exllama.template_sandbox import TemplateEnvironment
from cortex_neuron.exllama.vocabulary import read_named

_TOOL_USE: Final = "tool_use"
_LONGEST: Final = 1 << 20
_LONGEST_REASON: Final = 500
_OURS: Final = ("messages", "tools", "add_generation_prompt")
_DEVELOPER: Final = re.compile(r"(['\"])developer\1")
_MARK: Final = "answer1234567890"

#: What a part of a message is, where the model cannot take it.
_PARTS: Final = {
    "image_url": ("see", "an image", "vision_unsupported"),
    "input_image": ("see", "an image", "vision_unsupported"),
    "video_url": ("see", "a video", "vision_unsupported"),
    "input_audio": ("hear", "audio", "audio_unsupported"),
}


class _Refused(Exception):
    """A template refused a conversation, in its own words."""


class _OneTemplate:
    """A compiled template and what it knows."""

    def __init__(self, environment: TemplateEnvironment, source: str) -> None:
        self.knows_tools = False
        self.problem: str | None = None
        self._environment = environment
        self._template: Template | None = None
        self._wants_parts = self._knows_developers = False
        try:
            if len(source) > _LONGEST:
                raise ValueError("it is too long")  # noqa: TRY301  # as whatever is wrong with it
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except Exception as error:  # noqa: BLE001  # a hostile one fails in its own ways
            self.problem = _reason(error)
            return
        self.knows_tools = "tools" in meta.find_undeclared_variables(tree)
        self._wants_parts = _goes_through_parts(tree)
        self._knows_developers = _DEVELOPER.search(source) is not None

    def render(self, messages: Sequence[dict[str, Any]], variables: dict[str, Any]) -> str:
        """Return the prompt. Raises _Refused, and InvalidRequest for what it cannot take."""
        if self._template is None:
            raise _Refused(self.problem)
        adapted = [self._message(one) for one in messages]
        try:
            return self._environment.run(self._template, {**variables, "messages": adapted})
        except Exception as error:
            raise _Refused(_reason(error)) from error

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        out = {**message, "content": self._content(message.get("content"))}
        if out["role"] in SYSTEM_ROLES and not self._knows_developers:
            out["role"] = "system"
        if isinstance(calls := out.pop("tool_calls", None), list) and calls:
            out["tool_calls"] = [_with_values(call) for call in calls]
        return out

    def _content(self, content: Any) -> Any:
        if isinstance(content, list):
            for part in content:
                _check_part(part)
        elif not isinstance(content, str | None):
            raise InvalidRequest("a message's 'content' must be text or parts", param="messages")
        text = text_of(content)
        return [{"type": "text", "text": text}] if self._wants_parts else text


class ChatTemplate:
    """What a model's folder says about chats. `source` is None where it says nothing.

    `problem` is why none can be rendered, None while they can.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        named: Mapping[str, str],
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        environment = TemplateEnvironment(clock)
        default = sources.get(DEFAULT, next(iter(sources.values()), None))
        self.source = default
        self._named = dict(named)
        self._default = None if default is None else _OneTemplate(environment, default)
        self._with_tools = self._default
        if _TOOL_USE in sources:
            self._with_tools = _OneTemplate(environment, sources[_TOOL_USE])
            self.source = f"{default}\n{sources[_TOOL_USE]}"

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatTemplate":
        """Return the chat template of the model in `folder`. Blocking. Raises PreflightFailed."""
        return cls(read_templates(folder), named=read_named(folder))

    @property
    def knows_tools(self) -> bool:
        """Whether the template has a place for tools."""
        return self._with_tools is not None and self._with_tools.knows_tools

    @property
    def problem(self) -> str | None:
        """Why no chat can be rendered, None where chats can."""
        return "there is none" if self._default is None else self._default.problem

    def render(
        self,
        messages: Any,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt of a conversation. Blocking, for seconds with a hostile template.

        `options` are what the request gives the template to know. Raises InvalidRequest:
        `wrong_modality` without a template, `template_render_failed` where the template refuses,
        `vision_unsupported` and the like for what is no text.
        """
        chosen = self._with_tools if tools else self._default
        if chosen is None:
            raise InvalidRequest(
                "this model has no chat template: it completes text and does not chat; "
                "choose a model that does, or use /v1/completions",
                code="wrong_modality",
                param="messages",
            )
        variables = {
            **self._named,
            **_checked(options),
            "tools": list(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        plain = plain_messages(messages)
        try:
            return chosen.render(plain, variables)
        except _Refused as refused:
            if (others := gather_system(plain)) is not None:
                try:
                    return chosen.render(others, variables)
                except _Refused:
                    pass  # The first refusal is about what the client sent.
            raise InvalidRequest(
                f"the model's chat template refuses this conversation: {refused}",
                code="template_render_failed",
                param="messages",
            ) from refused

    def behind_answer(self) -> str:
        """Return what the template writes behind an answer: it begins with what ends one."""
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        try:
            text = self.render(talk, add_generation_prompt=False)
        except InvalidRequest:
            return ""
        return text.rpartition(_MARK)[2] if _MARK in text else ""


def read_options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a chat's body gives the template to know. Raises InvalidRequest."""
    options = _checked(body.get("chat_template_kwargs"))
    effort = body.get("reasoning_effort")
    if effort is None:
        return options
    if not isinstance(effort, str):
        raise InvalidRequest("'reasoning_effort' must be a word", param="reasoning_effort")
    spoken = {"reasoning_effort": effort}
    return {**spoken, **({"enable_thinking": False} if effort == "none" else {}), **options}


def _checked(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidRequest(
            "'chat_template_kwargs' must be an object", param="chat_template_kwargs"
        )
    if taken := sorted(set(_OURS) & set(options)):
        raise InvalidRequest(
            f"'chat_template_kwargs' cannot set {taken[0]!r}: it is the request's own",
            param="chat_template_kwargs",
        )
    return dict(options)


def _check_part(part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return
    if kind in _PARTS:
        verb, what, code = _PARTS[kind]
        raise InvalidRequest(
            f"this model cannot {verb}: it takes text, and the request has {what}",
            code=code,
            param="messages",
        )
    raise InvalidRequest(
        "a message has a content part of a type that this model does not take; it takes 'text'",
        param="messages",
    )


def _with_values(call: Any) -> Any:
    """Return a call with its arguments as values: templates write them out themselves."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(text := function.get("arguments"), str):
        return call
    try:
        values = loads(text)
    except JSONDecodeError:
        return call
    return {**call, "function": {**function, "arguments": values}}


def _goes_through_parts(tree: nodes.Template) -> bool:
    """Tell whether a template takes contents apart, and does not ask whether they are text."""
    if any(test.name == "string" for test in tree.find_all(nodes.Test)):
        return False
    return any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node) -> bool:
    while isinstance(node, nodes.Filter) and node.node is not None:
        node = node.node
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and node.arg.value == "content"
    )


def _reason(error: Exception) -> str:
    said = str(error).strip()[:_LONGEST_REASON]
    return said or type(error).__name__
