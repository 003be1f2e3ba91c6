"""What must always hold on the node in miniature, reckoned by hand where that is possible."""

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from cortex_router import Demand, Profile, Status, wait_bound_secs

if TYPE_CHECKING:
    from tests.libs.cortex_router.stateful_node import MiniatureNode

HERE = "n"
#: What a demand without a time to look again waits for: something that is happening already.
_UNDERWAY = frozenset({"draining", "unloading", "leaving", "loading", "recovering"})


class Violation(AssertionError):
    """Something that must always hold does not."""


def must(holds: bool, otherwise: str) -> None:
    """Raise Violation, saying what is the case otherwise, unless it holds."""
    if not holds:
        raise Violation(otherwise)


@dataclass(slots=True)
class Watch:
    """A demand that is owed its turn: since when, and which models came before it."""

    since: float
    older: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Checks:
    """The checks after every event, and how near the bound a wait for a load ever came."""

    longest_wait_secs: float = 0.0
    its_bound_secs: float = 0.0
    nearest: float = 0.0
    _watches: dict[str, Watch] = field(default_factory=dict)
    _disturbances: int = 0

    def check(self, node: "MiniatureNode") -> None:
        """Raise Violation unless everything is as it has to be."""
        check_memory(node)
        if node.alive:
            check_seats(node)
            check_nobody_is_stuck(node)
            self._check_bound(node)

    def _check_bound(self, node: "MiniatureNode") -> None:
        """Nobody waits for a load beyond the bound; a disturbance starts the count anew."""
        if node.disturbances != self._disturbances:
            self._disturbances = node.disturbances
            self._watches.clear()
        if not (demands := node.demands()):
            self._watches.clear()
            return
        names = [demand.profile.id for demand in in_line(node)]
        since_of = {demand.profile.id: demand.since for demand in demands}
        for model in [model for model in self._watches if model not in names]:
            del self._watches[model]
        for place_in_line, model in enumerate(names):
            if since_of[model] > node.now or not could_have_its_turn(node, node.profile(model)):
                self._watches.pop(model, None)
                continue
            watch = self._watches.setdefault(model, Watch(node.time))
            watch.older.update(names[:place_in_line])
            self._compare(model, node.time - watch.since, bound_secs(node, len(watch.older)))

    def _compare(self, model: str, waited: float, bound: float) -> None:
        must(waited <= bound, f"{model} waits for {waited:.1f} s, the bound is {bound:.1f} s")
        self.nearest = max(self.nearest, waited / bound)
        if waited > self.longest_wait_secs:
            self.longest_wait_secs, self.its_bound_secs = waited, bound


def check_memory(node: "MiniatureNode") -> None:
    """Neither what is taken nor what is promised is ever more than a device has."""
    for index, total in enumerate(node.totals_mb):
        here = [held for held in node.held.values() if index in held.devices]
        taken = sum(held.share_mb for held in here if held.begun)
        kept = sum(held.share_mb for held in here if held.status is not Status.UNLOADING)
        must(taken <= total, f"device {index}: {taken} of {total} MiB taken")
        must(kept <= total, f"device {index}: {kept} of {total} MiB promised")


def check_seats(node: "MiniatureNode") -> None:
    """Only a loaded model serves, and no seat is free while somebody waits for it."""
    for model, held in node.held.items():
        serving, in_flight = held.status is Status.LOADED, node.queue.in_flight(model)
        must(serving or not in_flight, f"{model} serves while {held}")
        must(serving or held.closed_for is None, f"{model} is closed while {held}")
        full = in_flight == node.habits.seats
        must(full or not node.queue.queued(model), f"{model}: a free seat, and a queue")


def check_nobody_is_stuck(node: "MiniatureNode") -> None:
    """The oldest demand that can have its turn is under way, or somebody looks again in time."""
    for demand in in_line(node):
        model = demand.profile.id
        held, hold = node.held.get(model), node.holds.get(model)
        if held is not None and held.status is not Status.LOADED:
            must(bool(node.agenda), f"nothing happens to {held}")
            return
        if hold is None:
            raise Violation(f"nothing was said of {model}")
        if held is None and not could_have_its_turn(node, demand.profile):
            continue
        if hold.until is None:
            must(hold.reason in _UNDERWAY and bool(node.agenda), f"stuck: {hold}")
        else:
            early = node.look_at is not None and node.look_at <= hold.until
            must(early, f"nobody looks again in time for {hold}")
        return


def in_line(node: "MiniatureNode") -> list[Demand]:
    """Return the oldest demand first; closed models' own behind those that they make way for."""
    demands = sorted(node.demands(), key=lambda one: (one.since, one.profile.id))
    for demand in list(demands):
        held = node.held.get(demand.profile.id)
        behind = [d for d in demands if held is not None and d.profile.id == held.closed_for]
        if behind and demands.index(demand) < demands.index(behind[0]):
            demands.remove(demand)
            demands.insert(demands.index(behind[0]) + 1, demand)
    return demands


def bound_secs(node: "MiniatureNode", older: int) -> float:
    """Return the library's bound, with the longest that everything takes on this node."""
    habits, rules = node.habits, node.swapping.rules
    longest_load = habits.load_secs[1]
    rounds = 1 + -(-habits.max_waiting // habits.seats)
    return wait_bound_secs(
        older=older,
        quantum_secs=max(rules.min_residency_secs, node.swapping.amortise * longest_load),
        drain_secs=rounds * habits.service_secs[1],
        unload_secs=habits.unload_secs[1],
        load_secs=longest_load,
    )


def could_have_its_turn(node: "MiniatureNode", profile: Profile) -> bool:
    """Tell whether a model fits when everybody leaves who may."""
    stay = [
        held
        for model, held in node.held.items()
        if model != profile.id
        and held.status is not Status.UNLOADING
        and not _may_leave(node.profile(model), profile)
    ]
    rooms = [
        total - sum(held.share_mb for held in stay if index in held.devices)
        for index, total in enumerate(node.totals_mb)
    ]
    share = profile.share_mb or 0
    return any(
        all(room >= share for room in chosen) for chosen in combinations(rooms, profile.min_devices)
    )


def _may_leave(resident: Profile, comer: Profile) -> bool:
    return HERE not in resident.pinned_on and resident.residency_class <= comer.residency_class
