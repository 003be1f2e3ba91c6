"""As much of exllamav2 as the adapter uses, without a model: the next token is the one after.

Every signature here is the real one; a test holds it to that.
"""

# The real signatures are long.
# ruff: noqa: PLR0917

import json
from pathlib import Path
from typing import Any

VOCABULARY = 64


class ExLlamaV2Config:
    """Settings of a model."""

    max_seq_len: int
    no_sdpa: bool
    rotary_embedding_base: float
    scale_pos_emb: float
    scale_alpha_value: float

    def __init__(self, model_dir: str | None = None) -> None:
        self.model_dir = model_dir
        self.max_input_len = 2048
        self.max_attention_size = 2048**2
        self.max_output_len: int | None = None
        self.max_batch_size = 1
        self.no_flash_attn = False
        self.no_sdpa = False
        self.vocab_size = VOCABULARY

    def prepare(self, no_tensors: bool = False) -> None:
        """Read config.json."""
        json.loads((Path(str(self.model_dir)) / "config.json").read_text())

    def arch_compat_overrides(self, quiet: bool = False, warn_only: bool = False) -> None:
        """Nothing: every architecture can do everything."""


class ExLlamaV2Tokenizer:
    """Words by their numbers; the model named `other` has others."""

    def __init__(
        self,
        config: ExLlamaV2Config,
        lazy_init: bool = True,
        force_json: bool = False,
        force_spm: bool = False,
    ) -> None:
        self.config = config

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        """Return the words."""
        other = Path(str(self.config.model_dir)).name == "other"
        return [f"{'o' if other else 'w'}{token}" for token in range(VOCABULARY)]


class ExLlamaV2:
    """A model of three modules."""

    def __init__(
        self, config: ExLlamaV2Config, lazy_load: bool = False, archparams: Any = None
    ) -> None:
        self.config = config
        self.modules = ["embedding", "layer", "head"]
        self.loaded = ""
        self.split: Any = None

    def load(
        self,
        gpu_split: list[float] | None = None,
        lazy: bool = False,
        stats: bool = False,
        callback: Any = None,
        callback_gen: Any = None,
        progress: bool = False,
    ) -> None:
        """Load by hand."""
        self._load("by hand", gpu_split, callback)

    def load_autosplit(
        self,
        cache: Any,
        reserve_vram: Any = None,
        last_id_only: bool = False,
        callback: Any = None,
        callback_gen: Any = None,
        progress: bool = False,
    ) -> None:
        """Load wherever there is room."""
        assert cache.lazy
        self._load("anywhere", reserve_vram, callback)

    def load_tp(
        self,
        gpu_split: list[float] | None = None,
        callback: Any = None,
        callback_gen: Any = None,
        progress: bool = False,
        expect_cache_tokens: int = 0,
        expect_cache_base: Any = None,
    ) -> None:
        """Load in pieces; a split must be given."""
        assert gpu_split is not None
        self._load("in pieces", gpu_split, callback)

    def forward(
        self,
        input_ids: Any,
        cache: Any = None,
        input_mask: Any = None,
        preprocess_only: bool = False,
        last_id_only: bool = False,
        loras: Any = None,
        return_last_state: bool = False,
        position_offsets: Any = None,
        abort_event: Any = None,
        cpu_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        """Compute; only as much as fits."""
        assert input_ids.shape[-1] <= cache.max_seq_len

    def unload(self) -> None:
        """Be gone."""
        self.modules = []
        self.loaded = ""

    def _load(self, how: str, split: Any, callback: Any) -> None:
        for number in range(len(self.modules) + 1):
            callback(number, len(self.modules))
        self.loaded, self.split = how, split


class ExLlamaV2Cache:
    """Room for tokens."""

    def __init__(
        self,
        model: ExLlamaV2,
        batch_size: int = 1,
        max_seq_len: int = -1,
        copy_from: Any = None,
        lazy: bool = False,
        num_key_value_heads: int | None = None,
        fixed_device: int | None = None,
    ) -> None:
        self.model, self.max_seq_len, self.lazy = model, max_seq_len, lazy
        self.current_seq_len = 0


class ExLlamaV2Cache_Q4(ExLlamaV2Cache):  # noqa: N801  # exllamav2's own name
    """In 4 bits."""


class ExLlamaV2Cache_Q6(ExLlamaV2Cache):  # noqa: N801
    """In 6 bits."""


class ExLlamaV2Cache_Q8(ExLlamaV2Cache):  # noqa: N801
    """In 8 bits."""


class ExLlamaV2Cache_TP(ExLlamaV2Cache):  # noqa: N801
    """In pieces."""

    def __init__(
        self,
        model: ExLlamaV2,
        base: Any = None,
        batch_size: int = 1,
        max_seq_len: int = -1,
    ) -> None:
        super().__init__(model, max_seq_len=max_seq_len)
        self.base = base


class ExLlamaV2Lora:
    """An adapter; a folder without weights is an error."""

    def __init__(
        self, model: ExLlamaV2, lora_config_path: str, lora_path: str, lora_scaling: float = 1.0
    ) -> None:
        if not Path(lora_path).is_file():
            raise FileNotFoundError(lora_path)
        self.lora_scaling, self.unloaded = lora_scaling, False

    def unload(self) -> None:
        """Be gone."""
        self.unloaded = True
