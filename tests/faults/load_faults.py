"""Engines that fail while they load, or will not go."""

import time

from tests.chaos.outcomes import Kind, Outcome, refused
from tests.chaos.stage import Misbehaved
from tests.fake_nvml.gpus import RTX_3090
from tests.faults.scenario import NO_ROOM, Measured, Part, Scenario, expect
from tests.faults.stage import CLAIM_MB, Stage, outcome_of
from tests.fleet.conversations import ask, row
from tests.fleet.processes import eventually


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
    expect("the load", outcome_of(answer), Outcome(kind=Kind.REFUSED, status=409, code=NO_ROOM))
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


START_FAILED = refused(503, "engine_start_failed")


LOAD_SCENARIOS: tuple[Scenario, ...] = (
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
)
