"""A fleet written down can be asked again: the same questions have the same answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_core.settings import Catalogue, NeuronEntry
from cortex_core.wire import Device, DeviceHealth, Discovery, Health, ModelInfo
from cortex_gateway.cli.app import app
from cortex_gateway.explaining import explanation
from cortex_gateway.fleet import Fleet
from cortex_gateway.picture import fleet_picture
from cortex_gateway.snapshot import NoSnapshot, view_of
from cortex_router import Policy, RouteRequest

MODELS = [
    {"id": "held", "vram_mb": 6},
    {"id": "big", "vram_mb": 10},
    {"id": "huge", "vram_mb": 900},
    {"id": "homely", "vram_mb": 2, "pinned_on": ["away"]},
]


def fleet() -> Fleet:
    """One node with a loaded model, and one that is away."""
    made = Fleet(Catalogue.model_validate({"models": MODELS, "aliases": {"gpt": "held"}}))
    here = made.add(NeuronEntry(name="here", endpoint="http://127.0.0.1:1"), {})
    made.add(NeuronEntry(name="away", endpoint="http://127.0.0.1:2"), {})
    here.healthy = True
    here.discovery = Discovery(
        hostname="h", harnesses=("llamacpp",), devices=(Device(index=0, vram_total_mb=12),)
    )
    telemetry = DeviceHealth(index=0, vram_used_mb=6, vram_free_mb=6, vram_reserved_mb=1)
    here.health = Health(devices=(telemetry,), load_cycles=3)
    here.models = {
        "held": ModelInfo(id="held", status="loaded", devices=(0,), vram_used_mb=6, last_used=5.0)
    }
    made.observed(here)
    return made


def written() -> dict[str, Any]:
    """What `cortex status --json` prints."""
    return dict(json.loads(json.dumps(fleet_picture(fleet(), in_flight=0, waiting=0))))


@pytest.mark.parametrize("model", ["held", "gpt", "big", "huge", "homely", "unheard-of"])
def test_the_same_question_has_the_same_answer(model: str) -> None:
    """Reserved memory, pins and aliases included."""
    view, now = view_of(written())

    again = explanation(view, RouteRequest(model=model), Policy(), now)

    assert again == explanation(fleet().view(), RouteRequest(model=model), Policy(), now)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"nodes": [{}], "now": 1}', '{"nodes": [], "catalogue": {}, "now": 1}']
)
def test_what_is_no_snapshot_is_said(text: str) -> None:
    """Instead of a guess."""
    with pytest.raises(NoSnapshot):
        view_of(json.loads(text))


def test_the_command_explains_a_file(tmp_path: Path) -> None:
    """Who would leave, and who is away."""
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(written()))

    result = CliRunner().invoke(app, ["explain", "big", "--snapshot", str(path)])
    as_json = CliRunner().invoke(app, ["explain", "huge", "--snapshot", str(path), "--json"])

    assert result.exit_code == 0, result.output
    assert "loaded on here" in result.output
    assert "held leaves" in result.output
    assert "unhealthy" in result.output
    assert json.loads(as_json.output)["decision"]["kind"] == "refuse"


def test_a_file_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    """Exit 2 and no trace."""
    path = tmp_path / "fleet.json"
    path.write_text("nonsense")

    for name in (path, tmp_path / "missing.json"):
        result = CliRunner().invoke(app, ["explain", "big", "--snapshot", str(name)])
        assert result.exit_code == 2
        assert name.name in result.output
