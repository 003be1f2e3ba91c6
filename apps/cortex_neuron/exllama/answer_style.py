"""How a model writes what is more than text: its thoughts, and its calls of tools."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cortex_dialects.splitting import (
    THINK_MARKERS,
    TOOL_DIALECTS,
    AnswerSplitter,
    ReasoningSplitter,
    ThinkMarkers,
    ToolSplitter,
    detect_tool_dialect,
    opened_by,
)
from cortex_neuron.exllama.templates import ChatTemplate
from cortex_neuron.exllama.vocabulary import Vocabulary

#: What a call is read as where the model was taught no way of its own, and a grammar gives it one.
BARE = "llama3"
_INSIDE = ("[ARGS]", "[CALL_ID]")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStyle:
    """What a model was taught.

    `markers` are around its thoughts, `dialect` is how it calls tools (None: nobody knows, or it
    does not), `names_first` tells Mistral's two ways of that apart. `hidden` are the tokens that
    are neither text nor markers.
    """

    markers: tuple[ThinkMarkers, ...]
    dialect: str | None
    names_first: bool
    hidden: frozenset[int]

    @classmethod
    def of(cls, template: ChatTemplate, vocabulary: Vocabulary) -> "AnswerStyle":
        """Return what a model's template and tokens show."""
        source = template.source or ""
        markers = tuple(
            pair for pair in THINK_MARKERS if any(_shown(one, source, vocabulary) for one in pair)
        )
        dialect = detect_tool_dialect(source) if template.knows_tools else None
        shown = {text for pair in markers for text in pair} | {*_INSIDE}
        if dialect is not None:
            shown |= {*TOOL_DIALECTS[dialect].openers, *TOOL_DIALECTS[dialect].closers}
        read = {vocabulary.tokenizer.token_to_id(text) for text in shown}
        return cls(
            markers=markers,
            dialect=dialect,
            names_first="[ARGS]" in source,
            hidden=vocabulary.special - read,
        )

    def opened(self, prompt: str) -> ThinkMarkers | None:
        """Return the markers whose first a prompt ends in: the answer begins with thoughts."""
        return next((pair for pair in self.markers if opened_by(prompt, [pair])), None)

    def closed(self, prompt: str) -> bool:
        """Tell whether a prompt ends in a close marker: the model shall not think."""
        return prompt.rstrip().endswith(tuple(pair.close for pair in self.markers))

    def splitter(
        self,
        prompt: str,
        tools: Mapping[str, dict[str, Any] | None],
        *,
        forced: bool,
        id_prefix: str,
    ) -> AnswerSplitter:
        """Return what splits one answer to `prompt`. `forced`: a grammar has it call a tool."""
        reasoning = (
            ReasoningSplitter(self.markers, open=self.opened(prompt) is not None)
            if self.markers
            else None
        )
        dialect = self.call_dialect if forced else self.dialect
        if not tools or dialect is None:
            return AnswerSplitter(reasoning, None)
        return AnswerSplitter(
            reasoning, ToolSplitter(TOOL_DIALECTS[dialect], tools, id_prefix=id_prefix)
        )

    @property
    def call_dialect(self) -> str:
        """How a grammar has the model call a tool: its own way where a grammar can say that."""
        return self.dialect if self.dialect in ("hermes", "qwen_xml", "mistral") else BARE


def _shown(marker: str, source: str, vocabulary: Vocabulary) -> bool:
    return marker in source or vocabulary.tokenizer.token_to_id(marker) is not None
