"""From a chat's body to its prompt, and to how the answer is to be constrained and read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Final

from cortex_core.errors import InvalidRequest
from cortex_dialects.splitting import AnswerSplitter
from cortex_neuron.chat_body import choose_tools, tool_name, tools_of
from cortex_neuron.exllama.answer_form import read_form
from cortex_neuron.exllama.answer_grammar import Calls, compile_answer
from cortex_neuron.exllama.answer_style import AnswerStyle
from cortex_neuron.exllama.fields import read_flag
from cortex_neuron.exllama.grammar import Grammar, Grammars
from cortex_neuron.exllama.templates import ChatTemplate, read_options
from cortex_neuron.exllama.vocabulary import Vocabulary

_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPrompt:
    """A chat, ready to be answered.

    `one_call`: an answer ends behind its first call. Each answer needs a mask of `grammar` and a
    splitter of its own.
    """

    text: str
    tokens: tuple[int, ...]
    grammar: Grammar | None
    one_call: bool
    _style: AnswerStyle
    _tools: Mapping[str, dict[str, Any] | None]
    _forced: bool

    def splitter(self, id_prefix: str) -> AnswerSplitter:
        """Return what splits an answer. Ids of calls begin with `id_prefix`."""
        return self._style.splitter(
            self.text, self._tools, forced=self._forced, id_prefix=id_prefix
        )


class PromptReader:
    """What is known of one model's text. Made once a model; blocking, for use in threads.

    `stop_tokens` end its answers in a chat, `hidden` are the tokens that are no text there. The
    first grammar takes seconds with a large vocabulary, and memory that most models never need.
    """

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._style = AnswerStyle.of(template, vocabulary)
        turn_end = vocabulary.special_at_start(template.behind_answer())
        ends = set() if turn_end is None else {turn_end}
        self.stop_tokens = vocabulary.eos_ids | ends
        self.hidden = self._style.hidden
        self._making = Lock()
        self._made: Grammars | None = None

    def count(self, body: Mapping[str, Any]) -> int:
        """Return how many tokens the prompt of a chat has. Raises InvalidRequest."""
        return len(self._vocabulary.encode_chat(self._render(body, *self._offer(body))))

    def chat(self, body: Mapping[str, Any]) -> ChatPrompt:
        """Return the prompt of a chat. Raises InvalidRequest."""
        plain, tools = self._offer(body)
        forced = plain.get("tool_choice") == "required"
        text = self._render(body, plain, tools)
        one_call = body.get("parallel_tool_calls") is not None and not read_flag(
            body, "parallel_tool_calls"
        )
        # A choice that names a tool means one call of it.
        one_call = one_call or (forced and tool_name(body.get("tool_choice")) is not None)
        grammar = self._grammar(body, text, Calls(tools=tools, several=not one_call), forced=forced)
        return ChatPrompt(
            text=text,
            tokens=tuple(self._vocabulary.encode_chat(text)),
            grammar=grammar,
            one_call=one_call,
            _style=self._style,
            _tools=tools,
            _forced=grammar is not None and bool(tools),
        )

    def text_grammar(self, body: Mapping[str, Any]) -> Grammar | None:
        """Return the grammar that a text completion wants. Raises InvalidRequest."""
        if (form := read_form(body)) is None:
            return None
        _check_ends(body, form.param)
        style = replace(self._style, markers=())
        return compile_answer(self._grammars(), style, form=form, calls=None, prompt="")

    def _offer(
        self, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any] | None]]:
        """Return the body with its choice of tools made plain, and the tools' schemas by name."""
        plain = dict(body)
        choose_tools(plain, knows_tools=self._template.knows_tools)
        return plain, {} if plain.get("tool_choice") == "none" else _tools(plain)

    def _render(
        self, body: Mapping[str, Any], plain: Mapping[str, Any], tools: Mapping[str, Any]
    ) -> str:
        return self._template.render(
            body.get("messages"),
            tools=tools_of(plain) if tools else None,
            options=read_options(body),
        )

    def _grammars(self) -> Grammars:
        with self._making:
            if self._made is None:
                self._made = Grammars(self._vocabulary, self.stop_tokens)
            return self._made

    def _grammar(
        self, body: Mapping[str, Any], prompt: str, calls: Calls, *, forced: bool
    ) -> Grammar | None:
        form = None if forced else read_form(body)
        if form is None and not forced:
            return None
        _check_ends(body, "tool_choice" if form is None else form.param)
        return compile_answer(
            self._grammars(),
            self._style,
            form=form,
            calls=calls if calls.tools else None,
            prompt=prompt,
        )


def _tools(body: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Return the schemas of the tools on offer by their names. Raises InvalidRequest."""
    if not isinstance(body.get("tools"), list | None):
        raise InvalidRequest("'tools' must be a list", param="tools")
    tools: dict[str, dict[str, Any] | None] = {}
    for number, tool in enumerate(tools_of(body)):
        name = tool_name(tool)
        if name is None or not 0 < len(name) <= _LONGEST_NAME or name in tools:
            raise InvalidRequest(
                "a tool must be a function with a 'name' of its own", param=f"tools.{number}"
            )
        schema = tool["function"].get("parameters")
        if not isinstance(schema, dict | None):
            raise InvalidRequest(
                "a tool's 'parameters' must be a JSON schema", param=f"tools.{number}"
            )
        tools[name] = schema
    return tools


def _check_ends(body: Mapping[str, Any], param: str) -> None:
    """Refuse what would have an answer go on where its grammar ends it."""
    for other in ("ignore_eos", "min_tokens"):
        if body.get(other):
            raise InvalidRequest(
                f"{other!r} cannot be had together with {param!r}: a grammar ends the answer",
                code="unsupported_parameter",
                param=other,
            )
