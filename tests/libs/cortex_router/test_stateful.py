"""Queue and swap scheduling of one whole node, driven by hypothesis: the short form of `soak`."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cortex_router import Profile
from tests.libs.cortex_router.stateful import NodeModel
from tests.libs.cortex_router.stateful_checks import Violation
from tests.soak.driver import MODELS, PRINCIPALS, random_node, random_profile, soak

models = st.sampled_from(MODELS)
secs = st.floats(0.01, 30.0)


class OneNode(RuleBasedStateMachine):
    """Anything in any order; `NodeModel` checks itself after every event."""

    def __init__(self) -> None:
        super().__init__()
        self.node = NodeModel((8,), {})

    @initialize(seed=st.integers(0, 2**20))
    def install(self, seed: int) -> None:
        """Some node, with more models than fit."""
        self.node = random_node(Random(seed))

    @rule(
        model=models,
        principal=st.sampled_from(PRINCIPALS),
        patience=st.one_of(st.none(), secs),
    )
    def ask(self, model: str, principal: str, patience: float | None) -> None:
        """Somebody asks for a model."""
        self.node.request(principal, model, patience_secs=patience)

    @precondition(lambda self: self.node.waiting_or_served)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        """Somebody hangs up."""
        here = self.node.waiting_or_served
        self.node.cancel(here[pick % len(here)])

    @rule()
    def next_event(self) -> None:
        """What is due next happens."""
        self.node.next_event()

    @rule(length=secs)
    def time_passes(self, length: float) -> None:
        """All that is due within a while happens."""
        self.node.pass_time(length)

    @rule(fails=st.sampled_from([0.0, 0.5]), hangs=st.sampled_from([0.0, 0.3]))
    def loads_go_wrong(self, fails: float, hangs: float) -> None:
        """Loads fail or hang from now on, or no longer."""
        self.node.fail_loads(fails=fails, hangs=hangs)

    @rule(model=models)
    def pin_or_unpin(self, model: str) -> None:
        """The operator pins a model here, or lets it go."""
        self.node.repin(model)

    @rule(on=st.booleans())
    def drain(self, on: bool) -> None:
        """The operator drains the node, or takes it back."""
        self.node.drain(on=on)

    @rule(model=models, seed=st.one_of(st.none(), st.integers(0, 2**20)))
    def reload(self, model: str, seed: int | None) -> None:
        """A model leaves the catalogue, or comes with other needs."""
        rest = {name: one for name, one in self.node.catalogue.items() if name != model}
        if seed is not None:
            rest[model] = random_profile(model, Random(seed), len(self.node.totals_mb))
        self.node.reload(rest)

    @rule(model=models)
    def unload(self, model: str) -> None:
        """An idle model is sent away."""
        self.node.unload(model)

    @rule(model=models)
    def crash(self, model: str) -> None:
        """An engine dies."""
        self.node.crash(model)

    @rule(back=secs)
    def die(self, back: float) -> None:
        """The machine goes down for a while."""
        self.node.die(back)

    @rule(by=st.floats(-30.0, 30.0))
    def clock_steps(self, by: float) -> None:
        """The clock is set."""
        self.node.step_clock(by)

    def teardown(self) -> None:
        """Once everything is let go, everybody has had exactly one outcome."""
        self.node.let_everything_go()
        assert self.node.outcomes.total() == self.node.requests


TestOneNode = OneNode.TestCase
TestOneNode.settings = settings(max_examples=50, stateful_step_count=40)


def test_random_events_end_every_request() -> None:
    """The soak's driver finds nothing in some hundred events, and repeats itself exactly."""
    first, again = soak(700, seed=3), soak(700, seed=3)

    assert first.violation is None
    assert first.outcomes == again.outcomes
    assert first.outcomes["served"] > 50


def test_the_model_notices_memory_over_budget() -> None:
    """A check that cannot fail would prove nothing: here is a model that takes too much."""
    node = NodeModel((8,), {"a": Profile(id="a", size_mb=4)})
    node.request("ada", "a")
    node.held["a"].share_mb = 9

    with pytest.raises(Violation, match="9 of 8 MiB"):
        node.pass_time(1.0)


def test_the_model_notices_a_request_that_nobody_remembers() -> None:
    """Should a load be lost, its requests are stuck, and that is said."""
    node = NodeModel((8,), {"a": Profile(id="a", size_mb=4)})
    node.request("ada", "a")
    node.agenda.clear()

    with pytest.raises(Violation, match="nothing happens"):
        node.pass_time(1.0)
