"""Every fault of an engine, a GPU or the node: how it is made, and what has to come of it."""

import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum

import psutil

from tests.chaos.outcomes import SERVED, Outcome, event, refused
from tests.chaos.stage import Misbehaved
from tests.fake_nvml.gpus import RTX_3090
from tests.faults.stage import (
    CLAIM_MB,
    HANG_SECS,
    Stage,
    fire,
    outcome_of,
    start_node,
    under_way,
)
from tests.fleet.conversations import Talk, ask, row, status
from tests.fleet.processes import eventually


class Part(Enum):
    """What fails; one table each."""

    ANSWER = "An engine that answers"
    LOAD = "An engine that loads"
    DEVICE = "GPUs and their driver"
    NODE = "The node"


@dataclass(slots=True)
class Measured:
    """Seconds that a run took, by what they were spent on."""

    secs: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(f"{name} {secs:.2f} s" for name, secs in self.secs.items()) or "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row. `run` raises when anything else than `got` happens, and says how long it took.

    Those that are not `fast` are left out of the test suite.
    """

    name: str
    how: str
    part: Part
    got: Mapping[str, str]
    run: Callable[[Stage, Measured], None]
    fast: bool = True


def expect(what: str, heard: object, wanted: object) -> None:
    """Raise Misbehaved unless that was heard."""
    if heard != wanted:
        raise Misbehaved(f"{what}: {heard} instead of {wanted}")


LOST = (refused(503, "upstream_unreachable"), event("upstream_unreachable"))


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


def load_fails(
    name: str, how: str, wanted: Outcome, within: float = 3.0, **script: object
) -> Scenario:
    """A load that comes to nothing."""

    def run(stage: Stage, measured: Measured) -> None:
        began = time.monotonic()
        _, answer = stage.load(**script)
        measured.secs["told after"] = took = time.monotonic() - began
        expect("the load", outcome_of(answer), wanted)
        if took > within:
            raise Misbehaved(f"it took {took:.1f} s")
        expect("engines", stage.engines(), [])
        other = stage.loaded()
        expect("another model", ask(stage.node, other).status_code, 200)

    return Scenario(
        name=name,
        how=how,
        part=Part.LOAD,
        got={"the load": str(wanted), "afterwards": "nothing is held; others load"},
        run=run,
    )


def _out_of_memory(stage: Stage, measured: Measured) -> None:
    keeper = stage.loaded()
    began = time.monotonic()
    _, answer = stage.load(load="oom")
    measured.secs["told after"] = time.monotonic() - began
    expect("the load", outcome_of(answer), Outcome(kind=REFUSED_KIND, status=409, code=NO_ROOM))
    facts = answer.json()["error"]
    expect("the reason", facts["reason"], "out_of_memory")
    expect("who could leave", facts["evictable"], [keeper])
    (device,) = facts["per_device"]
    expect("the total", device["total_mb"], RTX_3090["total"])
    expect("what is held", device["held_mb"], CLAIM_MB)
    expect("the neighbour", ask(stage.node, keeper).status_code, 200)


def _slow_load(stage: Stage, measured: Measured) -> None:
    model, answer = stage.load(load_secs=3.0, wait=False)
    expect("at first", (answer.status_code, answer.json()["status"]), (202, "loading"))
    began = time.monotonic()
    shares = set[float]()
    reserved = set[int]()

    def is_up() -> bool:
        found = row(stage.node, model) or {}
        shares.add((found.get("progress") or {}).get("share") or 0.0)
        reserved.add(stage.device(0)["vram_reserved_mb"])
        return found.get("status") == "loaded"

    eventually(is_up, within=6, every=0.05)
    measured.secs["up after"] = time.monotonic() - began
    if len(shares) < 3:
        raise Misbehaved(f"progress was only ever {shares}")
    if not any(0 < mb < CLAIM_MB for mb in reserved):
        raise Misbehaved(f"what was promised never shrank as it was taken: {reserved}")


def _given_up_load(stage: Stage, measured: Measured) -> None:
    model, _ = stage.load(load_secs=20.0, wait=False)
    eventually(lambda: stage.engines() != [])
    measured.secs["gone after"] = stage.unload(model)
    expect("engines", stage.engines(), [])


def _ignores_sigterm(stage: Stage, measured: Measured) -> None:
    model = stage.loaded(ignores_sigterm=True)
    measured.secs["gone after"] = took = stage.unload(model)
    expect("engines", stage.engines(), [])
    if took > 2:
        raise Misbehaved(f"it took {took:.1f} s")


def _stranger(stage: Stage, measured: Measured) -> None:
    stage.gpus.set(**{"gpu0.used": 22000})
    began = time.monotonic()
    _, answer = stage.load()
    strangers = stage.device(0)["vram_foreign_mb"]
    stage.gpus.set(**{"gpu0.used": RTX_3090["used"]})
    measured.secs["told after"] = time.monotonic() - began
    facts = answer.json()["error"]
    expect("the load", (answer.status_code, facts["code"]), (409, NO_ROOM))
    expect("what is free", facts["free_mb"], 24576 - 22000)
    expect("the strangers'", strangers, 22000)


def _stranger_is_faster(stage: Stage, measured: Measured) -> None:
    victim = stage.loaded(claim_mb=20000, ignores_sigterm=True)

    def grab() -> None:
        eventually(lambda: status(stage.node, victim) == "unloading")
        stage.gpus.set(**{"gpu0.used": 21000})

    began = time.monotonic()
    model = "newcomer"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stage.ask_load, model, evict=(victim,), claim_mb=20000, wait=False)
        grab()
    eventually(lambda: stage.node.events("memory.not_back"), within=10)
    measured.secs["refused after"] = time.monotonic() - began
    expect("engines", stage.engines(), [])
    eventually(lambda: row(stage.node, model) is None)
    stage.gpus.set(**{"gpu0.used": RTX_3090["used"]})


def _xid(stage: Stage, measured: Measured) -> None:
    model, other = stage.loaded(devices=[0]), stage.loaded(devices=[1])
    began = time.monotonic()
    whole, streamed, began = under_way(stage, model, lambda: stage.gpus.add("gpu0.xid=79"))
    measured.secs["ended after"] = time.monotonic() - began
    expect("whole", whole, LOST[0])
    expect("streamed", streamed, LOST[1])
    eventually(lambda: status(stage.node, model) == "failed")
    expect("afterwards", outcome_of(ask(stage.node, model)), refused(503, "service_unavailable"))
    expect("the other GPU", ask(stage.node, other).status_code, 200)
    expect("a load there", stage.load(devices=[0])[1].status_code, 409)
    expect("the fault", stage.device(0)["fault"], "XID 79: the GPU has fallen off the bus")


def _application_xid(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    before = stage.engine().pid
    stage.gpus.add("gpu0.xid=31")
    eventually(lambda: [one for one in stage.node.events("device.xid") if one["xid"] == 31])
    expect("the answer", ask(stage.node, model).status_code, 200)
    expect("the engine", stage.engine().pid, before)


def _lost(stage: Stage, measured: Measured) -> None:
    model, other = stage.loaded(devices=[1]), stage.loaded(devices=[0])
    began = time.monotonic()
    whole, streamed, began = under_way(stage, model, lambda: stage.gpus.set(**{"gpu1.error": 15}))
    measured.secs["ended after"] = time.monotonic() - began
    expect("whole", whole, LOST[0])
    expect("streamed", streamed, LOST[1])
    eventually(lambda: status(stage.node, model) == "failed")
    expect("the other GPU", ask(stage.node, other).status_code, 200)
    expect("a load meanwhile", stage.load(devices=[1])[1].status_code, 409)
    stage.gpus.set(**{"gpu1.error": None})
    began = time.monotonic()
    eventually(lambda: "fault" not in stage.device(1))
    again = stage.ask_load(model, devices=[1])
    measured.secs["loaded again after"] = time.monotonic() - began
    expect("once it is back", again.status_code, 200)


def _nvml_hangs(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    stage.gpus.set(delay_ms=1500)
    try:
        eventually(lambda: "fault" in stage.device(0), within=15)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            stage.device(0)
            slowest = max(slowest, time.monotonic() - began)
        measured.secs["slowest control route"] = slowest
        expect("the answer", ask(stage.node, model).status_code, 200)
        expect("a load", stage.load()[1].status_code, 409)
    finally:
        stage.gpus.set(delay_ms=None)
    eventually(lambda: "fault" not in stage.device(0), within=30)
    stage.loaded()


def _broken_driver(stage: Stage, measured: Measured) -> None:
    for error, word in ((18, "different versions"), (9, ""), (12, ""), (999, "does not work")):
        stage.gpus.set(init_error=error)
        node = start_node(stage.bench, f"broken{error}")
        stage.gpus.set(init_error=None)
        said = node.http.get(f"{node.url}/discovery").json()
        expect("its devices", [one["kind"] for one in said["devices"]], ["cpu"])
        reason = said["cuda_unavailable_reason"]
        expect("a reason", reason is not None, bool(word))
        if word not in (reason or ""):
            raise Misbehaved(f"error {error}: {reason}")
        expect("its end", node.stop(), 0)


def _node_killed(stage: Stage, measured: Measured) -> None:
    model = stage.loaded()
    loading, _ = stage.load(load_secs=20.0, wait=False)
    eventually(lambda: len(stage.engines()) == 2)
    engines = stage.engines()
    talk = Talk(stage.node, model, text="Tell a story.", max_tokens=400)
    talk.under_way()
    began = time.monotonic()
    stage.node.kill()
    told = talk.end()
    _, alive = psutil.wait_procs(engines, timeout=5)
    measured.secs["engines gone after"] = time.monotonic() - began
    expect("engines that are left", alive, [])
    expect("the stream", (told.done, talk.broken is not None), (False, True))
    stage.node.start()
    expect("memory", stage.device(0)["vram_used_mb"], RTX_3090["used"])
    expect("the load", stage.ask_load(model).status_code, 200)
    measured.secs["served again after"] = stage.served_again(model, began, 10)
    del loading
    stage.sockets = psutil.Process(stage.node.pid).num_fds()


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


REFUSED_KIND = refused(409, "").kind
NO_ROOM = "insufficient_vram"
START_FAILED = refused(503, "engine_start_failed")

SCENARIOS: tuple[Scenario, ...] = (
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
    Scenario(
        name="out of memory at load",
        how="CUDA has no more, though it was reckoned to fit",
        part=Part.LOAD,
        got={
            "the load": "409 `insufficient_vram`, with the arithmetic of each device",
            "afterwards": "nothing is held; its neighbours serve on",
        },
        run=_out_of_memory,
    ),
    load_fails(
        "segmentation fault at load", "the engine reads at address 0", START_FAILED, load="segfault"
    ),
    load_fails("refused by the engine", "it says that it cannot", START_FAILED, load="told"),
    load_fails(
        "never ready",
        "it loads for ever; `start_timeout_secs` (1 s here) ends it",
        START_FAILED,
        load="never",
        start_timeout_secs=1,
    ),
    Scenario(
        name="slow load",
        how="three seconds, asked for without `wait`",
        part=Part.LOAD,
        got={
            "the load": "202, and its row says how far it is",
            "afterwards": "what is promised shrinks as it is taken",
        },
        run=_slow_load,
    ),
    Scenario(
        name="load given up",
        how="unloaded in the middle of its load",
        part=Part.LOAD,
        got={"the load": "ended at once", "afterwards": "nothing is held"},
        run=_given_up_load,
    ),
    Scenario(
        name="deaf to SIGTERM",
        how="an engine that ignores it is unloaded; `unload` (1 s here) ends it",
        part=Part.LOAD,
        got={"the load": "–", "afterwards": "killed; nothing is held"},
        run=_ignores_sigterm,
    ),
    Scenario(
        name="a stranger's memory",
        how="another program fills a GPU",
        part=Part.DEVICE,
        got={"clients": "a load there: 409 `insufficient_vram`; its memory is shown as foreign"},
        run=_stranger,
    ),
    Scenario(
        name="a stranger is faster",
        how="another program takes what was unloaded for a load",
        part=Part.DEVICE,
        got={"clients": "the load: 409 `insufficient_vram`; its engine is never started"},
        run=_stranger_is_faster,
        fast=False,
    ),
    Scenario(
        name="XID 31",
        how="the driver reports a process's page fault",
        part=Part.DEVICE,
        got={"clients": "nothing: it is logged, and whose it was finds out"},
        run=_application_xid,
    ),
    Scenario(
        name="lost",
        how="NVML says that a GPU is lost, and later that it is back",
        part=Part.DEVICE,
        got={
            "clients": "its answers: 503 and error event within 3 s; no load on it meanwhile; "
            "the other GPU serves on"
        },
        run=_lost,
    ),
    Scenario(
        name="NVML hangs",
        how="each of its calls takes 1.5 s",
        part=Part.DEVICE,
        got={"clients": "answers and control routes as ever; a load: 409; all is well afterwards"},
        run=_nvml_hangs,
        fast=False,
    ),
    Scenario(
        name="driver broken or missing",
        how="NVML cannot start: library and kernel differ, no driver, no library, unknown",
        part=Part.DEVICE,
        got={"clients": "the node is up and serves from its CPU; `/discovery` says why"},
        run=_broken_driver,
    ),
    Scenario(
        name="node killed",
        how="SIGKILL while one model answers and another loads",
        part=Part.NODE,
        got={
            "clients": "a broken connection (503 or an error event through a gateway)",
            "afterwards": "no engine and no memory is left; it loads and serves when started again",
        },
        run=_node_killed,
    ),
    # Last: the device stays out of use for as long as the node lives.
    Scenario(
        name="XID 79",
        how="the driver reports that a GPU has fallen off the bus",
        part=Part.DEVICE,
        got={
            "clients": "its answers: 503 and error event at once; its models `failed`, no load on "
            "it until the node is started again; the other GPU serves on"
        },
        run=_xid,
    ),
)
