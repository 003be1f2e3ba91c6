"""How a token is drawn, in exllamav3's words: a chain of steps, of which only what is asked for."""

from functools import lru_cache
from typing import Final

from exllamav3 import (
    SS_DRY,
    SS_XTC,
    CustomSampler,
    SS_Argmax,
    SS_Base,
    SS_LogitBias,
    SS_MinP,
    SS_PresFreqP,
    SS_RepP,
    SS_Sample,
    SS_Temperature,
    SS_TopK,
    SS_TopP,
    Tokenizer,
)

from cortex_neuron.exllama.sampling import Sampling

#: Fields of sampling that exllamav3 has no step for.
LACKS: Final = frozenset({"typical_p", "tfs", "top_a", "mirostat", "smoothing_factor"})
_EVERYTHING: Final = 1 << 30
_KEPT_BREAKERS: Final = 16


class Sampler:
    """Makes the chains for the jobs of one model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._breaking = lru_cache(_KEPT_BREAKERS)(self._tokens_with)

    def chain(self, sampling: Sampling) -> CustomSampler:
        """Return `sampling` as a chain for one job."""
        steps = self._penalties(sampling)
        if sampling.greedy:
            return CustomSampler([*steps, SS_Argmax()])
        heat = SS_Temperature(sampling.temperature)
        cuts: list[SS_Base] = [
            SS_TopK(sampling.top_k),
            SS_TopP(sampling.top_p),
            SS_MinP(sampling.min_p),
        ]
        if sampling.xtc_probability:
            cuts.append(
                SS_XTC(sampling.xtc_probability, sampling.xtc_threshold, tokenizer=self._tokenizer)
            )
        ordered = [*cuts, heat] if sampling.temperature_last else [heat, *cuts]
        return CustomSampler([*steps, *ordered, SS_Sample()])

    def _penalties(self, sampling: Sampling) -> list[SS_Base]:
        reach = sampling.repetition_range
        sustained = _EVERYTHING if reach < 0 else reach
        steps: list[SS_Base] = [
            SS_RepP(sampling.repetition_penalty, sustain_range=sustained),
            SS_PresFreqP(
                sampling.presence_penalty, sampling.frequency_penalty, sustain_range=sustained
            ),
        ]
        if sampling.dry_multiplier:
            breakers = sampling.dry_sequence_breakers
            steps.append(
                SS_DRY(
                    dry_multiplier=sampling.dry_multiplier,
                    dry_base=sampling.dry_base,
                    dry_allowed_length=sampling.dry_allowed_length,
                    dry_range=sampling.dry_range,
                    dry_sequence_breakers=None if breakers is None else self._breaking(breakers),
                    tokenizer=self._tokenizer,
                )
            )
        if sampling.logit_bias:
            steps.append(SS_LogitBias(dict(sampling.logit_bias)))
        return steps

    def _tokens_with(self, texts: tuple[str, ...]) -> set[int]:
        """Return the tokens that hold one of `texts`."""
        pieces = self._tokenizer.get_id_to_piece_list(include_special_tokens=True)
        return {token for token, piece in enumerate(pieces) if any(one in piece for one in texts)}
