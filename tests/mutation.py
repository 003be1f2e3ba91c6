"""`make mutants`: change the code that decides who leaves, and see whether a test notices.

Every mutant of placement and eviction is a copy with one small bug. A mutant that survives is
either a test that is missing, code that is not needed, or a change that makes no difference. It
works on copies under build/mutants, ends with a count for each file, and fails below the share
that has to be killed.

    make mutants
    make mutants ARGS="show placement"
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "mutants"
PACKAGE, TESTS = "cortex_router", Path("tests/libs/cortex_router")
MUTATED = ("placement", "eviction")
NOTICING = ("test_eviction.py", "test_placement.py", "test_placement_properties.py")
LEAST_KILLED_PERCENT = 90

SETTINGS = f"""
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib"]
pythonpath = ["."]

[tool.mutmut]
source_paths = ["src"]
only_mutate = {[f"src/{PACKAGE}/{name}.py" for name in MUTATED]}
pytest_add_cli_args_test_selection = {[str(TESTS / name) for name in NOTICING]}
use_git_change_detection = false
"""
# A mutant is killed by the first example that fails: nobody wants to see the smallest.
CONFTEST = '''"""Hypothesis for mutants: the same examples every time, none made smaller."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutants")
'''
#: What mutmut notes as the exit code of the tests: 0 is a mutant that nobody noticed, 33 one that
#: no test ever runs; None was not run.
SURVIVED = {0: "survived", 33: "not covered", None: "not run"}


def main() -> int:
    """Run every mutant, or show those of one module that survived."""
    if sys.argv[1:2] == ["show"]:
        return _show(sys.argv[2])
    _make_place()
    done = _mutmut("run", "--max-children", "1")
    return done or _report()


def _make_place() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(ROOT / "libs" / PACKAGE, PLACE / "src" / PACKAGE)
    (PLACE / TESTS).mkdir(parents=True)
    for name in ("fleets.py", "strategies.py", *NOTICING):
        shutil.copy(ROOT / TESTS / name, PLACE / TESTS / name)
    (PLACE / "pyproject.toml").write_text(SETTINGS)
    (PLACE / "tests" / "conftest.py").write_text(CONFTEST)


def _mutmut(*args: str) -> int:
    program = [sys.executable, "-m", "mutmut", *args]
    return subprocess.run(program, cwd=PLACE, check=False).returncode


def _outcomes(module: str) -> dict[str, int | None]:
    notes = PLACE / "mutants" / "src" / PACKAGE / f"{module}.py.meta"
    codes: dict[str, int | None] = json.loads(notes.read_text())["exit_code_by_key"]
    return codes


def _show(module: str) -> int:
    for name, code in _outcomes(module).items():
        if code in SURVIVED:
            typer.echo(f"\n{SURVIVED[code]}")
            sys.stdout.flush()  # what the other program prints comes after it
            _mutmut("show", name)
    return 0


def _report() -> int:
    killed = total = 0
    for module in MUTATED:
        counts = Counter(SURVIVED.get(code, "killed") for code in _outcomes(module).values())
        killed, total = killed + counts["killed"], total + counts.total()
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        typer.echo(f"{module + '.py':14} {counts.total():4} mutants: {told}")
    percent = 100 * killed / total
    typer.echo(f"{'together':14} {total:4} mutants: {percent:.1f} % killed")
    return int(percent < LEAST_KILLED_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
