"""Every rule of `place`, each on a node small enough to see."""

from dataclasses import replace
from itertools import pairwise

import pytest

from cortex_router import Device, Fit, Node, NoFit, Priority, Profile, Rules, Status, place
from cortex_router.placement import MAX_DEVICE_SETS
from tests.libs.cortex_router.fleets import device, node, replica

NOW = 100.0
NEW = Profile(id="new", size_mb=10)


def asked(
    machine: Node,
    profile: Profile = NEW,
    *theirs: Profile,
    rules: Rules | None = None,
    once_idle: bool = False,
    only: tuple[int, ...] | None = None,
) -> Fit | NoFit:
    """What `place` says."""
    return place(
        machine,
        profile,
        {one.id: one for one in theirs},
        rules or Rules(),
        NOW,
        once_idle=once_idle,
        only_devices=only,
    )


def fits(answer: Fit | NoFit) -> Fit:
    """The answer, which is a fit."""
    assert isinstance(answer, Fit), answer
    return answer


def fails(answer: Fit | NoFit) -> tuple[str, str, bool]:
    """The answer, which is none."""
    assert isinstance(answer, NoFit), answer
    return answer.reason, answer.detail, answer.ever


def full(*held: str, free: int = 0, used: int = 10) -> Node:
    """A node with one device that these models fill."""
    return node("n", *(replica(one, used=used) for one in held), devices=(device(free=free),))


def test_the_emptiest_device_is_taken_and_equals_by_number() -> None:
    """The room that is left is what the tightest has."""
    roomy = node("n", devices=(device(2, free=12), device(0, free=11), device(1, free=12)))

    assert fits(asked(roomy)) == Fit(devices=(1,), spare_mb=2)
    assert fits(asked(roomy, replace(NEW, size_mb=22, min_devices=2))) == Fit(
        devices=(1, 2), spare_mb=1
    )


def test_among_sets_that_leave_as_much_the_lowest_devices_are_taken() -> None:
    """The emptiest device stays empty when it does not help."""
    uneven = node("n", devices=(device(0, free=12), device(1, free=12), device(2, free=20)))

    assert fits(asked(uneven, replace(NEW, size_mb=20, min_devices=2))).devices == (0, 1)


def test_an_odd_megabyte_counts_on_every_device() -> None:
    """21 MiB on two devices are 11 on each."""
    split = replace(NEW, size_mb=21, min_devices=2)

    assert isinstance(asked(node("n", devices=(device(0, free=10), device(1)))), Fit)
    assert fails(asked(node("n", devices=(device(0, free=10), device(1))), split)) == (
        "no_room",
        (
            "needs 11 MiB on each of 2 device(s); the best has 24 MiB free and what may leave does "
            "not make enough room"
        ),
        True,
    )


def test_what_can_never_fit_is_told_with_the_arithmetic() -> None:
    """What is needed and what there is, device by device."""
    small = node("n", devices=(device(1, total=8), device(0, total=9)))

    assert fails(asked(small)) == (
        "too_few_devices",
        "needs 1 device(s) of at least 10 MiB; devices: 0: 9 MiB, 1: 8 MiB",
        False,
    )
    assert fails(asked(Node(name="n"), Profile(id="new"))) == (
        "too_few_devices",
        "needs 1 device(s) of at least 0 MiB; devices: none",
        False,
    )


def test_a_device_may_have_to_be_of_some_size() -> None:
    """`min_device_mb` is about all it has, not about what is free."""
    two = node("n", devices=(device(0, total=12, free=12), device(1, total=24, free=11)))

    assert fits(asked(two, replace(NEW, min_device_mb=24))).devices == (1,)
    assert fails(asked(two, replace(NEW, min_device_mb=25)))[:2] == (
        "too_few_devices",
        "needs 1 device(s) of at least 25 MiB; devices: 0: 12 MiB, 1: 24 MiB",
    )


def test_what_a_device_does_not_tell_is_unknown_not_nothing() -> None:
    """An unknown total gets a chance; unknown room is no room for a known size."""
    assert isinstance(asked(node("n", devices=(device(total=None),))), Fit)
    secret = node("n", devices=(device(free=None),))
    assert fails(asked(secret)) == (
        "no_room",
        (
            "needs 10 MiB on each of 1 device(s); the best has 0 MiB free and what may leave does "
            "not make enough room"
        ),
        True,
    )


def test_a_model_of_unknown_size_goes_to_the_emptiest_devices() -> None:
    """The node has the last word, also when it did not tell its room."""
    unknown = Profile(id="new", min_devices=2)
    three = node("n", devices=(device(0, free=3), device(1, free=None), device(2, free=5)))

    assert fits(asked(three, unknown)) == Fit(devices=(0, 2), spare_mb=3)
    assert fits(asked(three, replace(unknown, min_devices=3))).spare_mb == 0


