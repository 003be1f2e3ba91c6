"""`cortex simulate`: files in, figures out."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_core.loading import ConfigError
from cortex_gateway.cli.app import app
from cortex_gateway.cli.trace import read_trace

EXAMPLES = Path(str(files("cortex_gateway") / "examples"))
FLEET, MODELS, WORKLOAD = (
    str(EXAMPLES / name) for name in ("fleet.toml", "models.toml", "workload.toml")
)
GIVEN = ("--fleet", FLEET, "--models", MODELS)
MIXED = Path(__file__).parents[3] / "bench" / "mixed"


def run(*arguments: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `cortex simulate`."""
    result = CliRunner().invoke(app, ("simulate", *arguments))
    return result.exit_code, result.stdout, result.stderr


def test_policies_stand_side_by_side() -> None:
    """The examples run as they are; what has no size is named and left out."""
    code, out, err = run(
        *GIVEN, "--workload", WORKLOAD, "--requests", "200", "--policy", "lru", "--policy", "cost"
    )

    assert code == 0
    assert out.split("\n")[0].split() == ["lru", "cost"]
    assert [line.split()[1:] for line in out.splitlines() if line.startswith("requests")] == [
        ["200", "200"]
    ]
    assert "BAAI/bge-m3 has no vram_mb and is left out" in err


def test_on_a_mixed_day_cost_beats_lru_and_lru_beats_chance() -> None:
    """More models than memory, mixed sizes, bursts: fewer cold starts, and a shorter wait."""
    names = ("random", "lru", "cost")
    files = (("--fleet", "fleet"), ("--models", "models"), ("--workload", "workload"))
    given = [part for flag, name in files for part in (flag, str(MIXED / f"{name}.toml"))]
    asked = [part for name in names for part in ("--policy", name)]
    code, out, _ = run(*given, *asked, "--requests", "6000", "--json")
    said = json.loads(out)["policies"]
    cold_starts = [one["cold_starts"] for one in said]
    waits = [one["wait"]["p95"] for one in said]

    assert code == 0
    assert cold_starts == sorted(cold_starts, reverse=True)
    assert waits == sorted(waits, reverse=True)


def test_a_policy_of_ones_own_is_a_column_too() -> None:
    """Named as in the configuration; here one that does as the built-in does."""
    own = "cortex_router.eviction:Cost"
    code, out, _ = run(
        *GIVEN,
        "--workload",
        WORKLOAD,
        "--requests",
        "50",
        "--policy",
        own,
        "--policy",
        "cost",
        "--json",
    )
    mine, theirs = json.loads(out)["policies"]

    assert code == 0
    assert (mine.pop("policy"), theirs.pop("policy")) == (own, "cost")
    assert mine == theirs


def test_json_has_every_figure() -> None:
    """For scripts: the same run, nothing else on stdout."""
    code, out, _ = run(*GIVEN, "--workload", WORKLOAD, "--requests", "50", "--json")
    said = json.loads(out)

    assert code == 0
    assert [one["policy"] for one in said["policies"]] == ["lru"]
    assert said["policies"][0]["arrivals"] == 50
    assert said["policies"][0]["wait"]["p95"] >= said["policies"][0]["wait"]["p50"]


def test_the_same_seed_gives_the_same_figures_in_every_process() -> None:
    """However Python hashes its strings; another seed gives others."""

    def said(hash_seed: str, seed: str) -> str:
        arguments = ("--workload", WORKLOAD, "--requests", "300", "--policy", "random", "--json")
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "cortex_gateway",
                "simulate",
                *GIVEN,
                *arguments,
                "--seed",
                seed,
            ],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert said("1", "7") == said("2", "7")
    assert said("1", "7") != said("1", "8")


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    """A PNG, beside the table."""
    picture = tmp_path / "out.png"
    code, _, _ = run(*GIVEN, "--workload", WORKLOAD, "--requests", "50", "--plot", str(picture))

    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who asks for the picture needs it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "cortex_gateway.cli.simulation_plot", raising=False)
    code, _, err = run(*GIVEN, "--workload", WORKLOAD, "--plot", str(tmp_path / "out.png"))

    assert code == 1
    assert "cortex[simulation]" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (GIVEN, "either --trace or --workload"),
        ((*GIVEN, "--workload", WORKLOAD, "--trace", WORKLOAD), "either --trace or --workload"),
        ((*GIVEN, "--workload", WORKLOAD, "--policy", "lruu"), "there are fcfs, random, lru"),
        ((*GIVEN, "--workload", WORKLOAD, "--policy", "no.such:Thing"), "--policy"),
        ((*GIVEN, "--trace", WORKLOAD), "line 1: not a request"),
        ((*GIVEN, "--trace", "/nowhere"), "/nowhere: cannot be read"),
        (("--fleet", WORKLOAD, "--models", MODELS, "--workload", WORKLOAD), "unknown key"),
    ],
)
def test_a_mistake_is_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    """Exit status 2, and what is wrong."""
    code, _, err = run(*arguments)

    assert code == 2
    assert sentence in err


def test_our_own_log_is_a_trace() -> None:
    """A request is logged when it has ended: what it took is taken off; other lines are skipped."""
    done = {"event": "request.done", "model": "m", "prompt_tokens": 10, "completion_tokens": 5}
    lines = [
        json.dumps({"event": "cortex.started", "timestamp": "2026-01-01T00:00:00Z"}),
        json.dumps({**done, "timestamp": "2026-01-01T00:00:09.5Z", "duration_ms": 1500.0}),
        json.dumps({**done, "timestamp": "2026-01-01T00:00:10Z", "duration_ms": 5000.0}),
        json.dumps({"event": "request.failed", "timestamp": "2026-01-01T00:00:11Z", "model": "m"}),
    ]
    found = read_trace(lines, "log")

    assert [(one.at, one.model, one.prompt_tokens) for one in found] == [
        (0.0, "m", 10),
        (3.0, "m", 10),
    ]


def test_a_plain_trace_names_its_sessions() -> None:
    """Sorted by time; a broken line is named."""
    line = '{"at": %d, "model": "m", "session": "s", "prompt_tokens": 9, "completion_tokens": 1}'
    found = read_trace([line % 7, "", line % 5], "log")

    assert [(one.at, one.session) for one in found] == [(0.0, "s"), (2.0, "s")]
    with pytest.raises(ConfigError, match="line 2"):
        read_trace([line % 1, '{"model": "m"}'], "log")
