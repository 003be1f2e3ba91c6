"""Real coding agents against a real cortex: they do a small task, also when the node fails them.

    python -m tests.agents
    python -m tests.agents codex --no-faults
    python -m tests.agents --json > measured.json

The newest packages are installed from npm into a folder that is thrown away, unless one is named.
The agents run without any network but loopback, in homes of their own. Needs Linux, npm and the
right to make network namespaces. Every fault at every boundary takes about five minutes.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.agents.offline import install, without_network
from tests.agents.worker import AGENTS


def main(
    agents: Annotated[
        list[str] | None, typer.Argument(help="claude-code, codex. Default: both.")
    ] = None,
    *,
    packages: Annotated[
        Path | None, typer.Option(help="npm folder to use; what it has is not installed again.")
    ] = None,
    with_faults: Annotated[bool, typer.Option("--faults/--no-faults")] = True,
    record: Annotated[
        Path | None, typer.Option(help="Folder for the requests they make, made anonymous.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Run coding agents against a cortex with a scripted node. Fails when a task is not done."""
    names = agents or list(AGENTS)
    with tempfile.TemporaryDirectory(prefix="agents-") as made:
        folder = (packages or Path(made)).resolve()
        if missing := [AGENTS[name].package for name in names if not _has(folder, name)]:
            install(folder, missing)
        options = ["--faults" if with_faults else "--no-faults"]
        if record is not None:
            record.mkdir(parents=True, exist_ok=True)
            options += ["--record", str(record.resolve())]
        reports = {
            f"{name} {_version(folder, name)}": trials
            for name, trials in _all_trials(names, folder, options, Path(made)).items()
        }
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
    else:
        typer.echo("\n\n".join(_table(title, trials) for title, trials in reports.items()))
    if not all(one["finished"] for trials in reports.values() for one in trials):
        raise typer.Exit(1)


def _has(folder: Path, name: str) -> bool:
    return (folder / "node_modules" / AGENTS[name].package).is_dir()


def _version(folder: Path, name: str) -> str:
    about = folder / "node_modules" / AGENTS[name].package / "package.json"
    version: str = json.loads(about.read_text())["version"]
    return version


def _all_trials(
    names: Iterable[str], folder: Path, options: list[str], logs: Path
) -> dict[str, list[dict[str, Any]]]:
    """Run the agents side by side and return what each did."""
    workers = {}
    for name in names:
        argv = [sys.executable, "-m", "tests.agents.worker", name, str(folder), *options]
        with (logs / f"{name}.log").open("wb") as log:
            workers[name] = subprocess.Popen(
                without_network(argv), stdout=subprocess.PIPE, stderr=log, text=True
            )
    printed = {name: worker.communicate()[0] for name, worker in workers.items()}
    if failed := [name for name, worker in workers.items() if worker.returncode != 0]:
        for name in failed:
            typer.echo((logs / f"{name}.log").read_text(), err=True)
        raise typer.Exit(2)
    return {name: [json.loads(line) for line in out.splitlines()] for name, out in printed.items()}


def _table(title: str, trials: list[dict[str, Any]]) -> str:
    lines = [title, f"{'fault':45} {'done':>4} {'secs':>5}  requests, and how each ended"]
    for one in trials:
        steps = "; ".join(one["requests"])
        done = "yes" if one["finished"] else "NO"
        lines.append(f"{one['fault']:45} {done:>4} {one['secs']:5.1f}  {steps}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
