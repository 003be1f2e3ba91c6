"""The files of `cortex simulate`: `fleet.toml` and `workload.toml`, and what they stand for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cortex_core.loading import ConfigError, read_toml, validate
from cortex_core.settings import Catalogue
from cortex_core.wire import ModelId
from cortex_gateway.fleet import as_profile
from cortex_router import simulation

Some = Annotated[float, Field(gt=0)]
Moment = Annotated[float, Field(ge=0)]
Tokens = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MachineEntry(_Table):
    """`[[machines]]`: one machine, or several alike."""

    name: str = Field(min_length=1)
    count: int = Field(default=1, ge=1)
    devices_mb: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    disk_mb_s: Some = 1000.0
    prefill_tok_s: Some = 1000.0
    decode_tok_s: Some = 30.0
    seats: int = Field(default=4, ge=1)
    max_queue: int = Field(default=64, ge=0)
    cache_tokens: int = Field(default=131_072, ge=0)
    default_models: tuple[ModelId, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the machines are called."""
        if self.count == 1:
            return (self.name,)
        return tuple(f"{self.name}-{n}" for n in range(1, self.count + 1))


class DeathEntry(_Table):
    """`[[faults]]` of kind "death"."""

    kind: Literal["death"]
    node: str
    at: Moment
    back_at: Moment | None = None


class BadLoadEntry(_Table):
    """`[[faults]]` of kind "load_fails" or "load_hangs"."""

    kind: Literal["load_fails", "load_hangs"]
    node: str
    at: Moment
    until: Moment
    model: ModelId | None = None


class FleetFile(_Table):
    """`fleet.toml`."""

    start_secs: Moment = 2.0
    unload_secs: Moment = 0.5
    load_limit_secs: Some = 600.0
    hold_secs: Some = 60.0
    load_wait_secs: Some = 1800.0
    speed: dict[ModelId, Some] = Field(default_factory=dict)
    machines: tuple[MachineEntry, ...] = Field(min_length=1)
    faults: tuple[Annotated[DeathEntry | BadLoadEntry, Field(discriminator="kind")], ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> "FleetFile":
        names = [name for machine in self.machines for name in machine.names]
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise ValueError(f"two machines are called {twice[0]!r}")
        if lost := [fault.node for fault in self.faults if fault.node not in names]:
            raise ValueError(f"faults: there is no machine {lost[0]!r}")
        return self


class DayTable(_Table):
    """`[day]`."""

    swing: float = Field(default=0.0, ge=0, le=1)
    period_secs: Some = 86_400.0


class BurstsTable(_Table):
    """`[bursts]`."""

    every_secs: Some
    requests: int = Field(ge=1)
    length_secs: Some


class SessionsTable(_Table):
    """`[sessions]`."""

    part: float = Field(ge=0, le=1)
    turns: int = Field(default=6, ge=1)
    think_secs: Some = 10.0
    shared_tokens: int = Field(default=10_000, ge=0)
    first_tokens: Tokens = 500
    grows_tokens: Tokens = 300


class WorkloadFile(_Table):
    """`workload.toml`."""

    requests: int = Field(ge=1)
    per_sec: Some
    zipf: float = Field(default=1.0, ge=0)
    prompt_tokens: Tokens = 800
    completion_tokens: Tokens = 200
    day: DayTable = DayTable()
    bursts: BurstsTable | None = None
    sessions: SessionsTable | None = None


def load_fleet(path: Path, catalogue: Catalogue) -> simulation.Fleet:
    """Return the fleet of `path` with the models whose size is known. Raises ConfigError."""
    file = validate(FleetFile, read_toml(path), where=str(path))
    ids = {entry.id for entry in catalogue.models}
    if strange := sorted(set(file.speed) - ids):
        raise ConfigError(f"{path}: speed.{strange[0]}: the catalogue has no such model")
    known = {entry.id for entry in catalogue.models if entry.vram_mb is not None}
    for entry in file.machines:
        if missing := sorted(set(entry.default_models) - known):
            raise ConfigError(f"{path}: {entry.name}: no model {missing[0]!r} of known size")
    return simulation.Fleet(
        machines=tuple(_machine(entry, name) for entry in file.machines for name in entry.names),
        models=tuple(
            simulation.Model(
                profile=as_profile(entry, None),
                start_secs=file.start_secs,
                speed=file.speed.get(entry.id, 1.0),
            )
            for entry in catalogue.models
            if entry.vram_mb is not None
        ),
        aliases=catalogue.aliases,
        faults=tuple(_fault(entry) for entry in file.faults),
        unload_secs=file.unload_secs,
        load_limit_secs=file.load_limit_secs,
        hold_secs=file.hold_secs,
        load_wait_secs=file.load_wait_secs,
    )


def load_workload(path: Path, requests: int | None) -> simulation.Workload:
    """Return the workload of `path`, cut to so many requests. Raises ConfigError."""
    values: Mapping[str, object] = read_toml(path)
    if requests is not None:
        values = {**values, "requests": requests}
    file = validate(WorkloadFile, values, where=str(path))
    return simulation.Workload(
        requests=file.requests,
        per_sec=file.per_sec,
        zipf=file.zipf,
        prompt_tokens=file.prompt_tokens,
        completion_tokens=file.completion_tokens,
        day=simulation.Day(**file.day.model_dump()),
        bursts=None if file.bursts is None else simulation.Bursts(**file.bursts.model_dump()),
        sessions=None
        if file.sessions is None
        else simulation.Sessions(**file.sessions.model_dump()),
    )


def _machine(entry: MachineEntry, name: str) -> simulation.Machine:
    return simulation.Machine(name=name, **entry.model_dump(exclude={"name", "count"}))


def _fault(entry: DeathEntry | BadLoadEntry) -> simulation.Fault:
    if isinstance(entry, DeathEntry):
        return simulation.Death(node=entry.node, at=entry.at, back_at=entry.back_at)
    return simulation.BadLoad(
        node=entry.node,
        at=entry.at,
        until=entry.until,
        model=entry.model,
        hangs=entry.kind == "load_hangs",
    )