def test_a_model_of_unknown_size_keeps_its_distance_too() -> None:
    """Others leave for it only if they may not share a device with it."""
    shy = Profile(id="new", apart_from=("held",))
    busy = node("n", replica("held"), devices=(device(0, free=14), device(1, free=1)))

    assert fits(asked(busy, shy)) == Fit(devices=(1,), spare_mb=1)
    assert fits(asked(full("held", free=3), shy)).victims == ("held",)


def test_named_devices_are_the_only_ones() -> None:
    """Whoever asks for a device gets that one or none."""
    two = node("n", devices=(device(0, free=20), device(1, free=12)))

    assert fits(asked(two, only=(1,))).devices == (1,)
    assert fails(asked(two, replace(NEW, min_devices=2), only=(1,)))[1] == (
        "needs 2 device(s) of at least 5 MiB; devices: 1: 24 MiB"
    )


@pytest.mark.parametrize(
    ("profile", "detail"),
    [
        (replace(NEW, pinned_on=("x", "y")), "belongs on x, y"),
        (replace(NEW, only_on=("x", "y")), "belongs on x, y"),
        (replace(NEW, only_on=("n",), pinned_on=("x",)), "belongs on x"),
        (replace(NEW, excluded_from=("n",)), "the catalogue excludes it here"),
    ],
)
def test_where_the_catalogue_does_not_want_it(profile: Profile, detail: str) -> None:
    """Its home comes first, then where its files are, then where it must not be."""
    assert fails(asked(node("n"), profile)) == ("not_here", detail, False)


def test_where_the_catalogue_wants_it() -> None:
    """The same rules, on the right node."""
    assert isinstance(asked(node("n"), replace(NEW, pinned_on=("x", "n"))), Fit)
    assert isinstance(asked(node("n"), replace(NEW, only_on=("n",))), Fit)
    assert isinstance(asked(node("n"), replace(NEW, excluded_from=("x",))), Fit)


def test_a_node_without_its_harness_cannot_run_it() -> None:
    """One that did not tell its harnesses gets a chance."""
    gguf = replace(NEW, harness="llamacpp")
    other = replace(node("n"), harnesses=("exllamav2", "openai"))

    assert fails(asked(other, gguf)) == (
        "no_harness",
        "needs the harness 'llamacpp', the node has exllamav2, openai",
        False,
    )
    assert isinstance(asked(replace(other, harnesses=("llamacpp",)), gguf), Fit)
    assert isinstance(asked(replace(other, harnesses=None), gguf), Fit)
    assert isinstance(asked(other), Fit)


def test_who_leaves_is_told_why() -> None:
    """The reason of every victim, as an operator reads it."""
    idle, shy = replica("idle", last_used=58.4), replace(NEW, apart_from=("idle",))
    one = node("n", idle, devices=(device(free=0),))
    fresh = node("n", replica("idle", loaded_at=99.0), devices=(device(free=0),))
    in_use = replace(idle, in_flight=2, queued=1)
    later = Rules(min_residency_secs=5.0)

    def told(fit: Fit | NoFit) -> tuple[list[str], list[str]]:
        found = fits(fit)
        return [v.reason for v in found.evict], [v.reason for v in found.once_idle]

    assert told(asked(one)) == (["idle for 42 s"], [])
    assert told(asked(replace(one, replicas=(replace(idle, last_used=NOW + 9),)))) == (
        ["idle for 0 s"],
        [],
    )
    assert told(asked(replace(one, replicas=(replace(idle, last_used=None),)))) == (
        ["never used"],
        [],
    )
    assert told(asked(one, shy)) == (["may not share a device with it"], [])
    assert told(asked(replace(one, replicas=(in_use,)), once_idle=True)) == (
        [],
        ["once its 3 request(s) have ended"],
    )
    assert told(asked(fresh, rules=later, once_idle=True)) == (
        [],
        ["once it has been there for its minimum"],
    )


def test_some_leave_now_and_some_once_they_can() -> None:
    """Everybody in one plan, and what it is worth."""
    held = node(
        "n",
        replica("idle", used=6, last_used=99.0),
        replica("busy", used=6, last_used=97.0, in_flight=1),
        devices=(device(free=0),),
    )

    fit = fits(asked(held, once_idle=True))

    assert ([v.model for v in fit.evict], [v.model for v in fit.once_idle]) == (["idle"], ["busy"])
    assert fit.victims == ("idle", "busy")
    assert (fit.spare_mb, fit.tier, fit.price) == (2, 0, 0.75)
    assert isinstance(asked(held), NoFit)


