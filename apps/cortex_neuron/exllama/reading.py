"""From a request's body to the jobs that answer it: what is refused is refused here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.admitting import answer_room
from cortex_neuron.exllama.answering import Choice, Writer
from cortex_neuron.exllama.conversation import ChatWriter
from cortex_neuron.exllama.generation import MOST_CHOICES, Generation, read_generation
from cortex_neuron.exllama.grammar import Grammar
from cortex_neuron.exllama.jobs import Job, Limits
from cortex_neuron.exllama.prompt_reader import PromptReader
from cortex_neuron.exllama.sampling import ModelDefaults, Sampling, read_sampling
from cortex_neuron.exllama.templates import ChatTemplate
from cortex_neuron.exllama.text_stream import TextStream
from cortex_neuron.exllama.text_writer import TextWriter
from cortex_neuron.exllama.vocabulary import Vocabulary

_NOTHING: Final = frozenset[int]()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What all answers to one prompt have in common."""

    prompt: tuple[int, ...]
    generation: Generation
    sampling: Sampling
    grammar: Grammar | None
    ends: frozenset[int]
    hidden: frozenset[int]


class Reader:
    """What is known of one model, and how requests to it are read. Blocking: use it in a thread."""

    def __init__(
        self,
        limits: Limits,
        *,
        vocabulary: Vocabulary,
        defaults: ModelDefaults,
        template: ChatTemplate,
    ) -> None:
        self._limits = limits
        self._vocabulary = vocabulary
        had = {name: one for name, one in defaults.values.items() if name not in limits.lacks}
        self._defaults = ModelDefaults(vocabulary=vocabulary.size, values=had)
        self._nothing = ModelDefaults(vocabulary=vocabulary.size)
        self._prompts = PromptReader(vocabulary, template)
        #: What the model serves.
        self.capabilities: tuple[str, ...] = (
            ("completion",) if template.problem else ("chat", "completion")
        )

    @classmethod
    def from_folder(cls, folder: Path, limits: Limits) -> "Reader":
        """Return the reader of the model in `folder`. Raises PreflightFailed."""
        vocabulary = Vocabulary.from_folder(folder)
        return cls(
            limits,
            vocabulary=vocabulary,
            defaults=ModelDefaults.from_folder(folder, vocabulary=vocabulary.size),
            template=ChatTemplate.from_folder(folder),
        )

    def chat(self, body: Mapping[str, Any], head: dict[str, Any]) -> list[Choice]:
        """Return the answers that a chat wants; frames begin with `head`. Raises InvalidRequest."""
        generation = read_generation(body, vocabulary=self._vocabulary.size, chat=True)
        prompt = self._prompts.chat(body)
        wishes = _Wishes(
            prompt=prompt.tokens,
            generation=generation,
            sampling=self._sampling(body),
            grammar=prompt.grammar,
            ends=self._prompts.stop_tokens,
            hidden=self._prompts.hidden,
        )
        name = head["id"].rpartition("-")[2]
        choices: list[Choice] = []
        for index in range(generation.choices):
            splitter = prompt.splitter(f"call_{name}{index}_")
            writer = ChatWriter(head, index, self._vocabulary, splitter, one_call=prompt.one_call)
            choices.append(self._choice(0, index, wishes, writer))
        return choices

    def texts(self, body: Mapping[str, Any], head: dict[str, Any]) -> list[Choice]:
        """Return the answers that a text completion wants. Raises InvalidRequest."""
        generation = read_generation(body, vocabulary=self._vocabulary.size, chat=False)
        sampling = self._sampling(body)
        grammar = self._prompts.text_grammar(body)
        prompts = self._texts(body.get("prompt"))
        if len(prompts) * generation.choices > MOST_CHOICES:
            raise InvalidRequest(f"a request may have {MOST_CHOICES} answers", param="n")
        choices: list[Choice] = []
        for number, prompt in enumerate(prompts):
            wishes = _Wishes(
                prompt=prompt,
                generation=generation,
                sampling=sampling,
                grammar=grammar,
                ends=self._prompts.stop_tokens,
                hidden=self._vocabulary.special,
            )
            for copy in range(generation.choices):
                writer = TextWriter(
                    head,
                    len(choices),
                    self._vocabulary,
                    logprobs=generation.top_logprobs is not None,
                )
                choices.append(self._choice(number, copy, wishes, writer))
        return choices

    def count(self, body: Mapping[str, Any]) -> int:
        """Return the tokens of a prompt: a chat's, or a text's. Raises InvalidRequest."""
        if "messages" in body:
            return self._prompts.count(body)
        return sum(map(len, self._texts(body.get("prompt"))))

    def _sampling(self, body: Mapping[str, Any]) -> Sampling:
        """Return how tokens are to be drawn. Raises InvalidRequest, also for what is not had."""
        asked, plain = read_sampling(body, self._nothing), Sampling()
        for name in sorted(self._limits.lacks):
            if getattr(asked, name) != getattr(plain, name):
                raise InvalidRequest(
                    f"this model's engine cannot do {name!r}; leave it out",
                    code="unsupported_parameter",
                    param=name,
                )
        return read_sampling(body, self._defaults)

    def _choice(self, number: int, copy: int, wishes: _Wishes, writer: Writer) -> Choice:
        wanted, size = wishes.generation, len(wishes.prompt)
        own = _NOTHING if wanted.ignore_eos else wishes.ends
        job = Job(
            prompt=wishes.prompt,
            max_tokens=answer_room(size, wanted.max_tokens, self._limits),
            min_tokens=wanted.min_tokens,
            sampling=wishes.sampling,
            seed=wanted.seed_of(copy),
            stop_tokens=own | wanted.stop_tokens,
            top_logprobs=wanted.top_logprobs,
            mask=None if wishes.grammar is None else wishes.grammar.mask(),
        )
        hidden = _NOTHING if wanted.shows_special else wishes.hidden
        text = TextStream(self._vocabulary, stops=wanted.stops, hidden=hidden)
        return Choice(prompt=number, job=job, text=text, writer=writer)

    def _texts(self, prompt: Any) -> Sequence[tuple[int, ...]]:
        """Return the prompts of a text completion: a text, tokens, or a list of either."""
        if _are_tokens(prompt) or not isinstance(prompt, list):
            prompt = [prompt]
        if not prompt:
            raise InvalidRequest("there is no 'prompt'", param="prompt")
        return [self._text(one) for one in prompt]

    def _text(self, prompt: Any) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(self._vocabulary.encode_text(prompt))
        if _are_tokens(prompt) and all(0 <= token < self._vocabulary.size for token in prompt):
            return tuple(prompt)
        raise InvalidRequest(
            "'prompt' must be a text, tokens of this model, or a list of either", param="prompt"
        )


def _are_tokens(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in prompt)
    )
