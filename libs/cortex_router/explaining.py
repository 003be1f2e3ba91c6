"""The account of a decision: every node, what was made of it, and by how much."""

from cortex_router.availability import arrival, out_reason
from cortex_router.choosing import choose, passed_over, wait_secs
from cortex_router.decision import Considered, RouteRequest
from cortex_router.lifecycle import ARRIVING, Status
from cortex_router.nodes import Replica
from cortex_router.placement import Fit, NoFit, place
from cortex_router.policy import Policy
from cortex_router.view import Entry, FleetView, current


def account_of(
    view: FleetView, request: RouteRequest, policy: Policy, now: float, *, another: bool = False
) -> tuple[Considered, ...]:
    """Return every node with what `decide` makes of it, sorted by name.

    With `another` it is the account of one more copy of a model that is served already.
    """
    account = _Account(view, request, policy, now, another=another)
    return tuple(
        account.of(view.entries[name])
        for name in sorted(view.entries)
        if request.node in (None, name)
    )


class _Account:
    """One request, and what `decide` chose before it came to loading."""

    def __init__(
        self, view: FleetView, request: RouteRequest, policy: Policy, now: float, *, another: bool
    ) -> None:
        self._view, self._request, self._policy, self._now = view, request, policy, now
        self._model = view.resolve(request.model)
        self._profile = view.profile(self._model)
        choice = choose(view, self._model, request, policy.serving, now)
        self._chosen = None if choice is None else choice.node
        arriving = arrival(view, self._model, request) if choice is None else None
        self._awaited = None if arriving is None else arriving.node
        self._loads = another or (choice is None and arriving is None)

    def of(self, entry: Entry) -> Considered:
        """Return what is made of one node."""
        name = entry.node.name
        replica = entry.node.by_model.get(self._model)
        out = out_reason(entry, self._model, self._request)
        if replica is not None and replica.status is Status.LOADED:
            return self._loaded(entry, replica, out)
        if out is not None:
            return Considered(node=name, kept=False, reason=out)
        if replica is not None and replica.status in ARRIVING:
            return Considered(node=name, kept=True, reason=replica.status.value)
        if self._profile is None:
            return Considered(node=name, kept=False, reason="not_known")
        placement = self._place(entry, once_idle=False)
        if isinstance(placement, NoFit):
            placement = self._place(entry, once_idle=True)
        if isinstance(placement, NoFit):
            return Considered(
                node=name, kept=False, reason=placement.reason, detail=placement.detail
            )
        return self._fits(name, placement)

    def _place(self, entry: Entry, *, once_idle: bool) -> Fit | NoFit:
        assert self._profile is not None  # noqa: S101  # asked for a known model only
        return place(
            current(entry),
            self._profile,
            self._view.profiles,
            self._policy.rules,
            self._now,
            once_idle=once_idle,
            wanted=self._view.wanted(self._now),
        )

    def _fits(self, name: str, fit: Fit) -> Considered:
        reason = "fits_once_idle" if fit.once_idle else "fits_evicting" if fit.evict else "fits"
        told = [
            f"devices {', '.join(map(str, fit.devices))}, {fit.spare_mb} MiB to spare",
            *(f"{v.model} leaves: {v.reason}" for v in (*fit.evict, *fit.once_idle)),
        ]
        return Considered(
            node=name,
            kept=self._loads,
            reason=reason if self._loads else "served_elsewhere",
            detail="; ".join(told),
            score=(float(fit.tier), fit.price, -float(fit.spare_mb)),
        )

    def _loaded(self, entry: Entry, replica: Replica, out: str | None) -> Considered:
        name, serving = entry.node.name, self._policy.serving
        if out is not None:
            return Considered(node=name, kept=False, reason="loaded_but_away", detail=out)
        if not replica.servable:
            return Considered(node=name, kept=name == self._awaited, reason="not_servable")
        count = entry.conversations.get(self._model)
        conversations = count.at(self._view.sessions.generation).total if count else 0
        passed = passed_over(entry, replica, serving, self._now)
        wait = wait_secs(entry, replica, serving.answer_tokens)
        return Considered(
            node=name,
            kept=passed is None or name == self._chosen,
            reason=passed or "loaded",
            detail=f"{entry.load(replica)} of {replica.seats} seats in use, "
            f"{conversations} conversations, {replica.decode_tok_s:.0f} tok/s",
            score=(*map(float, entry.ranks[self._model]), wait),
        )
