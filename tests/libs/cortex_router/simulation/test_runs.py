"""Runs small enough to work out by hand, and what holds for every run.

A request for `m` takes 1 s to its first token and 2 s more to its last; a load takes 8 s.
"""

import random

import pytest

from cortex_router import simulation
from cortex_router.simulation import (
    Arrival,
    BadLoad,
    Bursts,
    Contender,
    Day,
    Death,
    Fleet,
    Sessions,
    Turn,
    Workload,
    arrivals,
    contender,
    simulate,
)
from tests.libs.cortex_router.simulation.scenes import ask, fleet, machine, model, run


def waits(results: simulation.Results) -> tuple[float, float]:
    """Return the shortest and the longest wait."""
    assert results.wait is not None
    return results.curve[0], results.wait.worst


def test_a_cold_start_then_a_warm_one() -> None:
    """8 s of loading and 1 s of reading; then only the reading."""
    results = run(fleet(machine()), ask(0.0), ask(20.0))

    assert waits(results) == (1.0, 9.0)
    assert (results.cold_starts, results.evictions, results.loading_secs) == (1, 0, 8.0)
    assert results.busy_seat_secs == 6.0
    assert results.span_secs == 23.0
    assert results.utilisation == pytest.approx(6.0 / 15.0)


def test_one_seat_serves_one_after_the_other() -> None:
    """Both come while it loads: the second waits 3 s longer."""
    results = run(fleet(machine()), ask(0.0), ask(0.0))

    assert waits(results) == (9.0, 12.0)
    assert results.queueing is not None
    assert results.queueing.worst == 11.0


def test_two_seats_serve_two_at_once() -> None:
    """Each as fast as one alone."""
    results = run(fleet(machine(seats=2)), ask(0.0), ask(0.0))

    assert waits(results) == (9.0, 9.0)


def test_a_conversation_is_read_once() -> None:
    """The second turn of 220 tokens reads the 100 that came after the 120 of the first."""
    first = Arrival(
        at=0.0,
        model="m",
        prompt_tokens=100,
        completion_tokens=20,
        session="s",
        then=(Turn(10.0, 220, 20),),
    )
    results = run(fleet(machine()), first)

    assert waits(results) == (1.0, 9.0)
    assert (results.turns, results.switches) == (1, 0)


def test_a_bounded_memory_forgets_the_oldest_conversation() -> None:
    """Room for one conversation of 120 tokens: the other pushes it out."""
    day = [ask(0.0, session="a"), ask(20.0, session="b"), ask(30.0, session="a")]
    small, large = (fleet(machine(cache_tokens=size)) for size in (200, 400))

    assert waits(run(small, *day))[0] == 1.0
    assert waits(run(large, *day))[0] == 0.0


def test_what_all_share_is_read_once() -> None:
    """80 of its 100 tokens are known from another conversation."""
    day = [
        Arrival(
            at=at,
            model="m",
            prompt_tokens=100,
            completion_tokens=20,
            session=name,
            shared_tokens=80,
        )
        for at, name in ((0.0, "a"), (20.0, "b"))
    ]

    assert waits(run(fleet(machine()), *day))[0] == pytest.approx(0.2)


def test_a_model_makes_way_and_thrash_is_counted() -> None:
    """Two models of 6,000 MiB on a device of 10,000: every change is an eviction, 0.5 s and 8 s."""
    two = fleet(machine(), models=(model("m"), model("n")))
    results = run(two, ask(0.0), ask(30.0, "n"), ask(60.0), ask(300.0, "n"))

    assert results.wait is not None
    assert (results.cold_starts, results.evictions, results.thrash) == (4, 3, 1)
    assert waits(results) == (9.0, 9.5)


def test_a_model_that_fits_nowhere_is_refused() -> None:
    """At once, and nothing is loaded for it."""
    results = run(fleet(machine(), models=(model(size_mb=20_000),)), ask(0.0))

    assert (results.refused, results.cold_starts, results.span_secs) == (1, 0, 0.0)


def test_a_full_queue_refuses() -> None:
    """One seat and one place in the queue: of three that come at once, one has to go."""
    day = [ask(0.0), *(ask(20.0) for _ in range(3))]
    results = run(fleet(machine(max_queue=1)), *day)

    assert (results.answered, results.refused) == (3, 1)


def test_a_node_that_dies_loses_what_it_had_begun_to_answer() -> None:
    """The one whose first token was out is lost; the one in the queue is answered elsewhere."""
    both = fleet(machine("a"), machine("b"), faults=(Death(node="a", at=10.0, back_at=100.0),))
    results = run(both, ask(0.0), ask(0.0))

    assert (results.lost, results.answered) == (1, 1)
    assert results.share == {"a": 0, "b": 1}
    assert waits(results) == (19.0, 19.0)


