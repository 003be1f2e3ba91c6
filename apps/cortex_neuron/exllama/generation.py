"""What a request wants besides its prompt: how many answers, how long, and where they end.

A field that is not known is refused, and so is one that asks for what cannot be done: an answer
that passes over what was asked is worse than none. What only advises, or is of no matter to an
engine (`user`, `metadata`, …), is left out.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cortex_core.errors import InvalidRequest
from cortex_neuron.chat_body import stop_strings
from cortex_neuron.exllama.fields import Bounds, read_flag, read_integer
from cortex_neuron.exllama.sampling import SAMPLING_FIELDS

#: Answers, alternatives of a token, stop strings and their length.
MOST_CHOICES: Final = 128
MOST_TOP_LOGPROBS: Final = 20
MOST_STOPS: Final = 32
LONGEST_STOP: Final = 1024

_TOKENS: Final = Bounds(1, 2**31 - 1)
_SEEDS: Final = Bounds(-(2**63), 2**64 - 1)

#: What a grammar is made of (grammar.py).
GRAMMAR_FIELDS: Final = frozenset(
    {"response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
)
_READ: Final = (
    SAMPLING_FIELDS
    | GRAMMAR_FIELDS
    | {
        *("model", "stream", "n", "max_tokens", "min_tokens", "seed", "stop", "stop_token_ids"),
        *("ignore_eos", "logprobs", "skip_special_tokens"),
    }
)
_OF_CHATS: Final = {
    *("messages", "tools", "tool_choice", "parallel_tool_calls", "max_completion_tokens"),
    *("top_logprobs", "chat_template_kwargs", "reasoning_effort"),
}
_OF_TEXTS: Final = {"prompt"}
#: What may be said without changing the answer.
HARMLESS_FIELDS: Final = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "stream_options", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "cache_prompt", "keep_alive", "prediction"),
        *("verbosity", "thinking_budget_tokens", "timings_per_token", "return_progress"),
        *("request_id", "priority", "guided_decoding_backend"),
    }
)
#: What can be said as long as it asks for nothing.
_AS_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "include_stop_str_in_output": (False,),
    "spaces_between_special_tokens": (True,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "return_tokens_as_token_ids": (False,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What is wanted of each answer. `max_tokens` None is as much as there is room for.

    `top_logprobs` is how many alternatives each token has; None: no log probabilities at all.
    `stop_tokens` end an answer beside the model's own, which do not count while `ignore_eos`.
    """

    choices: int = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    ignore_eos: bool = False
    top_logprobs: int | None = None
    shows_special: bool = False

    def seed_of(self, choice: int) -> int | None:
        """Return the seed of one of the answers: the same seed for all would make them equal."""
        return None if self.seed is None else (self.seed + choice) % 2**63


def read_generation(body: Mapping[str, Any], *, vocabulary: int, chat: bool) -> Generation:
    """Return what `body` wants. Raises InvalidRequest for what is unknown or out of bounds."""
    _check_fields(body, chat=chat)
    limit = read_integer(body, "max_tokens", _TOKENS)
    newer = read_integer(body, "max_completion_tokens", _TOKENS) if chat else None
    max_tokens = newer if newer is not None else limit
    min_tokens = read_integer(body, "min_tokens", Bounds(0, _TOKENS.most)) or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise InvalidRequest("'min_tokens' is above 'max_tokens'", param="min_tokens")
    return Generation(
        choices=read_integer(body, "n", Bounds(1, MOST_CHOICES)) or 1,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        seed=read_integer(body, "seed", _SEEDS),
        stops=_stops(body),
        stop_tokens=_stop_tokens(body, vocabulary),
        ignore_eos=read_flag(body, "ignore_eos"),
        top_logprobs=_top_logprobs(body) if chat else _text_logprobs(body),
        shows_special=body.get("skip_special_tokens") is not None
        and not read_flag(body, "skip_special_tokens"),
    )


def _check_fields(body: Mapping[str, Any], *, chat: bool) -> None:
    known = _READ | (_OF_CHATS if chat else _OF_TEXTS)
    for name, value in body.items():
        if value is None or name in known or name in HARMLESS_FIELDS:
            continue
        if name in _AS_NOTHING:
            if value in _AS_NOTHING[name]:
                continue
            raise InvalidRequest(
                f"this model's engine cannot do {name!r}; leave it out",
                code="unsupported_parameter",
                param=name,
            )
        near = difflib.get_close_matches(name[:64], sorted(known), n=1)
        advice = f"; did you mean {near[0]!r}?" if near else "; leave it out"
        raise InvalidRequest(
            f"this model's engine does not know the parameter {name[:64]!r}{advice}",
            code="unsupported_parameter",
            param=name[:64],
        )


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = stop_strings(body)
    if len(stops) > MOST_STOPS or any(len(one) > LONGEST_STOP for one in stops):
        raise InvalidRequest(
            f"'stop' may have {MOST_STOPS} strings of {LONGEST_STOP} characters", param="stop"
        )
    return stops


def _stop_tokens(body: Mapping[str, Any], vocabulary: int) -> frozenset[int]:
    value = body.get("stop_token_ids")
    tokens = [] if value is None else value
    if not isinstance(tokens, list) or len(tokens) > MOST_STOPS:
        raise InvalidRequest(
            f"'stop_token_ids' must be a list of at most {MOST_STOPS} tokens",
            param="stop_token_ids",
        )
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise InvalidRequest(
                "'stop_token_ids' must be tokens of this model", param="stop_token_ids"
            )
    return frozenset(tokens)


def _top_logprobs(body: Mapping[str, Any]) -> int | None:
    top = read_integer(body, "top_logprobs", Bounds(0, MOST_TOP_LOGPROBS))
    if not read_flag(body, "logprobs"):
        if top:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        return None
    return top or 0


def _text_logprobs(body: Mapping[str, Any]) -> int | None:
    return read_integer(body, "logprobs", Bounds(0, MOST_TOP_LOGPROBS))
