"""What is simulated: machines, models, and what goes wrong, all of it values.

Sizes are MiB, times seconds since the start, speeds tokens or MiB per second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cortex_router.nodes import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node. `seats` is how many requests a model answers at once, each at these speeds.

    A model takes `max_queue` more before it turns requests away, and remembers the conversations of
    its last `cache_tokens`. The node begins to load `default_models` at the start.
    """

    name: str
    devices_mb: tuple[int, ...]
    disk_mb_s: float = 1000.0
    prefill_tok_s: float = 1000.0
    decode_tok_s: float = 30.0
    seats: int = 4
    max_queue: int = 64
    cache_tokens: int = 131_072
    default_models: tuple[str, ...] = ()
    harnesses: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its profile, what a load takes besides reading it, and how fast it is.

    `speed` multiplies what the machines do; a large model has a small one.
    """

    profile: Profile
    start_secs: float = 2.0
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A node dies; it comes back empty, or never."""

    node: str
    at: float
    back_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLoad:
    """Loads that begin on a node in this time fail when they should be up, or hang.

    A load that hangs ends at the fleet's `load_limit_secs`. `model` None: every model.
    """

    node: str
    at: float
    until: float
    model: str | None = None
    hangs: bool = False

    def spoils(self, model: str, at: float) -> bool:
        """Tell whether a load that begins now is one of these."""
        return self.at <= at < self.until and self.model in (None, model)


Fault: TypeAlias = Death | BadLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything that serves. The limits are those of the daemons."""

    machines: tuple[Machine, ...]
    models: tuple[Model, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    unload_secs: float = 0.5
    load_limit_secs: float = 600.0
    hold_secs: float = 60.0
    load_wait_secs: float = 1800.0
