"""Grammars that answers keep to: which tokens may come next, by llguidance.

A request's schema, expression or grammar is compiled before anything is generated; one that cannot
be used is refused, never passed over. `llguidance` bounds itself: size, states and work of a step.
"""

from collections.abc import Collection
from typing import Any

import llguidance
from orjson import dumps

from cortex_core.errors import InternalError, InvalidRequest
from cortex_neuron.exllama.vocabulary import Vocabulary

_LONGEST_REASON = 300
_STEPS = 3
#: How llguidance says that the token is wrong, and not the grammar.
_NOT_ALLOWED = "doesn't satisfy the grammar"


class GrammarMask:
    """A grammar at one place in one answer (a `Mask` of jobs.py)."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def is_stopped(self) -> bool:
        """Whether the grammar is complete: only what ends an answer may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> bytes:
        """Return a bit for each token, least significant first. Raises InvalidRequest."""
        bits: bytes = b"" if self._matcher.is_error() else self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise _too_complex()
        return bits

    def accept(self, token: int) -> None:
        """Go on past `token`; what comes behind the end is of no matter."""
        if self._matcher.is_stopped() and not self._matcher.is_error():
            return
        if not self._matcher.consume_token(token):
            if _NOT_ALLOWED in self._matcher.get_error():
                raise InternalError("a token came that the grammar of its answer does not allow")
            raise _too_complex()


class Grammar:
    """A compiled grammar. Each answer has a mask of its own."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def mask(self) -> GrammarMask:
        """Return a mask at the grammar's beginning."""
        return GrammarMask(self._matcher.deep_copy())


class Grammars:
    """Compiles grammars over a model's tokens. Made once a model: it takes seconds for a large one.

    `ends` are the tokens that may come when a grammar is complete.
    """

    def __init__(self, vocabulary: Vocabulary, ends: Collection[int]) -> None:
        known = sorted(token for token in ends if token < vocabulary.size)
        self._vocabulary = vocabulary
        self._tokenizer = llguidance.LLTokenizer(
            vocabulary.tokenizer.to_str(), n_vocab=vocabulary.size, eos_token=known or None
        )
        # What it says of errors must not have the whole grammar in it.
        self._limits = llguidance.LLParserLimits(verbose_errors=False)

    def marker(self, text: str) -> str:
        """Return a marker as a Lark expression: the token that it is, or else its text."""
        token = self._vocabulary.tokenizer.token_to_id(text)
        if token is not None and self.is_token(text):
            return f"<[{token}]>"
        return dumps(text).decode()

    def is_token(self, text: str) -> bool:
        """Tell whether a marker is one token that no text can be."""
        token = self._vocabulary.tokenizer.token_to_id(text)
        return token is not None and bool(self._tokenizer.is_special_token(token))

    def compile(self, source: str, *, param: str) -> Grammar:
        """Return a compiled grammar (llguidance's JSON). Blocking. Raises InvalidRequest."""
        matcher = llguidance.LLMatcher(self._tokenizer, source, log_level=0, limits=self._limits)
        if reason := matcher.get_error() or _first_steps(matcher.deep_copy()):
            raise InvalidRequest(
                f"{param!r} cannot be used: {reason.strip().splitlines()[0][:_LONGEST_REASON]}",
                param=param,
            )
        return Grammar(matcher)


def _first_steps(matcher: Any) -> str:
    """Return what fails in a grammar's first steps: much is only worked out when it is needed."""
    for _ in range(_STEPS):
        if matcher.is_stopped():
            break
        bits = int.from_bytes(matcher.compute_bitmask(), "little")
        if not bits and not matcher.is_error():
            return "nothing can begin it"
        if not matcher.is_error():
            matcher.consume_token((bits & -bits).bit_length() - 1)
    return str(matcher.get_error())


def _too_complex() -> InvalidRequest:
    return InvalidRequest("the grammar of this answer became too complex to be kept to")
