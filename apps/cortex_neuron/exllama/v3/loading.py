"""A plan, carried out with exllamav3: model, cache, draft model and adapters in memory.

Caches are made before their models are loaded: the load gives them their memory.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant, Config, Model, Tokenizer
from exllamav3.model.lora import LoRA

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.backend import Report
from cortex_neuron.exllama.plan import Lora, Plan

_BITS: Final = {"Q8": 8, "Q6": 6, "Q4": 4}


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What lies in memory."""

    config: Config
    model: Model
    cache: Cache
    tokenizer: Tokenizer
    draft_model: Model | None = None
    draft_cache: Cache | None = None
    loras: list[LoRA] = field(default_factory=list)

    def unload(self) -> None:
        """Let go of all of it."""
        for lora in self.loras:
            lora.unload()
        self.model.unload()
        if self.draft_model is not None:
            self.draft_model.unload()
        self.loras, self.draft_model, self.draft_cache = [], None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load(plan: Plan, report: Report) -> Loaded:
    """Return the model of `plan`, with its cache.

    Raises PreflightFailed for files that exllamav3 cannot use, and exllamav3's own errors.
    """
    config = Config.from_directory(plan.path)
    tokenizer = Tokenizer.from_config(config)
    model: Model = Model.from_config(config)
    cache = _cache(model, plan.cache_mode, plan.cache, plan.slots or 1)
    loaded = Loaded(config=config, model=model, cache=cache, tokenizer=tokenizer)
    # Their modules are counted when they are loaded: each is half of the way.
    halves = 1 if plan.draft is None else 2
    if plan.draft is not None:
        draft_config = Config.from_directory(plan.draft.path)
        if _pieces(Tokenizer.from_config(draft_config)) != _pieces(tokenizer):
            raise PreflightFailed(
                "unsupported_format", "the draft model has another vocabulary than the model"
            )
        draft: Model = Model.from_config(draft_config)
        loaded.draft_cache = _cache(draft, plan.draft.cache_mode, plan.cache, plan.slots or 1)
        draft.load(
            reserve_per_device=_reserve(plan),
            max_chunk_size=plan.chunk,
            callback=_reporting(report, 0, halves),
        )
        loaded.draft_model = draft
    model.load(
        reserve_per_device=None if plan.split_mb else _reserve(plan),
        use_per_device=None if plan.split_mb is None else [mb / 1024 for mb in plan.split_mb],
        tensor_p=plan.tensor_parallel,
        max_chunk_size=plan.chunk,
        callback=_reporting(report, halves - 1, halves),
    )
    loaded.loras = [_lora(model, one) for one in plan.loras]
    return loaded


def _cache(model: Model, mode: str, tokens: int, slots: int) -> Cache:
    if mode == "FP16":
        return Cache(model, max_num_tokens=tokens, layer_type=CacheLayer_fp16, max_batch_size=slots)
    bits = _BITS[mode]
    return Cache(
        model,
        max_num_tokens=tokens,
        layer_type=CacheLayer_quant,
        max_batch_size=slots,
        k_bits=bits,
        v_bits=bits,
    )


def _reserve(plan: Plan) -> list[float] | None:
    """Return GB that stay free on each device, None for exllamav3's own."""
    return [mb / 1024 for mb in plan.reserve_mb] or None


def _pieces(tokenizer: Tokenizer) -> list[str]:
    pieces: list[str] = tokenizer.get_id_to_piece_list(include_special_tokens=True)
    return pieces


def _lora(model: Model, lora: Lora) -> LoRA:
    """Return an adapter, laid over the model. Pickles are never opened."""
    folder = Path(lora.path)
    pickled = (folder / "adapter_model.bin").exists()
    if pickled or not (folder / "adapter_model.safetensors").is_file():
        raise PreflightFailed(
            "unsupported_format", f"the LoRA {lora.path} must be one of safetensors, and no other"
        )
    try:
        return LoRA.from_directory(model, lora.path, lora_scaling=lora.scale)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise PreflightFailed(
            "unsupported_format", f"the LoRA {lora.path} cannot be used with this model: {error}"
        ) from error


def _reporting(report: Report, part: int, parts: int) -> Callable[[int, int], None]:
    return partial(_report, report, part, parts)


def _report(report: Report, part: int, parts: int, done: int, total: int) -> Any:
    report(part * total + done, parts * total)
