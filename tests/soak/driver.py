"""Random events against the stateful model of one node, from a seed."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from cortex_router import Profile, Rules, Swapping
from tests.libs.cortex_router.stateful import NodeModel
from tests.libs.cortex_router.stateful_checks import Violation
from tests.libs.cortex_router.stateful_node import Habits

MODELS = "abcdefgh"
PRINCIPALS = ("ada", "ben", "cy", "dot")
#: A new node, with other devices and models, after so many events: more corners are seen.
EVENTS_PER_NODE = 2_000
#: Of every life of a node, this share passes without faults, so that waits are held to the bound.
CALM_SHARE = 0.5
KEPT_EVENTS = 40


@dataclass(slots=True)
class Soaked:
    """What a run of random events came to. `violation` is set when it ended early."""

    events: int = 0
    requests: int = 0
    starts: int = 0
    nodes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_wait_secs: float = 0.0
    its_bound_secs: float = 0.0
    nearest: float = 0.0
    secs: float = 0.0
    violation: str | None = None
    last_events: tuple[str, ...] = ()

    def take(self, node: NodeModel) -> None:
        """Add up what one node saw."""
        self.events += node.events
        self.requests += node.requests
        self.starts += node.starts
        self.nodes += 1
        self.outcomes += node.outcomes
        self.nearest = max(self.nearest, node.checks.nearest)
        if node.checks.longest_wait_secs > self.longest_wait_secs:
            self.longest_wait_secs = node.checks.longest_wait_secs
            self.its_bound_secs = node.checks.its_bound_secs


def soak(events: int, seed: int) -> Soaked:
    """Drive nodes with random events until there were so many, or something was violated."""
    result, random, began = Soaked(), Random(seed), time.perf_counter()
    last = deque[str](maxlen=KEPT_EVENTS)
    while result.events < events:
        last.clear()
        node = random_node(random)
        try:
            live(node, random, last, min(EVENTS_PER_NODE, events - result.events))
        except Violation as violation:
            result.violation, result.last_events = str(violation), tuple(last)
        result.take(node)
        if result.violation is not None:
            break
    result.secs = time.perf_counter() - began
    return result


def random_node(random: Random) -> NodeModel:
    """Return a node with a catalogue that does not fit at once."""
    devices = random.choice([1, 1, 2, 2, 3])
    return NodeModel(
        tuple(random.choice([8, 12, 16]) for _ in range(devices)),
        {model: random_profile(model, random, devices) for model in MODELS},
        seed=random.getrandbits(32),
        habits=Habits(seats=random.choice([1, 2, 4]), max_waiting=random.choice([2, 6])),
        swapping=Swapping(
            rules=Rules(min_residency_secs=random.choice([0.0, 0.0, 4.0])),
            amortise=random.choice([0.0, 1.0, 2.0]),
            linger_secs=random.choice([0.0, 2.0, 5.0]),
        ),
    )


def random_profile(model: str, random: Random, devices: int) -> Profile:
    """Return a model that takes some of the node, or all of it, and now and then too much."""
    return Profile(
        id=model,
        size_mb=random.randint(2, 18),
        min_devices=random.choice([1, 1, 1, min(2, devices)]),
        priority=random.choice([None, None, None, 50, 200]),
    )


def live(node: NodeModel, random: Random, last: deque[str], events: int) -> None:
    """Let a node live for so many events, then let everything go."""
    faults_from = events * CALM_SHARE
    while node.events < events:
        if node.events >= faults_from:
            faults_from = float("inf")
            node.fail_loads(fails=0.05, hangs=0.03)
        calm = faults_from < float("inf")
        name, event = random.choices(CALM if calm else ROUGH, (CALM_WEIGHTS if calm else WEIGHTS))[
            0
        ]
        last.append(f"{node.time:.2f} {name}")
        event(node, random)
    last.append(f"{node.time:.2f} let everything go")
    node.let_everything_go()


def _ask(node: NodeModel, random: Random) -> None:
    patience = random.choice([None, None, random.uniform(1, 120)])
    node.request(random.choice(PRINCIPALS), random.choice(MODELS), patience_secs=patience)


def _cancel(node: NodeModel, random: Random) -> None:
    if node.waiting_or_served:
        node.cancel(random.choice(node.waiting_or_served))


def _reload(node: NodeModel, random: Random) -> None:
    model = random.choice(MODELS)
    rest = {name: profile for name, profile in node.catalogue.items() if name != model}
    if random.random() < 0.8:
        rest[model] = random_profile(model, random, len(node.totals_mb))
    node.reload(rest)


Happening = tuple[str, Callable[[NodeModel, Random], object]]
CALM: tuple[Happening, ...] = (
    ("ask", _ask),
    ("next event", lambda node, _: node.next_event()),
    ("time passes", lambda node, random: node.pass_time(random.expovariate(1.0))),
    ("cancel", _cancel),
    ("unload", lambda node, random: node.unload(random.choice(MODELS))),
)
CALM_WEIGHTS = (40, 40, 10, 3, 1)
ROUGH: tuple[Happening, ...] = (
    *CALM,
    ("pin or unpin", lambda node, random: node.repin(random.choice(MODELS))),
    ("drain or not", lambda node, _: node.drain(on=not node.draining)),
    ("reload", _reload),
    ("crash", lambda node, random: node.crash(random.choice(MODELS))),
    ("die", lambda node, random: node.die(random.uniform(1, 30))),
    ("clock steps", lambda node, random: node.step_clock(random.uniform(-30, 30))),
)
WEIGHTS = (*CALM_WEIGHTS, 1, 1, 1, 1, 0.2, 0.5)
