"""The modules: what they take, what they refuse, and with which sentence."""

from pathlib import Path
from typing import Any

import pytest

from tests.nix.asking import Nix, mistake


@pytest.fixture(scope="module")
def cases(nix: Nix) -> dict[str, dict[str, Any]]:
    """Every case of cases.nix, evaluated at once."""
    judged: dict[str, dict[str, Any]] = nix.ask("cases")
    return judged


def test_every_case_comes_out_as_it_says(cases: dict[str, dict[str, Any]]) -> None:
    """Good ones evaluate, each assertion has its sentence, wrong types are refused."""
    wrong = {name: case for name, case in cases.items() if not case["right"]}

    assert wrong == {}


def test_there_are_cases_of_every_kind(cases: dict[str, dict[str, Any]]) -> None:
    """A file of cases that nobody evaluates would be right, too."""
    kinds = {
        "taken": [name for name, case in cases.items() if case["files"] and not case["failing"]],
        "asserted": [name for name, case in cases.items() if case["failing"]],
        "refused": [name for name, case in cases.items() if case["refused"]],
    }

    assert min(len(names) for names in kinds.values()) >= 5, kinds


def test_every_sentence_says_what_to_do(cases: dict[str, dict[str, Any]]) -> None:
    """An assertion names the option to change."""
    sentences = [one for case in cases.values() for one in case["failing"]]

    assert sentences
    for sentence in sentences:
        assert sentence.startswith("services.")
        assert sentence.endswith("."), sentence
        assert any(word in sentence for word in ("set ", "give ", "needs ", "move ", "name ")), (
            sentence
        )


@pytest.mark.parametrize(
    ("right", "wrong", "case"),
    [
        ("insecure = mkOption", "unsafe = mkOption", "trusted-gateway"),
        ("|| cfg.insecure;", "|| true;", "public-gateway"),
        ("cfg.keysFile != null ||", "", "gateway-with-keys"),
        ("type = types.port;", "type = types.int;", "port-too-large"),
        ("type = addresses.type;", "type = types.str;", "name-for-an-address"),
        ("assertion = cfg.neurons != { };", "assertion = true;", "no-neurons"),
        (
            "assertion = !addresses.clash api metrics;",
            "assertion = true;",
            "metrics-on-the-same-port",
        ),
    ],
)
def test_a_mistake_in_the_module_is_seen(
    nix: Nix, source: Path, right: str, wrong: str, case: str
) -> None:
    """An option renamed, an assertion that never fails, a type that takes anything."""
    mistake(source, "nixos-modules/cortex.nix", right, wrong)

    assert not nix.ask(f"cases.{case}", source)["right"]


def test_the_documentation_has_every_option(nix: Nix) -> None:
    """Each has a type and says what it is for."""
    assert nix.ask("undescribed") == []


def test_an_option_without_a_text_is_seen(nix: Nix, source: Path) -> None:
    """One that loses its description is named."""
    mistake(
        source, "nixos-modules/neuron.nix", 'description = "Port of the node.";', "visible = true;"
    )

    assert nix.ask("undescribed", source) == ["services.neuron.port"]


def test_the_example_fleet(nix: Nix) -> None:
    """No assertion fails, and of each machine exactly the port is open that the others need."""
    fleet = nix.ask("fleet")

    assert {name: machine["failing"] for name, machine in fleet.items()} == {
        "gateway": [],
        "atlas": [],
        "hermes": [],
    }
    assert {name: machine["ports"] for name, machine in fleet.items()} == {
        "gateway": [31313],
        "atlas": [13131],
        "hermes": [13131],
    }
