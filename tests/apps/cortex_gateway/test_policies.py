"""A user's own choices: named in the configuration, checked, and decided with."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_core.loading import ConfigError
from cortex_core.settings import CortexSettings
from cortex_gateway.cli.app import app
from cortex_gateway.cli.configuration import load_configuration
from cortex_gateway.policies import policy_of
from cortex_router import (
    STRATEGIES,
    Load,
    Policy,
    Profile,
    Replica,
    RouteRequest,
    Rules,
    Serve,
    decide,
    fleet_view,
)
from tests.libs.cortex_router.fleets import device, node, replica

HERE = "tests.apps.cortex_gateway.test_policies"
EXAMPLE = Path(str(files("cortex_gateway") / "examples" / "policy.py"))


class Contrary:
    """Whoever was used last leaves first."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """All alike."""
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """The longer idle, the dearer."""
        return now - (replica.last_used or 0.0)


class Broken(Contrary):
    """Its prices are no numbers."""

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Not a number."""
        return float("nan")


class Raising:
    """A ranking that falls over."""

    def score(self, candidate: Any, request: Any, now: float) -> tuple[float, ...]:
        """Never answers."""
        raise ZeroDivisionError


@dataclass
class Forgetful:
    """A ranking that answers differently each time."""

    asked: int = 0

    def score(self, candidate: Any, request: Any, now: float) -> tuple[float, ...]:
        """Count."""
        self.asked += 1
        return (float(self.asked * 7 % 11),)


WHOLE = Policy(rules=Rules(min_residency_secs=7.0))
NOTHING = object()


def settings(**tables: Any) -> CortexSettings:
    """Settings with these tables."""
    return CortexSettings.model_validate(tables)


def test_a_strategy_is_named_by_its_import_path() -> None:
    """And decides who leaves."""
    policy = policy_of(settings(eviction={"strategy": f"{HERE}:Contrary"}))
    full = node(
        "n",
        replica("old", used=12, last_used=1.0),
        replica("new", used=12, last_used=99.0),
        devices=(device(free=0),),
    )
    view = fleet_view((full,), {"m": Profile(id="m", size_mb=10)})

    decision = decide(view, RouteRequest(model="m"), policy, 100.0)

    assert isinstance(decision, Load)
    assert [victim.model for victim in decision.evict] == ["new"]


def test_a_whole_policy_can_be_named() -> None:
    """It takes the place of everything."""
    assert policy_of(settings(routing={"policy": f"{HERE}:WHOLE"})) is WHOLE


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_built_in_strategies_have_names(name: str) -> None:
    """As the examples say."""
    assert policy_of(settings(eviction={"strategy": name})).rules.strategy is STRATEGIES[name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:Thing", "cannot be imported"),
        (f"{HERE}:Missing", "has no 'Missing'"),
        (f"{HERE}:NOTHING", "is no policy"),
        (f"{HERE}:CliRunner", "is no policy"),
        ("lru", "must be 'package.module:Object'"),
    ],
)
def test_what_cannot_be_used_is_said_at_the_start(name: str, says: str, tmp_path: Path) -> None:
    """In a sentence that names the key."""
    config = tmp_path / "cortex.toml"
    config.write_text(f'[routing]\npolicy = "{name}"\n')

    with pytest.raises(ConfigError, match=r"routing\.policy") as refused:
        load_configuration(config, {})

    assert says in str(refused.value)


def test_a_misspelt_choice_names_the_right_ones(tmp_path: Path) -> None:
    """Before anything is imported."""
    config = tmp_path / "cortex.toml"
    config.write_text('[eviction]\nstrategy = "lfu"\n')

    with pytest.raises(ConfigError, match="lru, priority, cost"):
        load_configuration(config, {})


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("Broken", "prices are finite and not negative"),
        ("Raising", "never raises"),
        ("Forgetful", "same question, same answer"),
    ],
)
def test_the_check_finds_what_a_policy_breaks(name: str, promise: str) -> None:
    """And says how often it looked."""
    result = CliRunner().invoke(app, ["policy", "check", f"{HERE}:{name}", "--views", "200"])

    assert result.exit_code == 1
    assert promise in result.output
    assert "200 fleets" in result.output


@pytest.mark.parametrize("name", ["SmallestFirst", "Fastest"])
def test_the_examples_keep_every_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied into a folder of one's own, as the file says."""
    monkeypatch.chdir(EXAMPLE.parent)

    result = CliRunner().invoke(app, ["policy", "check", f"policy:{name}"])

    assert result.exit_code == 0, result.output


def test_an_example_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of two idle replicas is asked."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    policy = policy_of(settings(routing={"policy": "policy:Fastest"}))
    slow, fast = (
        Replica(model="m", status=replica("m").status, tok_s_decode=speed) for speed in (10.0, 20.0)
    )

    decision = decide(
        fleet_view((node("a", slow), node("b", fast))), RouteRequest(model="m"), policy, 0.0
    )

    assert isinstance(decision, Serve)
    assert decision.node == "b"
