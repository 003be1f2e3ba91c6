"""`make gpu-check`: everything that needs an NVIDIA GPU, checked on this machine's.

    make gpu-check                                 in an environment that it makes
    make gpu-check GPU_PYTHON=/path/to/python      in one that is there already
    make gpu-check GPU_MODEL=~/models/some-exl2    with a model that is there already

The report is build/gpu-check/report.md. The status is 0 only when every check that applies passed;
without a GPU it is 1, and one sentence says so. It takes all memory of the first card for a while.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from cortex_neuron.nvml import find_gpus
from tests.gpu.environment import BUILD, NotReady, prepare
from tests.gpu.machine import absence, described
from tests.gpu.run import broken, conclude


def main() -> int:
    """Look at the machine, make the environment, and go on in it."""
    reader = argparse.ArgumentParser(prog="gpu-check", description=__doc__)
    reader.add_argument("--python", type=Path, help="Instead of an environment of our own.")
    reader.add_argument("--model", type=Path, help="A model's folder, instead of a fetched one.")
    said = reader.parse_args()
    found = find_gpus()
    if found.nvml is None:
        sys.stderr.write(f"gpu-check: {absence(found)}\n")
        return 1
    facts = described(found.nvml)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), flush=True)  # noqa: T201
    try:
        ready = prepare(said.python)
    except NotReady as problem:
        return conclude(BUILD, facts, [broken("environment", str(problem))])
    argv = [str(ready.python), "-m", "tests.gpu.run", ready.notes]
    argv += [] if said.model is None else [str(said.model.expanduser().resolve())]
    return subprocess.run(argv, env=dict(ready.variables), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
