"""Every rule of choosing among ready replicas, each with a fleet small enough to see."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from cortex_router import (
    Candidate,
    Event,
    FleetView,
    Node,
    Policy,
    Refuse,
    Replica,
    RequestEnded,
    RequestSent,
    RouteRequest,
    Serve,
    Serving,
    decide,
)
from tests.libs.cortex_router.fleets import fleet, node, replica
from tests.libs.cortex_router.strategies import played

NOW = 100.0


def two(a: Replica | None = None, b: Replica | None = None) -> FleetView:
    """Two nodes with the model m."""
    return fleet(node("a", a or replica("m")), node("b", b or replica("m")))


def sent(to: str, session: str | None = None, *, times: int = 1, tokens: int = 0) -> list[Event]:
    """Requests to a node that do not end."""
    event = RequestSent(node=to, model="m", at=NOW, session=session, tokens=tokens)
    return [event] * times


def broken(name: str) -> list[Event]:
    """Failures enough to open a circuit."""
    return [RequestEnded(node=name, model="m", at=NOW, failed=True)] * 3


def served(
    view: FleetView,
    session: str | None = None,
    *,
    serving: Serving | None = None,
    tokens: int = 0,
    now: float = NOW,
    avoid: tuple[str, ...] = (),
    only: str | None = None,
) -> tuple[str, str]:
    """The node, and why."""
    request = RouteRequest(
        model="m", session=session, tokens=tokens, avoid=frozenset(avoid), node=only
    )
    decision = decide(view, request, Policy(serving=serving or Serving()), now)
    assert isinstance(decision, Serve)
    return decision.node, decision.reason


def test_a_conversation_stays_where_its_cache_is() -> None:
    """Although the other node has nobody."""
    view = played(sent("b", "s"), two())

    assert served(view, "s") == ("b", "session")
    assert served(view, "another") == ("a", "loaded")


def test_a_conversation_whose_home_is_first_anyway_is_at_home() -> None:
    """The reason says so."""
    assert served(played(sent("a", "s"), fleet(node("a", replica("m")))), "s") == ("a", "session")


def test_without_affinity_nobody_is_at_home_anywhere() -> None:
    """The operator can switch it off."""
    view = played(sent("b", "s"), two())

    assert served(view, "s", serving=Serving(affinity=False)) == ("a", "loaded")


@pytest.mark.parametrize(("tokens", "node_name"), [(10_000, "b"), (10, "a")])
def test_it_moves_when_the_wait_is_longer_than_reading_it_again(
    tokens: int, node_name: str
) -> None:
    """A queue of 6 at 4 seats is 12.8 s (an answer 8.5 s), 10,000 tokens take 50 s to read."""
    slow = replace(replica("m"), tok_s_prefill=200.0, tok_s_decode=30.0)
    history = sent("b", "s", tokens=tokens) + sent("b", times=8)

    assert served(played(history, two(slow, slow)), "s", tokens=tokens)[0] == node_name


def test_only_what_both_know_is_saved_by_staying() -> None:
    """A short request in a long conversation has little to read again."""
    slow = replace(replica("m"), tok_s_prefill=200.0)
    view = played(sent("b", "s", tokens=10_000) + sent("b", times=8), two(slow, slow))

    assert served(view, "s", tokens=10) == ("a", "loaded")
    assert served(view, "s", tokens=0) == ("b", "session")


@pytest.mark.parametrize(("ahead", "node_name"), [(0, "b"), (6, "b"), (7, "a")])
def test_one_answer_of_waiting_is_not_worth_moving(ahead: int, node_name: str) -> None:
    """An answer takes 2.56 s: with nothing to read again, so long a queue at home is borne."""
    quick = replace(replica("m"), tok_s_decode=100.0)
    view = played(sent("b", "s") + sent("b", times=ahead), two(quick, quick))

    assert served(view, "s")[0] == node_name


def test_a_home_that_must_not_be_asked_is_left() -> None:
    """Avoided, asked for elsewhere, its circuit open, or gone."""
    view = played(sent("b", "s"), two())

    assert served(view, "s", avoid=("b",)) == ("a", "loaded")
    assert served(view, "s", only="a") == ("a", "loaded")
    assert served(played(broken("b"), view), "s") == ("a", "loaded")
    gone = fleet(node("a", replica("m")))
    assert served(gone._replace(sessions=view.sessions), "s") == ("a", "loaded")
    empty = fleet(node("a", replica("m")), node("b"))
    assert served(empty._replace(sessions=view.sessions), "s") == ("a", "loaded")


def test_a_free_seat_goes_before_a_queue() -> None:
    """Even on a slow node with more conversations."""
    fast = replace(replica("m", in_flight=4), tok_s_decode=1000.0)
    slow = replace(replica("m", in_flight=3), tok_s_decode=1.0)

    assert served(two(fast, slow)) == ("b", "loaded")


def test_among_queues_the_shortest_wait_is_asked() -> None:
    """Eight in a queue at ten times the speed are gone before two."""
    fast = replace(replica("m", in_flight=12), tok_s_decode=300.0)
    slow = replace(replica("m", in_flight=6), tok_s_decode=30.0)

    assert served(two(slow, fast)) == ("b", "loaded")


def test_conversations_count_while_nobody_is_in_flight() -> None:
    """New conversations go to the node that fewer call home."""
    view = two()
    for session in ("s1", "s2"):
        name, _ = served(view, session)
        view = played([*sent(name, session), RequestEnded(node=name, model="m", at=NOW)], view)

    assert {home.node for s in ("s1", "s2") if (home := view.sessions.home("m", s))} == {"a", "b"}


def test_a_replica_just_loaded_gets_its_share_of_what_it_will_get() -> None:
    """Half its warm-up over, half its seats; the rest go elsewhere, then it is like any other."""
    fresh, worn = replica("m", loaded_at=NOW), replace(replica("m"), tok_s_decode=1.0)
    view = played(sent("a", times=2), two(fresh, worn))

    assert served(view, now=NOW + 4.0) == ("b", "loaded")
    assert served(view, now=NOW + 7.5) == ("a", "loaded")
    assert served(view, now=NOW + 10.0) == ("a", "loaded")
    assert served(view, now=NOW, serving=Serving(warm_up_secs=0.0)) == ("a", "loaded")
    assert served(view, now=NOW - 1.0) == ("a", "loaded")


def test_a_replica_just_loaded_gets_one_at_once() -> None:
    """Somebody has to warm it up; one seat is never spared."""
    fresh, worn = replica("m", loaded_at=NOW), replace(replica("m"), tok_s_decode=1.0)
    single = replica("m", loaded_at=NOW, ceiling=1, in_flight=1)

    assert served(two(fresh, worn)) == ("a", "loaded")
    assert served(two(single, replica("m", in_flight=8))) == ("a", "loaded")


def test_a_circuit_that_is_open_is_passed_over() -> None:
    """Until its pause is over: then one request tries."""
    view = played(broken("a"), two(b=replica("m", in_flight=3)))

    assert served(view) == ("b", "loaded")
    assert served(view, now=NOW + 5.0) == ("a", "loaded")


def test_rather_than_nobody_the_last_resort_is_asked() -> None:
    """Somebody still warming up before somebody who fails."""
    fresh = replica("m", loaded_at=NOW, in_flight=4)

    assert served(played(broken("a") + broken("b"), two())) == ("a", "last_resort")
    assert served(played(broken("a"), two(b=fresh))) == ("b", "last_resort")
    assert served(two(replica("m", loaded_at=NOW, in_flight=8), fresh)) == ("b", "last_resort")


def test_a_request_for_one_node_stays_there() -> None:
    """And is not served by another."""
    assert served(two(), only="b") == ("b", "loaded")
    request = RouteRequest(model="m", node="nowhere")
    assert isinstance(decide(two(), request, Policy(), NOW), Refuse)


@pytest.mark.parametrize(("in_flight", "saturated"), [(7, False), (8, True)])
def test_everyone_is_saturated_with_two_for_every_seat(in_flight: int, saturated: bool) -> None:
    """Then another copy may be worth it."""
    busy = replica("m", in_flight=in_flight)
    decision = decide(two(busy, busy), RouteRequest(model="m"), Policy(), NOW)

    assert isinstance(decision, Serve)
    assert decision.saturated is saturated


@dataclass(frozen=True)
class Scores:
    """A ranking that looks its answers up, and remembers what it was shown."""

    by_node: Mapping[str, float]
    shown: dict[str, Candidate]

    def score(self, candidate: Candidate, request: RouteRequest, now: float) -> tuple[float, ...]:
        """Return the score of the node."""
        self.shown[candidate.node] = candidate
        return (self.by_node[candidate.node],)


def ranked(**scores: float) -> Serving:
    """A user's own ranking."""
    return Serving(ranking=Scores(scores, {}))


