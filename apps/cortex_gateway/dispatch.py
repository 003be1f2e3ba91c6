"""Bring a request to a replica: decide, act on the decision, wait, decide again.

Every wait has a limit: `load` while a model is on its way, `hold` while room or a node is awaited.
One load per model is asked for at a time, however many requests want it.
"""

import asyncio
import secrets
import time
from typing import assert_never

import structlog

from cortex_core.errors import ApiError, ModelInfeasible, ModelNotFound, Unavailable
from cortex_core.settings import CortexSettings
from cortex_core.wire import LoadRequest, Residency, Waiting
from cortex_gateway.fleet import Fleet, now
from cortex_gateway.metrics import Metrics
from cortex_gateway.neuron_client import NeuronClient, NodeError
from cortex_gateway.policies import policy_of
from cortex_gateway.watching import Watcher
from cortex_router import (
    Await,
    Decision,
    Load,
    Policy,
    Refuse,
    RetryBudget,
    RouteRequest,
    Serve,
    another_copy,
    decide,
)

log = structlog.get_logger()

_ARRIVING = frozenset({"queued", "loading", "recovering"})
#: A node is asked to load the same model again and again no more often than this.
RETRY_LOAD_SECS = 1.0
#: A load that waits for its turn is asked for again this often, for as long as somebody wants it.
REPEAT_INTENT_SECS = 5.0
ANSWER_INTENT_SECS = 10.0
#: Whether one more copy of a model is worth it is asked this often.
SPREAD_SECS = 5.0
RETRY_LATER_SECS = 10.0


