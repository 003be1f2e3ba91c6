"""Small fleets and days for simulations."""

import random
from collections.abc import Sequence

from cortex_router import Profile
from cortex_router.affinity import session_key
from cortex_router.simulation import (
    Arrival,
    Contender,
    Fault,
    Fleet,
    Machine,
    Model,
    Results,
    Turn,
    simulate,
)

SYSTEM_PROMPT = "You are a careful engineer. " * 1_463  # 40 kB
SYSTEM_TOKENS = 10_000
SESSIONS, TURNS = 24, 6


def machine(name: str = "a", *, speed: float = 1.0, seats: int = 1, **others: object) -> Machine:
    """A node that reads 100 and writes 10 tokens a second; its disk gives 1,000 MiB a second."""
    values: dict[str, object] = {
        "name": name,
        "devices_mb": (10_000,),
        "prefill_tok_s": 100.0 * speed,
        "decode_tok_s": 10.0 * speed,
        "seats": seats,
        **others,
    }
    return Machine(**values)  # type: ignore[arg-type]


def model(name: str = "m", size_mb: int = 6_000) -> Model:
    """A model that takes 2 s and a second for each 1,000 MiB to load: 8 s."""
    return Model(profile=Profile(id=name, size_mb=size_mb))


def fleet(
    *machines: Machine, models: Sequence[Model] = (), faults: Sequence[Fault] = (), **limits: float
) -> Fleet:
    """Return these machines with the model `m`, or these models."""
    return Fleet(
        machines=machines,
        models=tuple(models) or (model(),),
        faults=tuple(faults),
        **limits,  # type: ignore[arg-type]
    )


def ask(at: float, name: str = "m", *, session: str | None = None, prompt: int = 100) -> Arrival:
    """Return a request that one seat reads in 1 s and answers in 2 s."""
    return Arrival(at=at, model=name, prompt_tokens=prompt, completion_tokens=20, session=session)


def run(what: Fleet, *arrivals: Arrival, contender: Contender | None = None) -> Results:
    """Return what happens, by default under the default policy."""
    return simulate(what, arrivals, contender or Contender(name="default"))


def body(session: int, number: int) -> dict[str, object]:
    """Return what a client without a key sends: all of the conversation so far."""
    said = [{"role": "user", "content": f"task {session}"}]
    for turn in range(number):
        said += [
            {"role": "assistant", "content": f"answer {turn}"},
            {"role": "user", "content": f"and then {turn}"},
        ]
    return {"model": "m", "messages": [{"role": "system", "content": SYSTEM_PROMPT}, *said]}


def agents(concurrency: int, *, in_turns: bool, seed: int) -> list[Arrival]:
    """Return 24 conversations of 6 turns which begin with the same 10,000 tokens (40 kB).

    So many run at once, each going on when it is answered; or, `in_turns`, every conversation has
    its first turn before any has its second, so many at the same moment.
    """
    draw = random.Random(seed)

    def turn(number: int, session: int, at: float, then: tuple[Turn, ...] = ()) -> Arrival:
        return Arrival(
            at=at,
            model="m",
            prompt_tokens=SYSTEM_TOKENS + 600 * (number + 1),
            completion_tokens=draw.randrange(50, 150),
            session=session_key({}, body(session, number)),
            shared_tokens=SYSTEM_TOKENS,
            then=then,
        )

    if in_turns:
        order = [
            (number, session)
            for number in range(TURNS)
            for session in draw.sample(range(SESSIONS), SESSIONS)
        ]
        return [
            turn(number, session, 100.0 + 10.0 * (place // concurrency))
            for place, (number, session) in enumerate(order)
        ]
    begun, gap_secs = [], 50.0 if concurrency == 1 else 200.0
    for session in range(SESSIONS):
        rest = tuple(
            Turn(
                draw.expovariate(2.0),
                SYSTEM_TOKENS + 600 * (number + 1),
                draw.randrange(50, 150),
            )
            for number in range(1, TURNS)
        )
        begun.append(turn(0, session, 100.0 + gap_secs * (session // concurrency), rest))
    return begun


def agents_on(
    speeds: Sequence[float], concurrency: int, *, in_turns: bool, seats: int = 4, seed: int = 1
) -> Results:
    """Return how the agents' day goes on nodes of these speeds, all of which have the model.

    Before it, one short request to each tells how fast the nodes are.
    """
    nodes = [
        Machine(
            name=f"node-{number}",
            devices_mb=(24_000,),
            prefill_tok_s=2_000.0 * speed,
            decode_tok_s=30.0 * speed,
            seats=seats,
            default_models=("m",),
        )
        for number, speed in enumerate(speeds)
    ]
    first = [
        Arrival(at=50.0, model="m", prompt_tokens=1, completion_tokens=1) for _ in range(len(nodes))
    ]
    day = agents(concurrency, in_turns=in_turns, seed=seed)
    return run(fleet(*nodes), *first, *day)
