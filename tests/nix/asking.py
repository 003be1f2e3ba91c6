"""Ask Nix about the checkout, or about a copy of it with a mistake in it."""

import json
import os
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("nixpkgs")
EVALUATE = Path("tests/nix/evaluate.nix")
#: What the Nix files read.
SOURCES = (
    "LICENSE",
    "README.md",
    "apps",
    "checks",
    "flake.lock",
    "flake.nix",
    "libs",
    "nixos-modules",
    "pyproject.toml",
    "tests",
)
_FULL_TREE_SECS = 900


class Refused(Exception):
    """Nix said no; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Nix:
    """One nixpkgs, the stand-in or a full tree, and a store for what is read from it."""

    nixpkgs: Path

    @property
    def is_real(self) -> bool:
        """Whether this is a full tree."""
        return self.nixpkgs != STAND_IN

    def ask(self, attribute: str, source: Path = ROOT) -> Any:
        """Return what `evaluate.nix` says about the modules in `source`. Raises Refused."""
        answer = _known if source == ROOT else _evaluated
        return json.loads(answer(self.nixpkgs, attribute, source))

    def flake(self, source: Path, *command: str) -> str:
        """Return what a command on the flake in `source` prints. Raises Refused."""
        return _nix("flake", *command, f"path:{source}", *self._instead_of_the_lock())

    def output(self, source: Path, name: str) -> Any:
        """Return the value of one output of the flake in `source`. Raises Refused."""
        asked = ("eval", "--json", f"path:{source}#{name}")
        return json.loads(_nix(*asked, *self._instead_of_the_lock()))

    def _instead_of_the_lock(self) -> tuple[str, ...]:
        nixpkgs = _stored(self.nixpkgs) if self.is_real else f"path:{self.nixpkgs}"
        return ("--override-input", "nixpkgs", nixpkgs, "--no-write-lock-file")


def check_lock(source: Path) -> None:
    """Compare the lock of the flake in `source` with its inputs. Raises Refused."""
    _nix("flake", "metadata", "--no-update-lock-file", f"path:{source}")


def parse(file: Path) -> None:
    """Read one file as Nix. Raises Refused."""
    _run(("nix-instantiate", "--parse", str(file)))


def copy_of(folder: Path) -> Path:
    """Return a copy of what the Nix files read, to make a mistake in."""
    made = folder / "source"
    for name in SOURCES:
        here = ROOT / name
        if here.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(here, made / name, ignore=ignored)
        else:
            made.mkdir(exist_ok=True)
            shutil.copy(here, made / name)
    return made


def mistake(source: Path, file: str, right: str, wrong: str) -> None:
    """Put `wrong` in the place of `right`, which must be there."""
    path = source / file
    text = path.read_text(encoding="utf-8")
    assert right in text, f"{file} has no {right!r} any more: seed another mistake"
    path.write_text(text.replace(right, wrong), encoding="utf-8")


def _evaluated(nixpkgs: Path, attribute: str, source: Path) -> str:
    asked = ("nix-instantiate", "--eval", "--strict", "--json", "-A", attribute)
    return _run((*asked, "--arg", "nixpkgs", str(nixpkgs), str(source / EVALUATE)))


# The checkout stays as it is while the checks run; a full tree takes a minute for some questions.
_known = cache(_evaluated)


@cache
def _stored(tree: Path) -> str:
    """Return a full tree as an input that is not copied again for every question."""
    path = _nix("store", "add-path", "--name", "source", str(tree)).strip()
    contents = urllib.parse.quote(_nix("hash", "path", str(tree)).strip(), safe="")
    return f"path:{path}?narHash={contents}"


def _nix(*command: str) -> str:
    # Nix 2.8 wants each feature by itself.
    features = ("nix-command", "flakes")
    wanted = [word for name in features for word in ("--extra-experimental-features", name)]
    return _run(("nix", *wanted, "--offline", *command))


def _run(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_FULL_TREE_SECS,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode:
        raise Refused(re.sub(r"\x1b\[[0-9;]*m", "", done.stderr))
    return done.stdout
