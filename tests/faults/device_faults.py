"""GPUs, their driver and the node itself, failing under its models."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.chaos.outcomes import refused
from tests.chaos.stage import Misbehaved
from tests.fake_nvml.gpus import RTX_3090
from tests.faults.scenario import LOST, NO_ROOM, Measured, Part, Scenario, expect
from tests.faults.stage import Stage, outcome_of, start_node, under_way
from tests.fleet.conversations import Talk, ask, row, status
from tests.fleet.processes import eventually


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


DEVICE_SCENARIOS: tuple[Scenario, ...] = (
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