def test_a_ranking_of_ones_own_decides() -> None:
    """The lowest score, equals by name, whatever our own order says."""
    assert served(two(), serving=ranked(a=2.0, b=1.0)) == ("b", "loaded")
    assert served(two(replica("m", in_flight=4)), serving=ranked(a=1.0, b=1.0)) == ("a", "loaded")


def test_a_ranking_sees_what_we_see() -> None:
    """Load, conversations, and how much of this conversation is still known there."""
    serving = ranked(a=1.0, b=2.0)
    view = played(sent("b", "s", times=2, tokens=70) + sent("b", "t"), two())
    served(view, "s", serving=serving)

    assert isinstance(serving.ranking, Scores)
    a, b = serving.ranking.shown["a"], serving.ranking.shown["b"]
    assert (a.load, a.conversations, a.cached_tokens) == (0, 0, 0)
    assert (b.load, b.conversations, b.cached_tokens) == (3, 2, 70)


def test_a_ranking_is_not_asked_about_open_circuits_unless_there_is_nobody_else() -> None:
    """The breaker is not the ranking's business."""
    serving = ranked(a=1.0, b=2.0)

    assert served(played(broken("a"), two()), serving=serving) == ("b", "loaded")
    assert served(played(broken("a") + broken("b"), two()), serving=serving) == ("a", "last_resort")


def test_a_ranking_obeys_what_a_request_must_avoid() -> None:
    """And there is nobody when nobody is ready."""
    assert served(two(), serving=ranked(a=1.0, b=2.0), avoid=("a",)) == ("b", "loaded")
    nobody = Policy(serving=ranked())
    assert isinstance(
        decide(fleet(Node(name="a", healthy=True)), RouteRequest(model="m"), nobody, NOW), Refuse
    )
