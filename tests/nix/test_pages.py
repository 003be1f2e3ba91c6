"""The pages: what they show of Nix is what the modules take."""

import re
from pathlib import Path

import pytest

from tests.nix.asking import ROOT, Nix, parse

PAGES = ("README.md", "nixos-modules/README.md")
CASES = """
let
  of = lines: {{ module = lines; failing = [ ]; }};
  cortex.legacyPackages.x86_64-linux.neuron-cuda = {{
    type = "derivation";
    outPath = "/opt/neuron-cuda";
    cudaSupport = true;
  }};
in
{{
{cases}
}}
"""


def blocks(page: str) -> list[str]:
    """Return the pieces of Nix on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```nix\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_taken(nix: Nix, source: Path, page: str) -> None:
    """Each piece of a configuration evaluates, with no assertion failing."""
    shown = [block for block in blocks(page) if "outputs =" not in block]
    lines = [f"  block{number} = of {{\n{block}}};" for number, block in enumerate(shown)]
    cases = source / "tests" / "nix" / "cases.nix"
    cases.write_text(CASES.format(cases="\n".join(lines)), encoding="utf-8")

    judged = nix.ask("cases", source)
    assert len(judged) == len(shown) > 0
    assert {name: one for name, one in judged.items() if not one["right"]} == {}


def test_the_flake_on_the_page_parses(tmp_path: Path) -> None:
    """The whole one that is there to be copied."""
    (flake,) = [block for page in PAGES for block in blocks(page) if "outputs =" in block]

    (tmp_path / "flake.nix").write_text(flake, encoding="utf-8")
    parse(tmp_path / "flake.nix")
    assert "cortex.nixosModules.default" in flake


@pytest.mark.parametrize("service", ["cortex", "neuron"])
def test_every_option_is_on_the_page(nix: Nix, service: str) -> None:
    """An operator finds each by its name."""
    page = (ROOT / "nixos-modules" / "README.md").read_text(encoding="utf-8")

    options = nix.ask(f"options.{service}")
    assert len(options) > 8
    assert [name for name in options if f"`{name}" not in page and f"`.{name}" not in page] == []