def test_of_two_devices_the_cheaper_to_clear_is_taken() -> None:
    """Then the one with more room afterwards, then the lower number."""

    def two(first: float, second: float, more: int = 0, rules: Rules | None = None) -> Fit:
        held = node(
            "n",
            replica("a", used=10, last_used=first),
            replica("b", used=10 + more, last_used=second, devices=(1,)),
            devices=(device(0, free=0), device(1, free=0)),
        )
        ranks = (Profile(id="a", priority=2), Profile(id="b", priority=1))
        return fits(asked(held, NEW, *ranks, rules=rules))

    assert two(50.0, 40.0).devices == (1,)
    assert two(50.0, 50.0, more=1) == two(50.0, 50.0, more=1)
    assert (two(50.0, 50.0, more=1).devices, two(50.0, 50.0, more=1).spare_mb) == ((1,), 1)
    assert two(50.0, 50.0).devices == (0,)
    assert two(40.0, 50.0, rules=Rules(strategy=Priority())).devices == (1,)
    assert two(40.0, 50.0, rules=Rules(strategy=Priority())).tier == 1


def test_a_victim_gives_back_on_the_devices_it_is_on() -> None:
    """What it holds elsewhere is no help."""
    wide = node(
        "n",
        replica("wide", used=21, devices=(0, 1)),
        replica("other", used=24, devices=(2,), in_flight=1),
        devices=(device(0, free=0), device(1, free=0), device(2, free=9)),
    )

    assert fits(asked(wide, replace(NEW, size_mb=11))).devices == (0,)
    assert isinstance(asked(wide, replace(NEW, size_mb=12)), NoFit)
    assert fits(asked(wide, replace(NEW, size_mb=22, min_devices=2))).victims == ("wide",)


def test_a_victim_of_unknown_size_is_known_by_the_catalogue_or_no_help() -> None:
    """Nothing is counted on that nobody said."""
    vague = node("n", replica("held", used=None), devices=(device(free=4),))

    assert isinstance(asked(vague), NoFit)
    assert fits(asked(vague, NEW, Profile(id="held", size_mb=7))).spare_mb == 1


def test_a_model_does_not_stand_in_its_own_way() -> None:
    """Neither as a neighbour to keep away from nor as somebody who has to leave."""
    again = full("new", free=10)

    assert fits(asked(again, replace(NEW, apart_from=("new",)))) == Fit(devices=(0,), spare_mb=0)


@pytest.mark.parametrize("status", list(Status))
def test_co_residency_counts_for_whoever_holds_memory(status: Status) -> None:
    """Loading, loaded, leaving or recovering: the loaded may leave, the others not."""
    shy = replace(NEW, apart_from=("held",))
    answer = asked(node("n", replica("held", status, used=1)), shy)

    if status is Status.LOADED:
        assert fits(answer).victims == ("held",)
    elif status in {Status.LOADING, Status.UNLOADING, Status.RECOVERING}:
        assert isinstance(answer, NoFit)
    else:
        assert fits(answer).victims == ()


def test_with_more_sets_of_devices_than_are_compared_none_that_fits_is_missed() -> None:
    """16 devices, 8 wanted: 12,870 sets; only the last ones have, or can be given, the room."""
    wide = replace(NEW, size_mb=80, min_devices=8)
    held = [replica(f"m{i}", used=10, devices=(i,)) for i in range(8, 16)]
    stuck = [replica(f"m{i}", used=10, devices=(i,), in_flight=1) for i in range(8)]
    devices = tuple(device(i, free=0) for i in range(16))
    roomy = tuple(device(i, free=20 if i > 7 else 0) for i in range(16))

    assert MAX_DEVICE_SETS < 12_870
    assert fits(asked(node("n", devices=roomy), wide)).devices == tuple(range(8, 16))
    cleared = fits(asked(node("n", *stuck, *held, devices=devices), wide))
    assert cleared.devices == tuple(range(8, 16))
    assert len(cleared.evict) == 8


def test_a_fit_without_an_eviction_comes_first_whatever_an_eviction_would_spare() -> None:
    """Nobody is disturbed for a little more room."""
    two = node(
        "n", replica("a", used=24, devices=(0,)), devices=(device(0, free=0), device(1, free=10))
    )

    assert fits(asked(two)) == Fit(devices=(1,), spare_mb=0)


def test_promised_memory_is_not_room_also_while_clearing() -> None:
    """Free less promised, never less than nothing."""
    held = replica("a", used=10)
    promised = Device(index=0, total_mb=24, free_mb=4, reserved_mb=4)

    assert fits(asked(node("n", held, devices=(promised,)))).spare_mb == 0
    more = replace(promised, reserved_mb=9)
    assert fits(asked(node("n", held, devices=(more,)))).spare_mb == 0


def test_the_price_of_a_larger_model_is_never_less() -> None:
    """Each MiB more can only cost more."""
    ages = {"a": 10.0, "b": 60.0, "c": 90.0}
    held = [replica(name, used=8, last_used=at) for name, at in ages.items()]
    machine = node("n", *held, devices=(device(free=0),))
    prices = [fits(asked(machine, replace(NEW, size_mb=mb))).price for mb in range(1, 25)]

    assert all(small <= large for small, large in pairwise(prices))
    assert len(set(prices)) == 3
