"""The packages: what pyproject.toml asks for is in nixpkgs, in versions that satisfy it."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.nix.asking import ROOT, Nix, Refused, mistake


def test_the_flavour_for_cuda(nix: Nix, source: Path) -> None:
    """It is asked for by its own name, says that it needs a driver, and has exllamav2."""
    cuda = nix.output(source, "legacyPackages.x86_64-linux.neuron-cuda.cudaSupport")
    plain = nix.output(source, "packages.x86_64-linux.neuron.cudaSupport")

    assert (cuda, plain) == (True, False)
    assert nix.output(source, "legacyPackages.x86_64-linux.neuron-cuda.drvPath")


def test_exllamav2_without_cuda_is_seen(nix: Nix, source: Path) -> None:
    """In a nixpkgs without `cudaSupport` it is broken, and that is said."""
    mistake(source, "flake.nix", "config.cudaSupport = true;", "")
    mistake(source, "apps/packages.nix", "(pkgs.config.cudaSupport or false)", "true")

    with pytest.raises(Refused, match="broken"):
        nix.output(source, "legacyPackages.x86_64-linux.neuron-cuda.drvPath")


def test_what_needs_the_model_is_not_tried_where_there_is_no_network(nix: Nix) -> None:
    """The files of tests that name it are left out of a build, and no others."""
    left_out = nix.ask("leftOut")

    assert "tests/apps/cortex_neuron/llamacpp/test_harness.py" in left_out
    assert "tests/apps/cortex_neuron/test_ledger.py" not in left_out
    assert all((ROOT / file).is_file() for file in left_out)


def unmet(nix: Nix, source: Path) -> list[str]:
    """Return the requirements that nixpkgs' version does not meet."""
    return [
        f"{one['name']}: nixpkgs has {one['value']}"
        for one in nix.ask("versions", source)
        if not Requirement(one["name"]).specifier.contains(one["value"])
    ]


def test_nixpkgs_has_what_is_required(nix: Nix, source: Path) -> None:
    """Every range admits the version in nixpkgs."""
    assert unmet(nix, source) == []


def test_a_range_that_nixpkgs_does_not_meet_is_seen(nix: Nix, source: Path) -> None:
    """A lower bound newer than nixpkgs fails the check."""
    mistake(source, "pyproject.toml", "typer>=0.20", "typer>=0.99")

    assert [one.split(":")[0] for one in unmet(nix, source)] == ["typer>=0.99,<1"] * 2


def test_a_dependency_that_nixpkgs_lacks_is_seen(nix: Nix, source: Path) -> None:
    """A new one that is no package there fails the check, and is named."""
    mistake(source, "pyproject.toml", '"orjson>=3.11,<4",\n', '"no-such-thing>=1",\n')

    with pytest.raises(Refused, match="no-such-thing"):
        nix.ask("versions", source)
