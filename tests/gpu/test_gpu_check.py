"""What `make gpu-check` makes of what it finds: verdicts, report, status, and no GPU at all."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex_neuron.exllama.memory import CONTEXT_MIB
from cortex_neuron.nvml import find_gpus
from tests.fake_nvml.gpus import H100, RTX_3090, Gpus, compiled, in_this_process
from tests.fleet.processes import eventually
from tests.gpu.environment import ROOT, NotReady, import_path, prepare, wheels
from tests.gpu.machine import Peak, absence, described, used_mb
from tests.gpu.remembering import Weight, judged, judged_context
from tests.gpu.report import markdown, summary
from tests.gpu.run import CHECKS, conclude
from tests.gpu.throughput import judged as judged_rates
from tests.gpu.verdicts import Check, Failed, NotApplicable, Outcome, Verdict, all_passed, judge


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake library of the driver."""
    return compiled(tmp_path_factory.mktemp("nvml"))


def raising(error: Exception) -> Callable[[None], str]:
    """Return a check that does nothing else."""

    def ask(_: None) -> str:
        raise error

    return ask


def of(outcome: Outcome, facts: str = "") -> Verdict:
    """Return a verdict."""
    return Verdict(name="one", outcome=outcome, facts=facts)


def weight(**more: float) -> Weight:
    """Return a load that took what was reckoned."""
    said = {"reckoned": 1000.0, "allocated": 1000.0, "promised": 2000, "taken": 1800, "tensors": 0}
    return Weight(mode="Q4", **{**said, **more})  # type: ignore[arg-type]


def test_each_check_has_its_verdict_whatever_the_others_do() -> None:
    """A check that breaks in any way has failed with its reason, and the next one is asked."""
    checks = [
        Check[None]("well", lambda _: "42"),
        Check("off", raising(NotApplicable("one device only"))),
        Check("ill", raising(Failed("43"))),
        Check("odd", raising(KeyError("44"))),
        Check[None]("last", lambda _: ""),
    ]
    ticks = iter(range(10))
    found = list(judge(None, checks, lambda: next(ticks)))

    assert [(one.name, one.outcome.value, one.facts) for one in found] == [
        ("well", "pass", "42"),
        ("off", "not applicable", "one device only"),
        ("ill", "fail", "43"),
        ("odd", "fail", "KeyError: '44'"),
        ("last", "pass", ""),
    ]
    assert {one.secs for one in found} == {1}


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [
        ([Outcome.PASSED, Outcome.NOT_APPLICABLE], True),
        ([Outcome.PASSED, Outcome.FAILED], False),
        ([Outcome.NOT_APPLICABLE], False),
        ([], False),
    ],
)
def test_the_whole_passes_only_by_checks_that_passed(
    outcomes: list[Outcome], *, passed: bool
) -> None:
    """Nothing asked is nothing passed."""
    verdicts = [of(one) for one in outcomes]

    assert all_passed(verdicts) is passed
    assert summary(verdicts).startswith("Passed:" if passed else "Not passed:")


def test_a_report_has_machine_and_every_verdict_in_whole_tables() -> None:
    """What an error says, lines and bars in it too, breaks no table."""
    said = markdown({"driver": "580"}, [of(Outcome.FAILED, "a | b\nc <d>")]).splitlines()

    assert "| driver | 580 |" in said
    assert "| one | fail | a \\| b c &lt;d> | 0 |" in said