def test_a_node_that_comes_back_is_used_again() -> None:
    """Empty, so that its model loads again."""
    one = fleet(machine(), faults=(Death(node="a", at=15.0, back_at=20.0),))
    results = run(one, ask(0.0), ask(30.0))

    assert (results.answered, results.cold_starts) == (2, 2)


def test_a_request_while_its_only_node_is_away_is_refused() -> None:
    """Nobody knows when it will be back."""
    one = fleet(machine(), faults=(Death(node="a", at=15.0),))

    assert run(one, ask(0.0), ask(30.0)).refused == 1


def test_a_load_that_fails_is_tried_elsewhere() -> None:
    """8 s on the node that cannot, 8 s on the one that can."""
    both = fleet(machine("a"), machine("b"), faults=(BadLoad(node="a", at=0.0, until=5.0),))
    results = run(both, ask(0.0))

    assert (results.failed_loads, results.cold_starts, results.share["b"]) == (1, 2, 1)
    assert waits(results) == (17.0, 17.0)


def test_a_load_that_hangs_ends_at_its_limit() -> None:
    """Only for the model it was said of."""
    fault = BadLoad(node="a", at=0.0, until=5.0, model="m", hangs=True)
    one = fleet(
        machine(), models=(model("m"), model("n", 1_000)), faults=(fault,), load_limit_secs=50.0
    )
    results = run(one, ask(0.0), ask(0.0, "n"))

    assert (results.failed_loads, results.refused, results.answered) == (1, 1, 1)
    assert results.loading_secs == 53.0


def busy_day(seed: int, requests: int = 600) -> list[Arrival]:
    """Return a day with everything in it, over eight models."""
    workload = Workload(
        requests=requests,
        per_sec=0.5,
        prompt_tokens=50,
        completion_tokens=20,
        day=Day(swing=0.5, period_secs=600.0),
        bursts=Bursts(every_secs=100.0, requests=10, length_secs=5.0),
        sessions=Sessions(part=0.3, turns=4, shared_tokens=100, first_tokens=50, grows_tokens=20),
    )
    return list(arrivals(workload, [f"m{n}" for n in range(8)], random.Random(seed)))


def troubled_fleet() -> Fleet:
    """Return three nodes for half of the models, on which everything goes wrong once."""
    return fleet(
        machine("a", devices_mb=(8_000, 8_000), seats=2),
        machine("b", seats=2, max_queue=2),
        machine("c", speed=2.0),
        models=tuple(model(f"m{n}", 2_000 + 900 * n) for n in range(8)),
        faults=(
            Death(node="a", at=200.0, back_at=400.0),
            BadLoad(node="b", at=100.0, until=200.0),
            BadLoad(node="c", at=300.0, until=350.0, hangs=True),
        ),
        load_limit_secs=60.0,
        hold_secs=20.0,
        load_wait_secs=100.0,
    )


@pytest.mark.parametrize("name", simulation.NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_arrival_has_one_outcome(name: str, seed: int) -> None:
    """Whatever goes wrong: nobody is forgotten, nobody is counted twice."""
    results = simulate(troubled_fleet(), busy_day(seed), contender(name, seed))

    assert results.arrivals == sum(
        (results.answered, results.refused, results.lost, results.gave_up)
    )
    assert results.answered == sum(results.share.values())
    assert results.answered > 0
    assert results.evictions <= results.cold_starts


@pytest.mark.parametrize("name", ["random", "cost"])
def test_the_same_seed_gives_the_same_figures(name: str) -> None:
    """All of them; another seed gives others."""
    first, again, other = (
        simulate(troubled_fleet(), busy_day(seed), contender(name, seed)) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


def test_a_workload_plans_exactly_what_was_asked_for() -> None:
    """In order of time, turns counted."""
    day = busy_day(1, requests=500)

    assert sum(1 + len(one.then) for one in day) == 500
    assert [one.at for one in day] == sorted(one.at for one in day)


def test_the_first_models_are_asked_for_most() -> None:
    """In proportion to 1, 1/2, 1/3."""
    workload = Workload(requests=11_000, per_sec=1.0, zipf=1.0)
    asked = [one.model for one in arrivals(workload, ["a", "b", "c"], random.Random(1))]

    assert [round(asked.count(name) / 1000) for name in "abc"] == [6, 3, 2]


def test_first_come_first_served_swaps_more_than_taking_turns() -> None:
    """Two models, one place, both wanted all the time: batches instead of one swap per request."""
    two = fleet(machine(), models=(model("m"), model("n")))
    day = [ask(4.0 * n, "mn"[n % 2]) for n in range(100)]
    served, batched = (
        run(two, *day, contender=contender(name, 1)).cold_starts for name in ("fcfs", "lru")
    )

    assert batched < served


def test_an_unknown_policy_has_no_contender() -> None:
    """The names are those of NAMES."""
    with pytest.raises(KeyError):
        contender("lruu", 1)
    assert isinstance(contender("lru", 1), Contender)
