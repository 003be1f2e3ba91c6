"""`pip install .` without extras is enough for people who import the router."""

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = """
from cortex_router import *
import sys

node = Node(name="n1", healthy=True, devices=(Device(index=0, total_mb=24, free_mb=24),))
view = fleet_view((node,), {"m": Profile(id="m", size_mb=8)})
decision = decide(view, RouteRequest(model="m"), Policy(), 0.0)
assert isinstance(decision, Load) and decision.devices == (0,), decision
foreign = [name for name in sys.modules if name.split(".")[0] in ("pydantic", "orjson", "sanic")]
assert not foreign, foreign
print("well")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an empty environment with the built wheel in it, and nothing else."""
    folder = tmp_path_factory.mktemp("plain")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    made = folder / "env" / "bin" / "python"
    install = ["--python", str(made), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return made


def test_decisions_need_the_standard_library_only(python: Path, tmp_path: Path) -> None:
    """Nothing heavier is imported, and nothing is missing."""
    done = subprocess.run(
        [python, "-c", EXAMPLE], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "well", done.stderr


def test_the_page_travels_with_the_library(python: Path, tmp_path: Path) -> None:
    """Its router compiles against what was installed."""
    find = "import cortex_router, pathlib; print(pathlib.Path(cortex_router.__file__).parent)"
    folder = subprocess.run(
        [python, "-c", find], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()

    page = (Path(folder) / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert any("serve_forever" in block for block in blocks)
    for block in blocks:
        compile(block, "README.md", "exec")
