"""A plan, carried out with exllamav2: model, cache, draft model and adapters in memory.

1. No plain SDPA, ever: in prefill it looks at tokens that are yet to come.
2. Pages need flash-attn 2.5.7 and cards of compute capability 8.0; without, one job at a time.
3. A split is always said where tensors are split: finding one by itself, exllamav2 asks a program
   and cannot read devices that are named by UUID.
4. What was loaded is tried out in full length before anybody may use it.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from exllamav2 import (
    ExLlamaV2,
    ExLlamaV2Cache,
    ExLlamaV2Cache_Q4,
    ExLlamaV2Cache_Q6,
    ExLlamaV2Cache_Q8,
    ExLlamaV2Cache_TP,
    ExLlamaV2Config,
    ExLlamaV2Lora,
    ExLlamaV2Tokenizer,
)
from exllamav2.attn import has_flash_attn_with_paged
from exllamav2.generator import ExLlamaV2Sampler

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.backend import Report
from cortex_neuron.exllama.model_files import read_object
from cortex_neuron.exllama.plan import Draft, Lora, Plan

_CACHES: Final = {
    "FP16": ExLlamaV2Cache,
    "Q8": ExLlamaV2Cache_Q8,
    "Q6": ExLlamaV2Cache_Q6,
    "Q4": ExLlamaV2Cache_Q4,
}
_PAGED_CAPABILITY: Final = 8
_MIB: Final = 1 << 20
#: Logits of so few tokens are ever asked for at once.
_OUTPUT_TOKENS: Final = 16


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What lies in memory."""

    config: ExLlamaV2Config
    model: ExLlamaV2
    cache: Any
    tokenizer: ExLlamaV2Tokenizer
    paged: bool
    draft_model: ExLlamaV2 | None = None
    draft_cache: Any = None
    loras: list[ExLlamaV2Lora] = field(default_factory=list)

    def unload(self) -> None:
        """Let go of all of it."""
        for lora in self.loras:
            lora.unload()
        self.model.unload()
        if self.draft_model is not None:
            self.draft_model.unload()
        # These remember the tokenizers of the models they were last used for.
        for remembering in (
            ExLlamaV2Sampler.get_dry_default_sequence_breaker_tokens,
            ExLlamaV2Sampler.get_default_xtc_mask_tokens,
            ExLlamaV2Sampler.get_xtc_mask_tensor,
        ):
            remembering.cache_clear()
        self.loras, self.cache, self.draft_cache, self.draft_model = [], None, None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load(plan: Plan, report: Report) -> Loaded:
    """Return the model of `plan`, with its cache.

    Raises PreflightFailed for files that exllamav2 cannot use, and exllamav2's own errors.
    """
    paged = has_flash_attn_with_paged and _all_new_enough()
    config = _config(plan, plan.path, paged=paged)
    tokenizer = ExLlamaV2Tokenizer(config)
    model = ExLlamaV2(config)
    draft = None if plan.draft is None else _draft_model(plan, plan.draft, paged=paged)
    ahead = 0 if draft is None else len(draft.modules)
    total = ahead + len(model.modules)
    report(0, total)
    draft_cache = None
    if draft is not None and plan.draft is not None:
        cache_class = _CACHES[plan.draft.cache_mode]
        draft_cache = cache_class(draft, max_seq_len=plan.cache, lazy=True)
        draft.load_autosplit(
            draft_cache, reserve_vram=_reserve(plan), callback=_reporting(report, 0, total)
        )
    cache = _load_model(plan, model, _reporting(report, ahead, total))
    loaded = Loaded(
        config=config,
        model=model,
        cache=cache,
        tokenizer=tokenizer,
        # An architecture may have had to do without.
        paged=paged and not config.no_flash_attn,
        draft_model=draft,
        draft_cache=draft_cache,
        loras=[_lora(model, one) for one in plan.loras],
    )
    _try_out(loaded)
    return loaded


def _all_new_enough() -> bool:
    count = torch.cuda.device_count()
    capabilities = [torch.cuda.get_device_properties(index).major for index in range(count)]
    return bool(capabilities) and min(capabilities) >= _PAGED_CAPABILITY


def _config(plan: Plan, path: str, *, paged: bool) -> ExLlamaV2Config:
    config = ExLlamaV2Config()
    config.model_dir = path
    config.prepare()
    config.arch_compat_overrides(quiet=True)
    config.no_sdpa = True
    config.no_flash_attn = config.no_flash_attn or not paged
    config.max_seq_len = plan.context
    config.max_input_len = plan.chunk
    config.max_attention_size = plan.chunk**2
    config.max_output_len = _OUTPUT_TOKENS
    _turn(config, plan)
    return config


