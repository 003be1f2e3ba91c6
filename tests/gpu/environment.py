"""The environment that the checks run in: one of our own, or one that somebody has already.

Ours lies in build/gpu-check/venv: exllamav2's release wheel with the torch that it was built for,
and flash-attn's. Another one is used as it is, and needs the project's extras. Where exllamav2 is
there without its compiled extension, exllamav2 itself is left to build it here, into
build/gpu-check/extensions and with everything said, so that no daemon ever has to.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "gpu-check"

_TORCH = "2.9.0"
_EXLLAMAV2 = (
    "https://github.com/turboderp-org/exllamav2/releases/download/v0.3.2/"
    "exllamav2-0.3.2+cu128.torch2.9.0-{tag}-{tag}-linux_x86_64.whl"
)
_FLASH_ATTN = (
    "https://github.com/Dao-AILab/flash-attention/releases/download/v2.8.3/"
    "flash_attn-2.8.3+cu12torch2.9cxx11abiTRUE-{tag}-{tag}-linux_x86_64.whl"
)
_OLDEST, _NEWEST = (3, 11), (3, 13)
_BUILD_SECS = 2 * 3600
_NEEDED = (
    *("torch", "exllamav2", "tokenizers", "jinja2", "llguidance"),
    *("sanic", "httpx", "psutil", "pydantic", "structlog", "typer", "rich", "pynvml"),
    *("orjson", "prometheus_client", "huggingface_hub", "uvloop"),
)
#: Finds modules without importing them: imported bare, exllamav2 would set out to build.
_LOOK = """
import importlib.machinery, importlib.util, json, sys
def find(name):
    spec = importlib.util.find_spec(name)
    return spec and spec.origin
extension = find("exllamav2_ext")
suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
print(json.dumps({
    "absent": [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None],
    "extension": bool(extension and extension.endswith(suffixes)),
}))
"""


class NotReady(Exception):
    """There is no environment to check in; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python that can run everything, and its variables. `notes` say how it came to be."""

    python: Path
    variables: Mapping[str, str]
    notes: str


def prepare(python: Path | None) -> Environment:
    """Return the environment of `python`, or else our own, made first. Raises NotReady."""
    if python is None:
        found, notes = _own()
    elif not os.access(python, os.X_OK):
        raise NotReady(f"{python} is no Python that can be run")
    else:
        found, notes = python, f"the environment of {python}"
    built = BUILD / "extensions"
    variables = import_path(built / "exllamav2_ext")
    state = _look(found, variables)
    if absent := state["absent"]:
        raise NotReady(
            f"{found} lacks {', '.join(absent)}: install the project with its extras there, "
            f"pip install -e '{ROOT}[gateway,neuron,exllamav2]'"
        )
    if not state["extension"]:
        _build(found, variables, built)
        notes += "; the extension was built ahead"
    return Environment(found, variables, notes)


def import_path(extension: Path) -> dict[str, str]:
    """Return our variables with an import path of this checkout and a built extension."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours = [ROOT, ROOT / "libs", ROOT / "apps", extension]
    path = [*map(str, ours), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


def wheels(version: tuple[int, int]) -> tuple[str, str]:
    """Return the wheels of exllamav2 and flash-attn for a Python. Raises NotReady."""
    if not _OLDEST <= version <= _NEWEST:
        raise NotReady(
            f"exllamav2's release wheels are for Python 3.11 to 3.13, and .venv has "
            f"{version[0]}.{version[1]}: make it of another one (make clean, then "
            "make PYTHON=python3.13 setup), or name an environment: GPU_PYTHON=/path/to/python"
        )
    tag = f"cp{version[0]}{version[1]}"
    return _EXLLAMAV2.format(tag=tag), _FLASH_ATTN.format(tag=tag)


def _own() -> tuple[Path, str]:
    """Make our environment unless it is whole already."""
    folder = BUILD / "venv"
    python, stamp = folder / "bin" / "python", folder / ".ready"
    if stamp.exists():
        return python, stamp.read_text()
    exllamav2, flash_attn = wheels(sys.version_info[:2])
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    where = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    ours = _run([sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    # What .venv has is found after what is in here.
    Path(where.strip(), "project.pth").write_text(f"import site; site.addsitedir({ours.strip()!r})")
    pip = [str(python), "-m", "pip", "install"]
    _run([*pip, f"torch=={_TORCH}", exllamav2])
    notes = f"torch {_TORCH} and exllamav2's release wheel"
    try:
        _run([*pip, "--no-deps", "einops", flash_attn])
    except NotReady as error:
        print(f"gpu-check: going on without flash-attn: {error}", file=sys.stderr)  # noqa: T201
        notes += "; without flash-attn, whose wheel could not be installed"
    stamp.write_text(notes)
    return python, notes


def _look(python: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    told = _run([str(python), "-c", _LOOK, *_NEEDED], variables)
    said: dict[str, Any] = json.loads(told.splitlines()[-1])
    return said


def _build(python: Path, variables: Mapping[str, str], folder: Path) -> None:
    """Have exllamav2 build its extension. A build that was killed leaves a lock behind."""
    if shutil.which("nvcc", path=variables.get("PATH")) is None and "CUDA_HOME" not in variables:
        raise NotReady(
            "exllamav2 is there without its compiled extension, and there is no nvcc to build it "
            "with: install a release wheel for this torch, or the CUDA toolkit (and set CUDA_HOME)"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print("gpu-check: building exllamav2's extension; this takes up to an hour", file=sys.stderr)  # noqa: T201
    _run(
        [str(python), "-c", "import exllamav2"],
        {**variables, "TORCH_EXTENSIONS_DIR": str(folder)},
        timeout_secs=_BUILD_SECS,
    )
    if not _look(python, variables)["extension"]:
        raise NotReady("exllamav2 built no extension that Python finds")


def _run(
    argv: Sequence[str],
    variables: Mapping[str, str] | None = None,
    timeout_secs: float | None = None,
) -> str:
    """Return what a command printed. Raises NotReady with the end of its errors."""
    try:
        done = subprocess.run(
            argv,
            env=variables,
            timeout=timeout_secs,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        told = " ".join(f"{error.stdout}\n{error.stderr}".split())[-600:]
        raise NotReady(f"{' '.join(argv[:4])} … failed: {told}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReady(f"{' '.join(argv[:4])} … failed: {error}") from error
    return done.stdout
