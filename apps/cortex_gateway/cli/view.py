"""What cortex says about the fleet, read leniently: absent is unknown, the rest is skipped."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cortex_core.wire import Limit, ModelInfo
from cortex_gateway.cli.asking import Unreachable

_Read = TypeVar("_Read", bound=BaseModel)


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FleetDevice(_Told):
    """One device of a node, with its numbers of now."""

    index: int
    kind: str | None = None
    name: str | None = None
    vram_total_mb: int | None = None
    vram_used_mb: int | None = None
    vram_free_mb: int | None = None
    vram_reserved_mb: int | None = None
    utilization_pct: float | None = None
    temp_c: float | None = None


class FleetNode(_Told):
    """One node as cortex last saw it."""

    name: str
    endpoint: str | None = None
    healthy: bool = False
    last_seen: float | None = None
    error: str | None = None
    version: str | None = None
    hostname: str | None = None
    draining: bool = False
    harnesses: tuple[str, ...] = ()
    devices: tuple[FleetDevice, ...] = ()
    models: tuple[ModelInfo, ...] = ()


class Location(_Told):
    """A replica of a model."""

    node: str
    status: str | None = None
    vram_mb: int | None = None


class ListedModel(_Told):
    """An entry of `/v1/models`."""

    id: str
    loaded: bool = False
    feasible_on: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    capabilities: tuple[str, ...] = ()
    limit: Limit | None = None
    max_model_len: int | None = None
    aliases: tuple[str, ...] = ()


class Requests(_Told):
    """What cortex works on now."""

    in_flight: int = 0
    waiting: int = 0


class Fleet(_Told):
    """`GET /fleet`."""

    status: str
    now: float
    nodes: tuple[FleetNode, ...]
    version: str | None = None
    models: tuple[ListedModel, ...] = ()
    requests: Requests = Requests()

    def canonical(self, model: str) -> str:
        """Return the id that `model` stands for: itself, or what it is an alias of."""
        return next((entry.id for entry in self.models if model in entry.aliases), model)


class RunningRequest(_Told):
    """One request in flight."""

    id: str
    phase: str = ""
    age_secs: float = 0.0
    dialect: str = ""
    model: str | None = None
    node: str | None = None
    principal: str = ""
    key: str | None = None
    stream: bool = False
    tokens: int = 0
    attempts: int = 0


class EndedRequest(_Told):
    """One request that has ended."""

    id: str
    outcome: str
    status: int = 0
    duration_secs: float = 0.0
    model: str | None = None
    node: str | None = None
    principal: str = ""
    key: str | None = None
    tokens: int = 0
    code: str | None = None
    finish_reason: str | None = None


class Totals(_Told):
    """What all requests came to."""

    requests: int = 0
    completion_tokens: int = 0


class RequestList(_Told):
    """`GET /fleet/requests`."""

    in_flight: tuple[RunningRequest, ...]
    ended: tuple[EndedRequest, ...] = ()
    totals: Totals = Totals()


class Events(_Told):
    """`GET /fleet/logs`."""

    events: tuple[dict[str, Any], ...]
    next: int
    missed: int = 0


class ModelList(_Told):
    """`GET /v1/models`."""

    data: tuple[ListedModel, ...]


def read(model: type[_Read], said: object, endpoint: str) -> _Read:
    """Return `said` as `model`. Raises Unreachable when it is something else altogether."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise Unreachable(
            f"what answers at {endpoint} is not a cortex this command understands: "
            f"{where or 'the answer'}: {problem['msg']}"
        ) from error