def _turn(config: ExLlamaV2Config, plan: Plan) -> None:
    """Set how positions are told, as the operator or a newer kind of config.json says."""
    files = read_object(plan.folder, "config.json") or {}
    newer = files.get("rope_parameters")
    if isinstance(newer, dict) and "rope_theta" not in files:
        if newer.get("rope_type", "default") != "default" or "rope_theta" not in newer:
            raise PreflightFailed(
                "unsupported_arch",
                "the model scales positions by 'rope_parameters', which exllamav2 does not read",
            )
        config.rotary_embedding_base = float(newer["rope_theta"])
    if plan.rope_scale is not None:
        config.scale_pos_emb = plan.rope_scale
    if plan.rope_alpha is not None:
        config.scale_alpha_value = plan.rope_alpha


def _load_model(plan: Plan, model: ExLlamaV2, tell: Callable[[int, int], None]) -> Any:
    """Load the weights as planned; return the cache."""
    cache_class = _CACHES[plan.cache_mode]
    split = None if plan.split_mb is None else [mb / 1024 for mb in plan.split_mb]
    if plan.tensor_parallel:
        model.load_tp(
            gpu_split=split or _free_gb(plan),
            callback=tell,
            expect_cache_tokens=plan.cache,
            expect_cache_base=cache_class,
        )
        return ExLlamaV2Cache_TP(model, base=cache_class, max_seq_len=plan.cache)
    if split is not None:
        model.load(gpu_split=split, callback=tell)
        return cache_class(model, max_seq_len=plan.cache)
    cache = cache_class(model, max_seq_len=plan.cache, lazy=True)
    model.load_autosplit(cache, reserve_vram=_reserve(plan), last_id_only=True, callback=tell)
    return cache


def _free_gb(plan: Plan) -> list[float]:
    """Return GB that tensors may take of each device."""
    count = torch.cuda.device_count()
    reserved = [*plan.reserve_mb, *[0] * count]
    free = [torch.cuda.mem_get_info(index)[0] // _MIB for index in range(count)]
    return [max(0, mb - keep) / 1024 for mb, keep in zip(free, reserved[: len(free)], strict=True)]


def _reserve(plan: Plan) -> list[int] | None:
    """Return bytes that stay free on each device, None for exllamav2's own."""
    if not plan.reserve_mb:
        return None
    count = torch.cuda.device_count()
    return [mb * _MIB for mb in [*plan.reserve_mb, *[0] * count][:count]]


def _draft_model(plan: Plan, draft: Draft, *, paged: bool) -> ExLlamaV2:
    """Return the draft model, not loaded yet. Raises PreflightFailed for another vocabulary."""
    config = _config(plan, draft.path, paged=paged)
    if _pieces(plan.path) != _pieces(draft.path):
        raise PreflightFailed(
            "unsupported_format", "the draft model has another vocabulary than the model"
        )
    return ExLlamaV2(config)


def _pieces(path: str) -> list[str]:
    config = ExLlamaV2Config()
    config.model_dir = path
    config.prepare(no_tensors=True)
    pieces: list[str] = ExLlamaV2Tokenizer(config).get_id_to_piece_list(include_special_tokens=True)
    return pieces


def _lora(model: ExLlamaV2, lora: Lora) -> ExLlamaV2Lora:
    """Return an adapter, laid over the model. Pickles are never opened."""
    config, weights = (
        f"{lora.path}/{name}" for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    try:
        return ExLlamaV2Lora(model, config, weights, lora_scaling=lora.scale)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise PreflightFailed(
            "unsupported_format", f"the LoRA {lora.path} cannot be used with this model: {error}"
        ) from error


def _try_out(loaded: Loaded) -> None:
    """Run the longest forward pass there can be: what does not fit must fail now."""
    _pass(loaded.model, loaded.cache, loaded.config.max_input_len)
    if loaded.draft_model is not None:
        _pass(loaded.draft_model, loaded.draft_cache, loaded.config.max_input_len)


def _pass(model: ExLlamaV2, cache: Any, tokens: int) -> None:
    cache.current_seq_len = 0
    model.forward(torch.zeros((1, tokens), dtype=torch.long), cache=cache, preprocess_only=True)
    cache.current_seq_len = 0


def _reporting(report: Report, before: int, total: int) -> Callable[[int, int], None]:
    return partial(_report, report, before, total)


def _report(report: Report, before: int, total: int, done: int, _of: int) -> None:
    report(before + done, total)
