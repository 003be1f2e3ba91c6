"""The checks themselves, in an environment that has all they need."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from cortex_core.errors import PreflightFailed
from cortex_core.settings import ExllamaSettings
from cortex_neuron.exllama.harness import ExLlamaV2Harness
from cortex_neuron.nvml import find_gpus
from tests.gpu import answering, remembering
from tests.gpu.environment import BUILD
from tests.gpu.machine import absence, described, versions
from tests.gpu.report import markdown, summary
from tests.gpu.stage import Stage, stage
from tests.gpu.throughput import throughput
from tests.gpu.verdicts import Check, Outcome, Verdict, all_passed, judge

#: Small, quantised, with a chat template, and of a shape that can be split over two devices.
SOURCE = "hf:turboderp/Llama-3.2-1B-Instruct-exl2@4.0bpw"
CHECKS: Sequence[Check[Stage]] = (
    Check("kernels of quantised weights", answering.kernels),
    Check("every cache mode", answering.cache_modes),
    Check("eight streams at once", answering.parallel_streams),
    Check("tensor parallel", answering.tensor_parallel),
    Check("out of memory at load", remembering.oom_at_load),
    Check("out of memory while generating", remembering.oom_midway),
    Check("kill -9 of the engine", answering.killed),
    Check("unload returns memory", remembering.unload),
    Check("estimate against what is used", remembering.estimates),
    Check("CONTEXT_MIB", remembering.context_of_cuda),
    Check("throughput through the fleet", throughput),
)


def run(model: Path | None, notes: str, folder: Path) -> int:
    """Check everything, write the report into `folder`, and return the exit status."""
    found = find_gpus()
    if found.nvml is None:
        sys.stderr.write(f"gpu-check: {absence(found)}\n")
        return 1
    facts = {**described(found.nvml), "environment": notes, **versions()}
    verdicts = list[Verdict]()
    try:
        path = _fetched(SOURCE) if model is None else model
        facts["model"] = f"{path} ({SOURCE})" if model is None else str(path)
        _require_harness()
        with stage(path, found.nvml, folder) as made:
            for verdict in judge(made, CHECKS, time.monotonic):
                print(verdict.line(), flush=True)  # noqa: T201
                verdicts.append(verdict)
    except (AssertionError, RuntimeError, OSError, PreflightFailed, httpx.HTTPError) as error:
        verdicts.append(broken("starting", str(error)))
        print(verdicts[-1].line())  # noqa: T201
    return conclude(folder, facts, verdicts)


def broken(name: str, why: str) -> Verdict:
    """Return the verdict on what has to work before anything can be checked."""
    return Verdict(name=name, outcome=Outcome.FAILED, facts=why)


def conclude(folder: Path, facts: Mapping[str, str], verdicts: Sequence[Verdict]) -> int:
    """Write the report, say where it is, and return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    path.write_text(markdown(facts, verdicts), encoding="utf-8")
    print(f"{summary(verdicts)} The report: {path}")  # noqa: T201
    return 0 if all_passed(verdicts) else 1


def _fetched(source: str) -> Path:
    """Return where the model is, fetched unless it is here already."""
    argv = [sys.executable, "-m", "cortex_neuron", "pull", source]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{source} could not be fetched: name a folder that has an EXL2 model, GPU_MODEL=…"
        )
    return Path(done.stdout.strip())


def _require_harness() -> None:
    if (reason := ExLlamaV2Harness(ExllamaSettings()).unavailable()) is not None:
        raise RuntimeError(f"exllamav2 cannot be used: {reason}")


if __name__ == "__main__":
    told = sys.argv[1:]
    sys.exit(run(Path(told[1]) if len(told) > 1 else None, told[0], BUILD))