class Dispatcher:
    """Takes requests to replicas."""

    def __init__(self, fleet: Fleet, settings: CortexSettings, metrics: Metrics) -> None:
        self._fleet = fleet
        self._settings = settings
        self._policy = policy_of(settings)
        self._metrics = metrics
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, list[float]] = {}
        #: What nodes tell gateways apart by, also those of one machine.
        self._name = f"cortex-{secrets.token_hex(8)}"
        self._intents: dict[str, asyncio.Event] = {}
        self._spread_again_at: dict[str, float] = {}
        self._retries = RetryBudget()
        self._background: set[asyncio.Task[None]] = set()
        self.clients: dict[str, NeuronClient] = {}
        self.watchers: dict[str, Watcher] = {}

    def configure(self, settings: CortexSettings) -> None:
        """Use other settings from now on. Raises ConfigError, and goes on as before."""
        self._policy = policy_of(settings)
        self._settings = settings

    @property
    def waiting(self) -> int:
        """How many requests wait for a model."""
        return sum(len(since) for since in self._waiting.values())

    @property
    def defrag_after_cycles(self) -> int:
        """How many loads on a node an engine may outlast; 0: any number."""
        return self._settings.eviction.defrag_after_cycles

    @property
    def policy(self) -> Policy:
        """The operator's policy."""
        return self._policy

    def nudge(self, node: str) -> None:
        """Have the node looked at soon."""
        if (watcher := self.watchers.get(node)) is not None:
            watcher.nudge()

    async def still_claims(self, node: str, model: str) -> bool:
        """Look at the node now, and tell whether it says that it can serve the model."""
        if (watcher := self.watchers.get(node)) is not None:
            await watcher.poll()
        seen = self._fleet.view().node(node)
        replica = seen.holds(model) if seen is not None else None
        return replica is not None and replica.ready

    def at_once(self, request: RouteRequest) -> Serve | None:
        """Return where to send the request if it can be now; None: `acquire` waits until it can.

        One that nodes to avoid have failed already is sent again: not when too many were lately.
        Raises Unavailable then.
        """
        if not request.avoid:
            self._retries = self._retries.asked(time.monotonic())
        decision = decide(self._fleet.view(), request, self._policy, now())
        if not isinstance(decision, Serve):
            return None
        self._metrics.tallies.decided("serve", decision.reason)
        if decision.saturated:
            self._spread(decision.model)
        return self._again(decision) if request.avoid else decision

    async def acquire(self, request: RouteRequest) -> Serve:
        """Return where to send the request, once it can be. Raises the ApiError that says no."""
        await self._fleet.first_look(self._settings.observation.timeout_secs)
        model = self._fleet.view().resolve(request.model)
        since = now()
        self._waiting.setdefault(model, []).append(since)
        try:
            serve = await self._wait(request, model)
            return self._again(serve) if request.avoid else serve
        finally:
            self._waiting[model].remove(since)
            if not self._waiting[model]:
                del self._waiting[model]
                if (left := self._intents.get(model)) is not None:
                    left.set()

    def _again(self, serve: Serve) -> Serve:
        """Count a request that is sent again. Raises Unavailable when it must not be."""
        spent = self._retries.retried(time.monotonic())
        if spent is None:
            self._metrics.tallies.retried("withheld")
            raise Unavailable("too many requests had to be sent again lately")
        self._metrics.tallies.retried("made")
        self._retries = spent
        return serve

    async def _wait(self, request: RouteRequest, model: str) -> Serve:
        timeouts = self._settings.timeouts
        loop = asyncio.get_running_loop()
        give_up_loading = loop.time() + timeouts.load
        give_up_holding = loop.time() + timeouts.hold
        told: str | None = None
        loads = 0
        while True:
            decision = decide(self._fleet.view(), request, self._policy, now())
            reason = _reason(decision)
            if reason != told:
                self._metrics.tallies.decided(type(decision).__name__.lower(), reason)
                told = reason
            match decision:
                case Serve():
                    return decision
                case Refuse():
                    raise refusal(decision)
                case Load():
                    await self.load(decision)
                    loads += 1
                    # Who has to leave is in use: a node that queues nothing may refuse for ever.
                    deadline = give_up_holding if decision.once_idle else give_up_loading
                    if loads == 1:
                        continue
                case Await():
                    arriving = decision.reason in _ARRIVING
                    deadline = give_up_loading if arriving else give_up_holding
                case never:
                    assert_never(never)
            left = deadline - loop.time()
            if left <= 0:
                raise Unavailable(
                    f"{model!r} did not become available in time ({told})",
                    retry_after_secs=retry_after_secs(decision),
                )
            await self._fleet.changed(min(left, 1.0))

    def _spread(self, model: str) -> None:
        """Load one more copy of a model whose every replica has a queue, where there is room."""
        loop = asyncio.get_running_loop()
        if (
            not self._settings.routing.replicate
            or model in self._loads
            or loop.time() < self._spread_again_at.get(model, 0.0)
        ):
            return
        self._spread_again_at[model] = loop.time() + SPREAD_SECS
        copy = another_copy(self._fleet.view(), model, self._policy, now())
        if copy is None:
            return

        async def load() -> None:
            try:
                await self.load(copy)
            except ApiError as error:
                log.warning("model.not_spread", model=model, node=copy.node, error=error.message)

        task = asyncio.create_task(load())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def load(self, decision: Load) -> None:
        """Carry out a Load, or join the one that is under way. Raises what stopped it for good."""
        task = self._loads.get(decision.model)
        if task is None:
            task = asyncio.create_task(self._load(decision))
            self._loads[decision.model] = task
            task.add_done_callback(lambda done: self._load_ended(decision.model, done))
        await asyncio.shield(task)

    def _load_ended(self, model: str, task: asyncio.Task[None]) -> None:
        self._loads.pop(model, None)
        if not task.cancelled():
            task.exception()

    async def _load(self, decision: Load) -> None:
        node, model = decision.node, decision.model
        log.info(
            "model.load",
            model=model,
            node=node,
            devices=list(decision.devices),
            evict=[victim.model for victim in decision.evict],
            once_idle=[victim.model for victim in decision.once_idle],
        )
        request = self._load_request(decision)
        try:
            answer = await self.clients[node].load(request, self._settings.timeouts.load)
        except NodeError as error:
            await self._load_refused(decision, error)
            return
        self._metrics.tallies.of(model, node).cold_starts += 1
        for victim in decision.evict:
            self._metrics.tallies.of(victim.model, node).evictions += 1
        log.info("model.load_accepted", model=model, node=node, status=answer.status)
        if answer.status == "queued" and model not in self._intents:
            self._intents[model] = asyncio.Event()
            repeating = asyncio.create_task(self._repeat(decision))
            self._background.add(repeating)
            repeating.add_done_callback(self._background.discard)
        await self.watchers[node].poll()

    async def _repeat(self, decision: Load) -> None:
        """Repeat an intent while somebody waits: a node lets those lapse that nobody repeats."""
        node, model = decision.node, decision.model
        left = self._intents[model]
        try:
            while (client := self.clients.get(node)) is not None:
                try:
                    async with asyncio.timeout(REPEAT_INTENT_SECS):
                        await left.wait()
                except TimeoutError:
                    pass
                answer = await client.load(self._load_request(decision), ANSWER_INTENT_SECS)
                if left.is_set() or answer.status != "queued":
                    return
        except NodeError as error:
            if not left.is_set():
                log.warning("model.intent_lost", model=model, node=node, error=str(error))
            self.nudge(node)
        finally:
            del self._intents[model]

    def _load_request(self, decision: Load) -> LoadRequest:
        entry = next((e for e in self._fleet.catalogue.models if e.id == decision.model), None)
        return LoadRequest(
            model_id=decision.model,
            harness=entry.harness if entry else None,
            source=entry.source if entry else None,
            quant=entry.quant if entry else None,
            tensor_parallel=decision.profile.min_devices
            if decision.profile.min_devices > 1
            else None,
            devices=decision.devices or None,
            evict=tuple(victim.model for victim in (*decision.evict, *decision.once_idle)),
            residency=Residency(
                priority=decision.profile.residency_class,
                pinned=decision.node in decision.profile.pinned_on,
                apart_from=decision.profile.apart_from,
            ),
            waiting=self._waiting_for(decision.model),
            wait=False,
            vram_mb=entry.vram_mb if entry else None,
            keep_alive_secs=entry.keep_alive_secs if entry else None,
            capabilities=entry.capabilities if entry else (),
            options=entry.options if entry else {},
        )

    def _waiting_for(self, model: str) -> Waiting | None:
        """Return who waits. Nobody any more is told too: then the node lets an intent go."""
        if since := self._waiting.get(model):
            oldest_secs = max(0.0, now() - min(since))
            return Waiting(count=len(since), oldest_secs=oldest_secs, by=self._name)
        if model in self._intents:
            return Waiting(count=0, oldest_secs=0.0, by=self._name)
        return None

    async def _load_refused(self, decision: Load, error: NodeError) -> None:
        """Learn from a refusal so that the next decision is a better one, or end the request."""
        node, model = decision.node, decision.model
        message = str(error.detail.get("message", ""))
        log.warning(
            "model.load_refused",
            model=model,
            node=node,
            status=error.status,
            code=error.code,
            error=message or str(error),
        )
        if error.status == 409 or "already loaded" in message:  # noqa: PLR2004
            needed = error.detail.get("needed_mb")
            if isinstance(needed, int):
                self._fleet.learn_size(model, needed)
            await self.watchers[node].poll()
            await self._fleet.changed(RETRY_LOAD_SECS / 4)
            return
        if error.status == 422:  # noqa: PLR2004
            raise preflight_refusal(model, error)
        if error.status == 400:  # noqa: PLR2004
            raise ModelInfeasible(f"{model!r} cannot be loaded as the catalogue describes it")
        self.watchers[node].nudge()
        raise Unavailable(f"the load of {model!r} failed on its node", retry_after_secs=5)


