"""What a grammar inherits from."""

from typing import Any


class ExLlamaV2Filter:
    """A filter."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def begin(self, prefix_str: str) -> None:
        """Begin."""
        raise NotImplementedError

    def feed(self, token: Any) -> None:
        """Go on."""
        raise NotImplementedError

    def use_background_worker(self) -> bool:
        """Nothing in the background."""
        return False

    def can_mask_logits(self) -> bool:
        """It lists tokens."""
        return False

    def prepare_logit_mask(self) -> bool:
        """Prepare."""
        raise NotImplementedError

    def mask_logits(self, logits: Any) -> Any:
        """Mask."""
        raise NotImplementedError
