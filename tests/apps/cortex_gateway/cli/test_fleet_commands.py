"""`cortex status`, `models`, `load` and `unload` against a cortex on a real socket."""

import json
import socket
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_gateway.cli.app import app
from tests.apps.cortex_gateway.cli.fake_cortex import NOW, fleet, node, running

RESIDENT = {
    "id": "org/model",
    "status": "loaded",
    "devices": [0],
    "vram_used_mb": 6144,
    "in_flight": 2,
    "queue_depth": 5,
    "last_used": NOW - 3,
}
CARD = {
    "index": 0,
    "kind": "cuda",
    "name": "RTX 3060",
    "vram_total_mb": 12288,
    "vram_used_mb": 6144,
    "vram_free_mb": 3072,
    "vram_reserved_mb": 3072,
    "utilization_pct": 87.0,
    "temp_c": 64.0,
}


def run(*arguments: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `cortex`."""
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def loading(done: int | None = None, status: str = "loading", **said: object) -> dict[str, Any]:
    """Return a row of a model on its way."""
    how = {"phase": "fetching", "done_bytes": done, "total_bytes": 100_000_000}
    return {"id": "org/model", "status": status, "progress": how if done else None, **said}


def test_status_shows_memory_and_residents() -> None:
    """Used, promised and free are told apart; the last use is an age, not a date."""
    with running({"GET /fleet": [(200, fleet(node(devices=[CARD], models=[RESIDENT])))]}) as it:
        code, out, _ = run("status", "-e", it.endpoint)

    assert code == 0
    assert "2 in flight, 1 waiting" in out
    assert "█" * 12 + "▒" * 6 + "░" * 6 in out
    assert "6.0" in out
    assert "3.0" in out
    assert "12.0" in out
    assert "87 %" in out
    assert "64 °C" in out
    assert "org/model" in out
    assert "3 s ago" in out


def test_status_shows_how_far_a_load_is() -> None:
    """Bytes fetched of bytes to fetch."""
    view = fleet(node(models=[loading(41_200_000)]))
    with running({"GET /fleet": [(200, view)]}) as it:
        _, out, _ = run("status", "-e", it.endpoint)

    assert "fetching 41.2 of 100.0 MB" in out
    assert "never" in out


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("degraded", 1), ("impaired", 1)])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_status_exits_with_how_the_fleet_is(state: str, code: int, form: tuple[str, ...]) -> None:
    """A script need not read the table, and JSON changes nothing about the exit status."""
    with running({"GET /fleet": [(200, fleet(status=state))]}) as it:
        assert run("status", "-e", it.endpoint, *form)[0] == code


def test_status_as_json_is_what_cortex_said() -> None:
    """Nothing is lost or renamed on the way."""
    said = fleet(node(devices=[CARD], something_new=1))
    with running({"GET /fleet": [(200, said)]}) as it:
        _, out, _ = run("status", "-e", it.endpoint, "--json")

    assert json.loads(out) == said


def test_status_tells_why_a_node_is_away() -> None:
    """The node's last error is shown, and its words are not taken for markup."""
    away = node(healthy=False, last_seen=NOW - 300, error="[red]connect\x1b[2J[/red] refused")
    with running({"GET /fleet": [(200, fleet(away, status="degraded"))]}) as it:
        _, out, _ = run("status", "-e", it.endpoint)

    assert "not healthy" in out
    assert "heard 5 min ago" in out
    assert "[red]connect[2J[/red] refused" in out


def test_models_on_disk_are_not_shown_as_resident() -> None:
    """What only has its files on a node is named apart."""
    view = fleet(node(models=[RESIDENT, {"id": "org/asleep", "status": "unloaded"}]))
    with running({"GET /fleet": [(200, view)]}) as it:
        _, out, _ = run("status", "-e", it.endpoint)

    assert "on disk: org/asleep" in out


def test_nobody_there_is_exit_3_with_a_sentence() -> None:
    """Not reaching cortex is told apart from cortex not being well."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, out, err = run("status", "-e", f"127.0.0.1:{port}")

    assert (code, out) == (3, "")
    assert f"cannot reach cortex at http://127.0.0.1:{port}" in err
    assert "--endpoint" in err


@pytest.mark.parametrize("said", [b"<html>hello</html>", b"[]", b'{"status":"ok"}'])
def test_something_else_there_is_exit_3(said: bytes) -> None:
    """Another program on the port is not a cortex that is ill."""
    with running({"GET /fleet": [(200, said)]}) as it:
        code, _, err = run("status", "-e", it.endpoint)

    assert code == 3
    assert "is not" in err
    assert "cortex" in err


def test_an_address_that_is_none_is_a_usage_error() -> None:
    """Not every text is an address."""
    assert run("status", "-e", "ftp://host")[0] == 2


def test_models_lists_where_and_what() -> None:
    """Where each is loaded and could be, what it can do, and its other names."""
    entry = {
        "id": "org/model",
        "loaded": True,
        "feasible_on": ["atlas", "hermes"],
        "locations": [{"node": "atlas", "status": "loaded"}, {"node": "b", "status": "loading"}],
        "capabilities": ["chat"],
        "max_model_len": 8192,
        "aliases": ["claude"],
    }
    said = {"object": "list", "data": [entry]}
    with running({"GET /v1/models": [(200, said)]}) as it:
        code, out, _ = run("models", "-e", it.endpoint)
        as_json = run("models", "-e", it.endpoint, "--json")[1]

    assert code == 0
    for word in ("org/model", "atlas, b (loading)", "atlas, hermes", "8192", "chat", "claude"):
        assert word in out
    assert json.loads(as_json) == said


def test_load_of_a_loaded_model_answers_at_once() -> None:
    """200 means loaded: nothing is polled."""
    done = {"status": "loaded", "node": "atlas"}
    with running({"POST /fleet/models/load": [(200, done)]}) as it:
        code, out, _ = run("load", "org/model", "--node", "atlas", "-e", it.endpoint)

    assert (code, out) == (0, "org/model is loaded on atlas\n")
    assert it.asked == ['POST /fleet/models/load {"model": "org/model", "node": "atlas"}']


def test_load_follows_the_fleet_until_the_model_is_up() -> None:
    """202 means on its way: the fleet is watched, by the name behind an alias, and bytes shown."""
    known: dict[str, Any] = {"models": [{"id": "org/model", "aliases": ["claude"]}]}
    with running(
        {
            "POST /fleet/models/load": [(202, {"status": "loading", "node": "atlas"})],
            "GET /fleet": [
                (200, fleet(node(models=[loading(10_000_000)]), **known)),
                (200, fleet(node(models=[loading(90_000_000)]), **known)),
                (200, fleet(node(models=[RESIDENT]), **known)),
            ],
        }
    ) as it:
        code, out, err = run("load", "claude", "-e", it.endpoint)

    assert (code, out) == (0, "claude is loaded on atlas\n")
    assert "fetching on atlas: 10.0 of 100.0 MB" in err
    assert "fetching on atlas: 90.0 of 100.0 MB" in err


def test_a_load_that_fails_says_why() -> None:
    """The node's own sentence reaches the person who asked."""
    broken = loading(status="failed", error="the file is corrupt")
    with running(
        {
            "POST /fleet/models/load": [(202, {"status": "loading", "node": "atlas"})],
            "GET /fleet": [
                (200, fleet(node(models=[loading(10_000_000)]))),
                (200, fleet(node(models=[broken]))),
            ],
        }
    ) as it:
        code, out, err = run("load", "org/model", "-e", it.endpoint, "--json")

    assert (code, out) == (1, "")
    assert err == "org/model failed on atlas: the file is corrupt\n"


def test_a_refused_load_prints_the_message_of_cortex() -> None:
    """The envelope's message is what the person reads."""
    no = {"error": {"message": "no node can hold 'x'", "code": "model_infeasible"}}
    with running({"POST /fleet/models/load": [(404, no)]}) as it:
        code, _, err = run("load", "x", "-e", it.endpoint)

    assert code == 1
    assert "no node can hold 'x'" in err


def test_unload_says_from_where() -> None:
    """The drain limit travels, and the nodes come back."""
    gone = {"status": "unloaded", "nodes": ["atlas", "hermes"]}
    with running({"POST /fleet/models/unload": [(200, gone)]}) as it:
        code, out, _ = run("unload", "m", "--drain", "2", "-e", it.endpoint)

    assert (code, out) == (0, "m is unloaded from atlas, hermes\n")
    assert it.asked == ['POST /fleet/models/unload {"model": "m", "drain_secs": 2.0}']


def test_an_error_without_an_envelope_still_has_a_sentence() -> None:
    """A proxy between us and cortex answers in its own words."""
    with running({"POST /fleet/models/unload": [(502, b"<h1>Bad Gateway</h1>")]}) as it:
        code, _, err = run("unload", "m", "-e", it.endpoint)

    assert code == 1
    assert "answered 502" in err
