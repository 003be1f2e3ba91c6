"""Takes all memory that is free on the first device it sees, and holds it until stdin ends."""

from typing import Any

import torch

from tests.gpu.child import answer

_MIB = 1 << 20
_LARGE, _SMALL = 64 * _MIB, 2 * _MIB
#: What is in here is not given back.
_held: list[Any] = []


def take(_: dict[str, Any]) -> dict[str, Any]:
    """Take what there is, in smaller pieces at the end."""
    taken = 0
    for size in (_LARGE, _SMALL):
        while True:
            try:
                _held.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
            except torch.cuda.OutOfMemoryError:
                break
            taken += size
    return {"held_mb": taken // _MIB}


if __name__ == "__main__":
    answer(take)
