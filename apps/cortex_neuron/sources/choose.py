"""Choose the one model that is meant among several. Pure: names in, a name out.

GGUF comes first: where there is one, that is what is chosen. A quant is matched without regard to
case against the quant label in each name (`Q4_K_M` in `model-Q4_K_M.gguf`), else against the whole
name. Projectors (`mmproj`) are no models, and of a split model only the first shard counts. A model
of safetensors is a folder; its quant is the name of the folder, or of the branch it comes from.
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
_BITS_IN_NAME = re.compile(r"(\d+(?:[._]\d+)?)bpw", re.IGNORECASE)
_WEIGHTS, _CONFIG, _TEMPLATES = ".safetensors", "config.json", "additional_chat_templates/"
_WEIGHTS_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")

#: The small files of a model that an engine reads.
_SMALL = frozenset(
    {
        _CONFIG, "generation_config.json", "quantize_config.json", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "preprocessor_config.json", "chat_template.jinja", "chat_template.json",
    }
)  # fmt: skip


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
        raise PreflightFailed(
            "unsupported_format",
            f"{where} holds no model: neither a GGUF file nor safetensors with a config.json",
        )
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


def is_model_folder(names: Iterable[str]) -> bool:
    """Tell whether a folder that holds `names` is one model: weights, and what they mean."""
    known = set(names)
    weights = any(name.endswith(_WEIGHTS) for name in known)
    return weights and _CONFIG in known and not any(map(is_model, known))


def model_folders(names: Iterable[str]) -> tuple[str, ...]:
    """Return the folders among `names` (paths) that are a model each; the top one is empty."""
    inside: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        inside.setdefault(folder, []).append(file)
    return tuple(sorted(folder for folder, files in inside.items() if is_model_folder(files)))


def files_needed(names: Iterable[str], folder: str) -> tuple[str, ...]:
    """Return the files of `folder` that a model of safetensors is loaded from, weights last.

    What a vendor's own programs want (`consolidated…`) is left where others have it too.
    """
    within = f"{folder}/" if folder else ""
    here = sorted(name for name in names if name.startswith(within))
    own = [name for name in here if "/" not in name.removeprefix(within)]
    weights = [name for name in own if name.endswith(_WEIGHTS)]
    plain = [name for name in weights if not _stem(name).startswith(("consolidated", "adapter_"))]
    small = [
        name
        for name in here
        if name.removeprefix(within) in _SMALL
        or (name.removeprefix(within).startswith(_TEMPLATES) and name.endswith(".jinja"))
    ]
    return (*small, *(plain or weights))


def missing_shards(names: Iterable[str]) -> tuple[str, ...]:
    """Return the weights that `names` promise and do not have."""
    known = set(names)
    wanted: dict[str, None] = {}
    for name in sorted(known):
        if found := _WEIGHTS_SHARD.search(name):
            stem, count = name[: found.start()], min(int(found[2]), len(known) + 1)
            every = (f"{stem}-{n:05d}-of-{found[2]}{_WEIGHTS}" for n in range(1, count + 1))
            wanted |= dict.fromkeys(every)
    return tuple(name for name in wanted if name not in known)


def means(quant: str, label: str) -> bool:
    """Whether somebody who says `quant` means the branch or folder `label`.

    `4bpw`, `4.0bpw` and `4_0` are one number.
    """
    if quant.casefold() == label.casefold():
        return True
    one, other = _bits(quant), _bits(label)
    return one is not None and one == other


def is_quant_of(quant: str, repo: str) -> bool:
    """Whether the repository's name says that all of it is of this quant."""
    wanted = _bits(quant)
    said = {_bits(found) for found in _BITS_IN_NAME.findall(repo)}
    return (wanted is not None and wanted in said) or quant.casefold() in repo.casefold()


def no_such_quant(quant: str | None, available: Iterable[str], where: str) -> PreflightFailed:
    """Return the error for a quant that is no branch and no folder, with the nearest."""
    labels = sorted(available)
    if quant is None:
        return PreflightFailed(
            "quant_not_found",
            f"{where} holds several models; name a quant: {', '.join(labels)}",
            extra={"requested": None, "available": labels, "nearest": None},
        )
    near = difflib.get_close_matches(quant.casefold(), [one.casefold() for one in labels], n=1)
    nearest = next((one for one in labels if one.casefold() in near), None)
    offer = f"; available: {', '.join(labels)}" if labels else ""
    advice = f"; did you mean {nearest!r}?" if nearest else offer
    return PreflightFailed(
        "quant_not_found",
        f"{where} holds no quant {quant!r}{advice}",
        extra={"requested": quant, "available": labels, "nearest": nearest},
    )


def _bits(label: str) -> float | None:
    try:
        return float(label.casefold().removesuffix("bpw").replace("_", "."))
    except ValueError:
        return None


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
