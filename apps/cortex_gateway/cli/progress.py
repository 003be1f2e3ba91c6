"""How far something is, while it happens: a bar in a terminal, else a line now and then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cortex_gateway.cli.showing import console, megabytes, plain


class Show(Protocol):
    """Report how far something is; `done` and `total` bytes are None where they are not known."""

    def __call__(self, name: str, phase: str, done: int | None, total: int | None, /) -> None:
        """Take in the latest."""


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Show]:
    """Show progress on stderr while the body runs, and leave no trace of a bar behind."""
    screen = console(stderr=True)
    if quiet:
        yield _say_nothing
    elif screen.is_terminal:
        with _bars(screen) as bars:
            yield _Bar(bars)
    else:
        yield _Lines(screen)


def _say_nothing(_name: str, _phase: str, _done: int | None, _total: int | None) -> None:
    """Show nothing: the answer alone is wanted."""


def _bars(screen: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
    )


class _Bar:
    """One bar for all phases; it pulses where the amount is not known."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, amount="")

    def __call__(self, name: str, phase: str, done: int | None, total: int | None, /) -> None:
        # Columns show text as it is, so only control characters have to go.
        self._bars.update(
            self._task,
            description=plain(f"{name}: {phase}").plain,
            completed=done or 0,
            total=total,
            amount=megabytes(done, total),
        )


class _Lines:
    """Progress for a log: a line when the phase changes and at each tenth of the bytes."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._said: set[tuple[str, str, int]] = set()

    def __call__(self, name: str, phase: str, done: int | None, total: int | None, /) -> None:
        tenth = 10 * (done or 0) // total if total else 0
        if (name, phase, tenth) in self._said:
            return
        self._said.add((name, phase, tenth))
        amount = megabytes(done, total)
        self._screen.print(plain(f"{name}: {phase}{': ' + amount if amount else ''}"))
