"""Start the two daemons in order, show how far they are, watch them, end them in order."""

import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from cortex_core.commands import Exit, Failure
from cortex_core.wire import Health, ModelInfo
from cortex_gateway.cli.asking import Refused, Service, Unreachable
from cortex_gateway.cli.progress import Show, progress
from cortex_gateway.up.children import Child
from cortex_gateway.up.plan import (
    DRAIN_SECS,
    Commands,
    Plan,
    UpOptions,
    child_environment,
    cortex_toml,
    make_plan,
    neuron_toml,
    try_it,
)

POLL_SECS: Final = 0.1
START_SECS: Final = 60.0
SEEN_SECS: Final = 15.0
LEAVE_SECS: Final = DRAIN_SECS + 5.0

_T = TypeVar("_T")
_ROWS: Final = TypeAdapter(tuple[ModelInfo, ...])


class Interrupted(BaseException):
    """Someone asked us to end. Not an Exception: no handler of failures may take it for one."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP, counted while the block runs."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take over."""
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[one] = signal.signal(one, self._count_one)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _count_one(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of `up`: the plan, and the children that are alive."""

    plan: Plan
    signals: Signals
    environment: Mapping[str, str]
    logs: Path
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, command: tuple[str, ...], config: Path, text: str) -> None:
        """Write the configuration of a daemon and start it."""
        config.write_text(text, encoding="utf-8")
        whole = (*command, "serve", "-c", str(config), "--exit-with-stdin")
        self.children.append(Child.start(name, whole, self.environment, self.logs / f"{name}.log"))

    def pause(self) -> None:
        """Wait a moment. Raises Interrupted when asked to end, Failure when a child is gone."""
        time.sleep(POLL_SECS)
        if self.signals.count:
            raise Interrupted
        for child in self.children:
            if (ending := child.ending()) is not None:
                raise Failure(
                    f"{child.name} ended unexpectedly ({ending}). The end of {child.log_path}:\n"
                    f"{child.tail()}"
                )

    def until(self, ask: Callable[[], _T | None], *, within_secs: float, what: str) -> _T:
        """Return the first answer of `ask`. Raises Failure after `within_secs`."""
        deadline = time.monotonic() + within_secs
        while (answer := _try(ask)) is None:
            if time.monotonic() > deadline:
                raise Failure(f"{what} within {within_secs:.0f} s; its log is in {self.logs}")
            self.pause()
        return answer

    def end(self) -> None:
        """End the children, last started first, so that answers under way can still be given."""
        patience = self.signals.count + 1
        for child in reversed(self.children):
            child.terminate()
            deadline = time.monotonic() + LEAVE_SECS
            # Asked a second time, we stop being polite.
            while child.ending() is None and time.monotonic() < deadline:
                if self.signals.count >= patience:
                    break
                time.sleep(0.05)
            child.release()


def run_up(
    options: UpOptions, environment: Mapping[str, str], commands: Commands | None = None
) -> Exit:
    """Run a neuron and a cortex until asked to end. Raises Failure, with nothing left running."""
    plan, commands = make_plan(options), commands or Commands()
    with tempfile.TemporaryDirectory(prefix="cortex-up-") as folder, Signals() as signals:
        run = _Run(
            plan=plan,
            signals=signals,
            environment=child_environment(environment),
            logs=_log_folder(environment),
        )
        try:
            _bring_up(run, commands, Path(folder))
            while True:
                run.pause()
        except Interrupted:
            _say("\nending: cortex first, then the neuron; once more to end at once")
            return Exit.OK
        finally:
            run.end()


def _bring_up(run: _Run, commands: Commands, folder: Path) -> None:
    """Start both daemons, wait for the first model, and say how to use it."""
    plan, began = run.plan, time.monotonic()
    neuron, cortex = Service(plan.neuron, "the neuron"), Service(plan.api)
    _say(f"starting a neuron on {plan.neuron} and cortex on {plan.api}; logs: {run.logs}")
    with progress() as show:
        show("neuron", "starting", None, None)
        run.start("neuron", commands.neuron, folder / "neuron.toml", neuron_toml(plan))
        run.until(
            lambda: _answers(neuron), within_secs=START_SECS, what="the neuron did not answer"
        )
        show("cortex", "starting", None, None)
        run.start("cortex", commands.cortex, folder / "cortex.toml", cortex_toml(plan))
        run.until(lambda: _answers(cortex), within_secs=START_SECS, what="cortex did not answer")
        if plan.first is not None:
            model = plan.first.id
            while not _try(lambda: _is_up(neuron, model, show)):
                run.pause()
            run.until(
                lambda: _is_listed(cortex, model),
                within_secs=SEEN_SECS,
                what=f"cortex did not see {model}",
            )
    _say(_ready(plan, time.monotonic() - began))


def _try(ask: Callable[[], _T]) -> _T | None:
    """Return the answer, or None while the daemon cannot give one."""
    try:
        return ask()
    except (Unreachable, Refused):
        return None


def _answers(service: Service) -> bool | None:
    return service.get("/health", within_secs=2.0) is not None or None


def _is_up(neuron: Service, model: str, show: Show) -> bool:
    """Return whether the neuron has loaded `model`. Raises Failure with its reason if it cannot."""
    try:
        rows = _ROWS.validate_python(neuron.get("/models", within_secs=5.0))
        health = Health.model_validate(neuron.get("/health", within_secs=5.0))
    except ValidationError as error:
        raise Failure(f"the neuron says what this version does not understand: {error}") from error
    for failed in health.activation.failed if health.activation else ():
        if failed.model_id == model:
            raise Failure(f"{model} cannot be loaded: {failed.error or 'see the log'}")
    row = next((one for one in rows if one.id == model), None)
    if row is None:
        return False
    if row.status == "failed":
        raise Failure(f"{model} cannot be loaded: {row.error or 'see the log of the neuron'}")
    if row.status != "loaded":
        how = row.progress
        done, total = (how.done_bytes, how.total_bytes) if how else (None, None)
        show(model, how.phase if how else row.status, done, total)
    return row.status == "loaded"


def _is_listed(cortex: Service, model: str) -> bool | None:
    said = cortex.get("/v1/models", within_secs=5.0)
    entries = said.get("data", ()) if isinstance(said, dict) else ()
    return any(one.get("id") == model and one.get("loaded") for one in entries) or None


def _ready(plan: Plan, secs: float) -> str:
    first = plan.first.id if plan.first else None
    models = (f"{one.id}{' (loaded)' if one.id == first else ''}" for one in plan.catalogue.models)
    return f"""\
ready after {secs:.1f} s

  OpenAI      {plan.api}/v1
  metrics     {plan.metrics}
  neuron      {plan.neuron}
  models      {", ".join(models)}

  {try_it(plan)}

Ctrl-C ends both."""


def _log_folder(environment: Mapping[str, str]) -> Path:
    state = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "cortex" / "up"


def _say(text: str) -> None:
    typer.echo(text)
