"""`cortex up` with small real daemons: start, watch, end, in order and without leftovers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cortex_core.commands import bind_error

DRIVER = Path(__file__).with_name("driver.py")
WITHIN_SECS = 30.0


class Up:
    """A running `up`: what it printed, and what happened to its daemons."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def out(self) -> str:
        """Return what it printed so far."""
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        """Return progress and complaints so far."""
        return (self._folder / "err").read_text()

    @property
    def journal(self) -> list[str]:
        """Return what the daemons noted."""
        journal = self._folder / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def until_ready(self) -> str:
        """Wait until it says so, and return what it printed."""
        self.until(lambda: "Ctrl-C ends both" in self.out)
        return self.out

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until it has happened."""
        deadline = time.monotonic() + WITHIN_SECS
        while not happened():
            assert time.monotonic() < deadline, self.out + self.err
            assert self.process.poll() is None, self.out + self.err
            time.sleep(0.02)


@contextmanager
def up(folder: Path, neuron: str = "works", cortex: str = "works", *flags: str) -> Iterator[Up]:
    """Start `up` with daemons in these modes."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder)}
    command = [sys.executable, str(DRIVER), str(folder / "journal"), neuron, cortex, *flags]
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        subprocess.Popen(
            command, stdout=out, stderr=err, env=environment, text=True, start_new_session=True
        ) as process,
    ):
        try:
            yield Up(process, folder)
        finally:
            if process.poll() is None:
                process.kill()


def test_it_comes_up_and_goes_down_in_order(tmp_path: Path) -> None:
    """The neuron first, cortex drains first; exit 0, and no file of the run stays but the logs."""
    with up(tmp_path) as it:
        out = it.until_ready()
        it.process.send_signal(signal.SIGINT)
        code = it.process.wait(WITHIN_SECS)

    assert code == 0
    assert "curl http://127.0.0.1:" in out
    assert '"model": "smollm2-135m-instruct"' in out
    assert "smollm2-135m-instruct (loaded), smollm2-135m-embedding" in out
    assert "smollm2-135m-instruct: fetching: 0.2 of 1.0 MB" in it.err
    assert it.journal == [
        "neuron started",
        "cortex started",
        "cortex asked to end",
        "cortex ended",
        "neuron asked to end",
        "neuron ended",
    ]
    assert list(tmp_path.glob("cortex-up-*")) == []
    assert (tmp_path / "state/cortex/up/neuron.log").read_text().startswith("neuron says hello")


def test_a_ctrl_c_of_the_terminal_reaches_only_up(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group; the daemons are not in it."""
    with up(tmp_path) as it:
        it.until_ready()
        os.killpg(it.process.pid, signal.SIGINT)
        code = it.process.wait(WITHIN_SECS)

    assert code == 0
    assert "neuron interrupted by the terminal" not in it.journal
    assert it.journal[-1] == "neuron ended"


def test_it_can_be_ended_while_it_starts(tmp_path: Path) -> None:
    """A long download is no reason to stay."""
    with up(tmp_path, "slow") as it:
        it.until(lambda: "fetching" in it.err)
        it.process.send_signal(signal.SIGTERM)
        code = it.process.wait(WITHIN_SECS)

    assert code == 0
    assert it.journal[-1] == "neuron ended"


def test_without_preload_nothing_is_loaded(tmp_path: Path) -> None:
    """It is ready as soon as both daemons answer."""
    with up(tmp_path, "slow", "works", "--no-preload") as it:
        out = it.until_ready()
        it.process.terminate()
        it.process.wait(WITHIN_SECS)

    assert "(loaded)" not in out


@pytest.mark.parametrize(
    ("neuron", "cortex", "who", "tail"),
    [
        ("breaks", "works", "neuron ended unexpectedly (exit status 5)", "neuron says hello"),
        ("works", "breaks", "cortex ended unexpectedly (exit status 5)", "cortex says hello"),
        ("works", "dies", "cortex ended unexpectedly (exit status 9)", "out of luck"),
    ],
)
def test_a_daemon_that_ends_takes_the_other_along(
    tmp_path: Path, neuron: str, cortex: str, who: str, tail: str
) -> None:
    """It says which one, shows the end of its log, and leaves nothing running."""
    with up(tmp_path, neuron, cortex) as it:
        code = it.process.wait(WITHIN_SECS)

    assert code == 1
    assert who in it.err
    assert f"  {tail}" in it.err
    assert it.journal.count("neuron started") == it.journal.count("neuron ended")


def test_a_model_that_cannot_be_fetched_ends_it_with_the_reason(tmp_path: Path) -> None:
    """The neuron's own sentence, and exit 1."""
    with up(tmp_path, "fails") as it:
        code = it.process.wait(WITHIN_SECS)

    assert code == 1
    assert "smollm2-135m-instruct cannot be loaded: the disk is full" in it.err
    assert it.journal[-1] == "neuron ended"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """A daemon that does not leave is not waited for by someone in a hurry."""
    with up(tmp_path, "works", "stubborn") as it:
        it.until_ready()
        it.process.terminate()
        it.until(lambda: "cortex asked to end" in it.journal)
        asked = time.monotonic()
        it.process.terminate()
        code = it.process.wait(WITHIN_SECS)

    assert code == 0
    assert time.monotonic() - asked < 5


def test_daemons_leave_when_up_is_killed(tmp_path: Path) -> None:
    """SIGKILL cannot be answered, so the daemons notice by themselves."""
    with up(tmp_path) as it:
        out = it.until_ready()
        it.process.kill()
        it.process.wait()
        port = int(out.partition("cortex on http://127.0.0.1:")[2].partition(";")[0])
        deadline = time.monotonic() + WITHIN_SECS
        while bind_error("127.0.0.1", port) or "neuron ended" not in it.journal:
            assert time.monotonic() < deadline, it.journal
            time.sleep(0.02)

    assert "cortex ended" in it.journal
