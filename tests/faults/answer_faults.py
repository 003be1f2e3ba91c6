"""Engines that fail while they answer, and some that only look like it."""

import signal
import time
from collections.abc import Callable

from tests.chaos.outcomes import SERVED, Outcome, refused
from tests.chaos.stage import Misbehaved
from tests.faults.scenario import LOST, Measured, Part, Scenario, expect
from tests.faults.stage import HANG_SECS, Stage, fire, outcome_of, under_way
from tests.fleet.conversations import Talk, ask, status
from tests.fleet.processes import eventually


def while_it_answers(
    name: str,
    how: str,
    act: Callable[[Stage, str], object],
    *,
    ends: tuple[Outcome, Outcome] = LOST,
    fault: str = "crashed",
    within: float = 2.0,
) -> Scenario:
    """A fault in the middle of answers, after which the engine is started again."""

    def run(stage: Stage, measured: Measured) -> None:
        model = stage.loaded()
        whole, streamed, began = under_way(stage, model, lambda: act(stage, model))
        measured.secs["ended after"] = time.monotonic() - began
        expect("whole", whole, ends[0])
        expect("streamed", streamed, ends[1])
        measured.secs["served again after"] = stage.served_again(model, began, within)
        (crash,) = [one for one in stage.node.events("engine.crashed") if one["model"] == model]
        expect("the log", crash["fault"], fault)

    return Scenario(
        name=name,
        how=how,
        part=Part.ANSWER,
        got={
            "whole": str(ends[0]),
            "streamed": str(ends[1]),
            "served again": f"within {within:g} s",
        },
        run=run,
    )


def it_goes_on(name: str, how: str, trigger: str) -> Scenario:
    """What looks like a fault and is none: everybody is answered, and the engine is the same."""

    def run(stage: Stage, measured: Measured) -> None:
        model = stage.loaded()
        before = stage.engine().pid
        began = time.monotonic()
        own = ask(stage.node, model, text=trigger)
        measured.secs["answered after"] = time.monotonic() - began
        expect("its own answer", outcome_of(own), SERVED)
        expect("the engine", stage.engine().pid, before)

    return Scenario(
        name=name,
        how=how,
        part=Part.ANSWER,
        got={"whole": str(SERVED), "streamed": str(SERVED), "served again": "all along"},
        run=run,
        fast=False,
    )


def _kill(stage: Stage, _: str) -> None:
    stage.engine().kill()


def _freeze(stage: Stage, _: str) -> None:
    stage.engine().send_signal(signal.SIGSTOP)


def _prompt(word: str) -> Callable[[Stage, str], None]:
    return lambda stage, model: fire(stage, model, word)


def _survived_memory(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    before = stage.engine().pid
    heard = Talk(stage.node, model, text="oom-lives").end()
    expect("its error events", len(heard.errors()), 1)
    expect("whole", ask(stage.node, model, text="oom-lives").status_code, 502)
    measured.secs["served again after"] = stage.served_again(model, time.monotonic(), 1.0)
    expect("the engine", stage.engine().pid, before)


def _crashes_on_and_on(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    began = time.monotonic()
    for crash in range(1, 6):
        eventually(lambda: status(stage.node, model) == "loaded", within=25)
        stage.engine().kill()
        wanted = "failed" if crash == 5 else "recovering"
        eventually(lambda wanted=wanted: status(stage.node, model) == wanted)  # type: ignore[misc]
    measured.secs["given up after"] = time.monotonic() - began
    expect("the answer", outcome_of(ask(stage.node, model)), refused(503, "service_unavailable"))
    expect("engines", stage.engines(), [])
    expect("memory", stage.device(0)["vram_reserved_mb"], 0)


def _flood(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    before = stage.node.log_path.stat().st_size
    talk = Talk(stage.node, model, text="flood")
    slowest, began = 0.0, time.monotonic()
    while time.monotonic() - began < 1.0:
        asked = time.monotonic()
        stage.device(0)
        slowest = max(slowest, time.monotonic() - asked)
    told = talk.end()
    measured.secs["slowest control route"] = slowest
    expect("the answer", told.done, True)
    written = stage.node.log_path.stat().st_size - before
    if written > 200_000:
        raise Misbehaved(f"the log grew by {written} bytes")


ANSWER_SCENARIOS: tuple[Scenario, ...] = (
    while_it_answers("segmentation fault", "the engine reads at address 0", _prompt("segfault")),
    while_it_answers("abort", "an assertion of a library fails", _prompt("abort")),
    while_it_answers("exit", "the engine ends with status 3", _prompt("exit")),
    while_it_answers("killed", "SIGKILL, as the kernel does when memory runs out", _kill),
    while_it_answers(
        "out of memory",
        "CUDA has no more; the engine ends",
        _prompt("oom-dies"),
        fault="out_of_memory",
    ),
    while_it_answers(
        "CUDA fails",
        "an illegal memory access; the engine says so on stderr and would hang on",
        _prompt("poison"),
        fault="device_fault",
    ),
    while_it_answers(
        "frozen",
        f"SIGSTOP; `hang` ({HANG_SECS:g} s here) ends the wait",
        _freeze,
        fault="hung",
        within=HANG_SECS + 6,
    ),
    while_it_answers(
        "deadlock",
        "every thread waits for a lock; `hang` ends the wait",
        _prompt("deadlock"),
        fault="hung",
        within=HANG_SECS + 6,
    ),
    while_it_answers(
        "stuck inside",
        "it generates nothing any more, and its health says so",
        _prompt("stuck"),
        fault="hung",
        within=HANG_SECS + 6,
    ),
    it_goes_on(
        "a long prefill",
        "four times `hang` without a token, the processor busy",
        f"prefill {4 * HANG_SECS}",
    ),
    it_goes_on(
        "a long prefill on the GPU",
        "four times `hang` without a token, the processor idle",
        f"gpu-prefill {4 * HANG_SECS}",
    ),
    Scenario(
        name="out of memory, survived",
        how="CUDA has no more; the engine fails that request and lives on",
        part=Part.ANSWER,
        got={
            "whole": "502, of that request alone",
            "streamed": "error event, of that request alone",
            "served again": "all along",
        },
        run=_survived_memory,
    ),
    Scenario(
        name="flood on stderr",
        how="20 MB of warnings in the middle of an answer",
        part=Part.ANSWER,
        got={
            "whole": str(SERVED),
            "streamed": str(SERVED),
            "served again": "all along; the log grows by less than 200 kB",
        },
        run=_flood,
    ),
    Scenario(
        name="crashes on and on",
        how="killed five times within ten minutes",
        part=Part.ANSWER,
        got={
            "whole": str(refused(503, "service_unavailable")),
            "streamed": str(refused(503, "service_unavailable")),
            "served again": "not by itself: the model is `failed`, its memory free",
        },
        run=_crashes_on_and_on,
        fast=False,
    ),
)
