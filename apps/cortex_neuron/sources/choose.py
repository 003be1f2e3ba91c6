"""Choose the one GGUF that is meant among several. Pure: names in, a name out.

A quant is matched without regard to case against the quant label in each name (`Q4_K_M` in
`model-Q4_K_M.gguf`), else against the whole name. Projectors (`mmproj`) are no models, and of a
split model only the first shard counts.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from cortex_core.errors import PreflightFailed

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:^|[-._/ ])"
    r"((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F16|F32))"
    r"(?=[-. ]|$)",
    re.IGNORECASE,
)


def is_model(name: str) -> bool:
    """Whether `name` is a GGUF that can be loaded: no projector, no later shard."""
    file = PurePosixPath(name).name.lower()
    shard = _SHARD.search(file)
    return (
        file.endswith(".gguf")
        and "mmproj" not in file
        and (shard is None or int(shard.group(1)) == 1)
    )


def shards_of(name: str) -> tuple[str, ...]:
    """Return every file of the model that `name` belongs to, first shard first."""
    shard = _SHARD.search(name)
    if shard is None:
        return (name,)
    stem, count = name[: shard.start()], int(shard.group(2))
    return tuple(f"{stem}-{n:05d}-of-{count:05d}{name[-5:]}" for n in range(1, count + 1))


def quant_of(name: str) -> str | None:
    """Return the quant label in a file's name, or None."""
    file = _SHARD.sub(".gguf", PurePosixPath(name).name)
    labels = _LABEL.findall(file.removesuffix(".gguf").removesuffix(".GGUF"))
    return str(labels[-1]) if labels else None


def choose(names: Iterable[str], quant: str | None, where: str) -> str:
    """Return the name that `quant` means, or the only one there is.

    Raises PreflightFailed: `unsupported_format` without any GGUF, `quant_not_found` with the
    available and the nearest quant.
    """
    models = sorted(name for name in names if is_model(name))
    if not models:
        raise PreflightFailed("unsupported_format", f"{where} holds no GGUF model file")
    if quant is None:
        if len(models) == 1:
            return models[0]
        raise _not_found(models, None, f"{where} holds {len(models)} GGUF files; name a quant")
    wanted = quant.casefold().removesuffix(".gguf")
    for means in (_label, _stem):
        if found := [name for name in models if means(name) == wanted]:
            if len(found) == 1:
                return found[0]
            raise _not_found(found, quant, f"{where} holds several files of quant {quant!r}")
    raise _not_found(models, quant, f"{where} holds no quant {quant!r}")


def _label(name: str) -> str:
    return (quant_of(name) or "").casefold()


def _stem(name: str) -> str:
    return PurePosixPath(name).name.casefold().removesuffix(".gguf")


def _not_found(models: list[str], requested: str | None, sentence: str) -> PreflightFailed:
    labels = [quant_of(name) or PurePosixPath(name).name for name in models]
    available = (
        labels if len(set(labels)) == len(labels) else [PurePosixPath(m).stem for m in models]
    )
    by_fold = {label.casefold(): label for label in available}
    near = difflib.get_close_matches((requested or "").casefold(), by_fold, n=1, cutoff=0.3)
    nearest = by_fold[near[0]] if near else None
    advice = f"; did you mean {nearest!r}?" if nearest else f"; available: {', '.join(available)}"
    extra = {"requested": requested, "available": available, "nearest": nearest}
    return PreflightFailed("quant_not_found", sentence + advice, extra=extra)
