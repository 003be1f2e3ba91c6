"""How a token is drawn, in exllamav2's words.

Its own defaults are far from neutral, so every field is said. One object belongs to one job: it
remembers what the job has drawn.
"""

from functools import lru_cache
from typing import Any

import torch
from exllamav2 import ExLlamaV2Tokenizer
from exllamav2.generator import ExLlamaV2Sampler

from cortex_neuron.exllama.sampling import Sampling

_LONGEST_NGRAM = 20
_VOCABULARY_MULTIPLE = 32
_KEPT_BREAKERS = 16


class Sampler:
    """Makes settings for the jobs of one model. `vocabulary` is how many logits it has."""

    def __init__(self, tokenizer: ExLlamaV2Tokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._logits = vocabulary + -vocabulary % _VOCABULARY_MULTIPLE
        self._breaking = lru_cache(_KEPT_BREAKERS)(self._tokens_with)

    def settings(self, sampling: Sampling, prompt_tokens: int) -> Any:
        """Return `sampling` as settings for one job."""
        if sampling.greedy:
            settings = ExLlamaV2Sampler.Settings(temperature=1.0, top_k=1, top_p=0.0)
        else:
            settings = ExLlamaV2Sampler.Settings(
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                typical=sampling.typical_p,
                tfs=sampling.tfs,
                top_a=sampling.top_a,
                temperature_last=sampling.temperature_last,
                smoothing_factor=sampling.smoothing_factor,
                mirostat=sampling.mirostat,
                mirostat_tau=sampling.mirostat_tau,
                mirostat_eta=sampling.mirostat_eta,
                xtc_probability=sampling.xtc_probability,
                xtc_threshold=sampling.xtc_threshold,
            )
        settings.token_repetition_penalty = sampling.repetition_penalty
        settings.token_repetition_range = sampling.repetition_range
        settings.token_presence_penalty = sampling.presence_penalty
        settings.token_frequency_penalty = sampling.frequency_penalty
        if sampling.logit_bias:
            settings.token_bias = torch.zeros(self._logits)
            for token, bias in sampling.logit_bias.items():
                settings.token_bias[token] = bias
        self._repeat_less(settings, sampling, prompt_tokens)
        return settings

    def _repeat_less(
        self, settings: ExLlamaV2Sampler.Settings, sampling: Sampling, prompt_tokens: int
    ) -> None:
        """Set DRY. A range must be longer than the n-grams in it, or sampling fails."""
        reach = sampling.dry_range
        if sampling.dry_multiplier <= 0 or 0 < reach <= 1:
            return
        settings.dry_multiplier = sampling.dry_multiplier
        settings.dry_base = sampling.dry_base
        settings.dry_allowed_length = sampling.dry_allowed_length
        settings.dry_max_ngram = min(_LONGEST_NGRAM, reach - 1) if reach else _LONGEST_NGRAM
        # Of a prompt of one token it has nothing to remember yet, and looks for the oldest of that.
        settings.dry_range = reach if prompt_tokens > 1 else 0
        if sampling.dry_sequence_breakers is not None:
            settings.dry_sequence_breakers = self._breaking(sampling.dry_sequence_breakers)

    def _tokens_with(self, texts: tuple[str, ...]) -> set[int]:
        """Return the tokens that hold one of `texts`."""
        pieces = self._tokenizer.get_id_to_piece_list(include_special_tokens=True)
        return {token for token, piece in enumerate(pieces) if any(one in piece for one in texts)}