def test_a_conclusion_is_written_and_told_by_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 only when all that applies passed; the report is there either way."""
    folder = tmp_path / "build"

    assert conclude(folder, {}, [of(Outcome.FAILED)]) == 1
    assert "Not passed: 0 pass, 1 fail" in (folder / "report.md").read_text()
    assert conclude(folder, {}, [of(Outcome.PASSED)]) == 0
    assert str(folder / "report.md") in capsys.readouterr().out


def test_without_a_gpu_it_ends_in_one_sentence_and_a_one(tmp_path: Path, library: Path) -> None:
    """And in no environment, no report and no word of passing."""
    gpus = Gpus(tmp_path / "state", library)
    gpus.set(init_error=9)
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu"],
        cwd=ROOT,
        env={**import_path(tmp_path), **gpus.environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no NVIDIA GPU that can be used" in done.stderr


def test_the_machine_is_told_device_by_device(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NVML has it, and the peak of its memory is seen while it moves."""
    gpus = Gpus(tmp_path / "state", library)
    gpus.plug(0, RTX_3090)
    gpus.plug(1, H100)
    with in_this_process(gpus, monkeypatch):
        found = find_gpus()
        assert absence(found) is None
        assert found.nvml is not None
        told = described(found.nvml)
        before = used_mb(found.nvml, [0])
        with Peak(found.nvml, [0]) as peak:
            gpus.set(**{"gpu0.used": 9000})
            eventually(lambda: peak.mb >= 9000)
            gpus.set(**{"gpu0.used": 1024})
        after = used_mb(found.nvml, [0, 1])

    assert told["device 0"].startswith("NVIDIA GeForce RTX 3090, 24576 MiB")
    assert told["device 1"].endswith("compute capability 9.0")
    assert (before, peak.mb, after) == (1024, 9000, 1027)


def test_an_estimate_may_be_off_by_three_percent_and_no_promise_too_small() -> None:
    """How far off is said either way."""
    assert "+2.9 %" in judged([weight(reckoned=1029.0)])
    for wrong in (weight(reckoned=1031.0), weight(reckoned=969.0), weight(allocated=0.0)):
        with pytest.raises(Failed, match="off by more than 3%"):
            judged([weight(), wrong])
    with pytest.raises(Failed, match="more was taken than promised"):
        judged([weight(taken=2001)])


def test_the_judged_context_is_neither_too_small_nor_far_too_large() -> None:
    """The number that was measured is told, so that it can be put in."""
    assert judged_context(CONTEXT_MIB - 100).startswith(f"{CONTEXT_MIB - 100} MiB measured")
    for measured, told in ((CONTEXT_MIB + 1, "too small"), (0, "too large")):
        with pytest.raises(Failed, match=told):
            judged_context(measured)


def test_the_goal_of_the_throughput_is_on_the_median_of_rounds() -> None:
    """One slow round is none of ours; half of them are."""
    assert judged_rates([(98.0, 100.0), (50.0, 100.0), (97.0, 100.0)]).startswith("97.0%")
    with pytest.raises(Failed, match=r"below 97%: 96\.0%"):
        judged_rates([(96.0, 100.0), (100.0, 100.0), (90.0, 100.0)])


def test_wheels_are_those_of_the_python() -> None:
    """One that has none is told what to do."""
    for wheel in wheels((3, 12)):
        assert wheel.endswith("-cp312-cp312-linux_x86_64.whl")
    with pytest.raises(NotReady, match="GPU_PYTHON"):
        wheels((3, 14))


def test_an_environment_that_cannot_do_it_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of it is imported, and before anything is built without a compiler."""
    python = tmp_path / "python"
    python.write_text("no program")
    with pytest.raises(NotReady, match="no Python that can be run"):
        prepare(python)

    for said, told in (
        ('{"absent": ["torch", "exllamav2"], "extension": false}', "lacks torch, exllamav2"),
        ('{"absent": [], "extension": false}', "no nvcc to build it"),
    ):
        python.write_text(f"#!/bin/sh\necho '{said}'\n")
        python.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_HOME", raising=False)
        with pytest.raises(NotReady, match=told):
            prepare(python)


def test_an_environment_that_has_all_is_used_as_it_is(tmp_path: Path) -> None:
    """With this checkout's code first on its path."""
    python = tmp_path / "python"
    python.write_text("""#!/bin/sh\necho '{"absent": [], "extension": true}'\n""")
    python.chmod(0o755)
    ready = prepare(python)

    assert ready.python == python
    assert ready.variables["PYTHONPATH"].startswith(f"{ROOT}:{ROOT / 'libs'}:{ROOT / 'apps'}")


def test_checks_have_names_of_their_own() -> None:
    """Each is a row of the report."""
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 11
