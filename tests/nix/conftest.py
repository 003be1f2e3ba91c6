"""What the checks of everything Nix share. They are run by `make nix-check`, not by `make test`."""

from pathlib import Path

import pytest

from tests.nix.asking import STAND_IN, Nix, copy_of


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `nix-check` takes."""
    group = parser.getgroup("nix-check")
    group.addoption(
        "--nixpkgs",
        metavar="DIR",
        type=lambda text: Path(text).resolve(),
        default=STAND_IN,
        help="a full nixpkgs tree to ask instead of the stand-in (needs Nix 2.18, 1.5 GB, minutes)",
    )
    group.addoption(
        "--write-units",
        action="store_true",
        help="write nixos-modules/other-linux/*.service anew instead of comparing them",
    )


@pytest.fixture(scope="session")
def nix(request: pytest.FixtureRequest) -> Nix:
    """The nixpkgs that is asked."""
    nixpkgs: Path = request.config.getoption("--nixpkgs")
    return Nix(nixpkgs)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout to make a mistake in."""
    return copy_of(tmp_path)
