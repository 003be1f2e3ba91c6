"""The life of a model on a node: one table, and `step`, the only way through it."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Status(StrEnum):
    """Where a model is in its life. UNKNOWN is whatever we do not understand: never routable."""

    UNLOADED = "unloaded"
    QUEUED = "queued"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    RECOVERING = "recovering"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, text: str) -> "Status":
        """Return the status named `text`, UNKNOWN when there is none."""
        return cls._value2member_map_.get(text, cls.UNKNOWN)  # type: ignore[return-value]


class Life(StrEnum):
    """What can happen to a model."""

    ASKED = "asked"
    PLACED = "placed"
    CROWDED = "crowded"
    UP = "up"
    CRASHED = "crashed"
    LEAVE = "leave"
    GONE = "gone"
    FAILED = "failed"


#: The replica is on its way or will be back: hold the request, never start a second copy.
ARRIVING: Final = frozenset({Status.QUEUED, Status.LOADING, Status.RECOVERING, Status.UNLOADING})
#: The replica holds device memory, or is promised some.
RESIDENT: Final = frozenset({Status.LOADING, Status.LOADED, Status.UNLOADING, Status.RECOVERING})

TRANSITIONS: Final[Mapping[Status, Mapping[Life, Status]]] = MappingProxyType(
    {
        Status.UNLOADED: {Life.ASKED: Status.QUEUED},
        Status.QUEUED: {
            Life.PLACED: Status.LOADING,
            Life.FAILED: Status.FAILED,
            Life.LEAVE: Status.UNLOADING,
        },
        Status.LOADING: {
            Life.CROWDED: Status.QUEUED,
            Life.UP: Status.LOADED,
            Life.FAILED: Status.FAILED,
            Life.LEAVE: Status.UNLOADING,
        },
        Status.LOADED: {
            Life.CRASHED: Status.RECOVERING,
            Life.FAILED: Status.FAILED,
            Life.LEAVE: Status.UNLOADING,
        },
        Status.RECOVERING: {
            Life.UP: Status.LOADED,
            Life.FAILED: Status.FAILED,
            Life.LEAVE: Status.UNLOADING,
        },
        Status.UNLOADING: {Life.GONE: Status.UNLOADED},
        Status.FAILED: {
            Life.ASKED: Status.QUEUED,
            Life.LEAVE: Status.UNLOADING,
            Life.GONE: Status.UNLOADED,
        },
        Status.UNKNOWN: {},
    }
)


class IllegalTransition(Exception):
    """Nothing of this kind can happen to a model in that status: a bug of the caller."""


def step(status: Status, event: Life) -> Status:
    """Return the status after `event`. Raises IllegalTransition."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalTransition(f"{event.value} while {status.value}") from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the README."""
    edges = [
        f"    {status.value} --> {after.value}: {event.value}"
        for status, events in TRANSITIONS.items()
        for event, after in events.items()
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> unloaded", *edges])