def preflight_refusal(model: str, error: NodeError) -> ApiError:
    """Return what a client learns when a node says that a model's files cannot be used."""
    kind = error.code or "not_loadable"
    if kind in {"fetch_failed", "no_space"}:
        return Unavailable(f"{model!r} could not be fetched ({kind})", retry_after_secs=30)
    return ModelInfeasible(f"{model!r} cannot be loaded: {kind}", extra={"kind": kind})


def retry_after_secs(decision: Decision) -> float:
    """Return when to try again: when it should be up, if anybody can tell."""
    eta = decision.eta_secs if isinstance(decision, Await) else None
    return RETRY_LATER_SECS if eta is None else min(600.0, max(1.0, eta))


def refusal(decision: Refuse) -> ApiError:
    """Return a Refuse as the error it is."""
    if decision.code == "model_not_found":
        return ModelNotFound(decision.detail, param="model")
    if decision.retry_after_secs is None:
        return ModelInfeasible(decision.detail, param="model")
    return Unavailable(decision.detail, retry_after_secs=decision.retry_after_secs)


def _reason(decision: Serve | Await | Load | Refuse) -> str:
    match decision:
        case Serve(reason=reason):
            return reason
        case Await(reason=reason):
            return reason
        case Load(evict=evict, once_idle=once_idle):
            return "queueing" if once_idle else "evicting" if evict else "fits"
        case Refuse(code=code):
            return code
