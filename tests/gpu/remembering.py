"""Checks of memory: what was promised, what was taken, what came back, and what if it runs out."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from cortex_neuron.exllama.cache_modes import CACHE_MODES
from cortex_neuron.exllama.memory import CONTEXT_MIB
from tests.fleet.processes import eventually
from tests.gpu.child import child
from tests.gpu.machine import Peak, used_mb
from tests.gpu.stage import BOUND_MB, LOAD_SECS, OPTIONS, STREAMS, Stage
from tests.gpu.verdicts import Failed, NotApplicable, off, within

_MIB = 1 << 20
#: An estimate may be off by this part of what is allocated.
_TOLERANCE = 0.03
#: A promise of memory for the CUDA context may be this much too large.
_GENEROUS_MB = 384
_LONG_TOKENS = 1600


def oom_at_load(stage: Stage) -> str:
    """What does not fit is 409 with the arithmetic, reckoned or found out, and leaves nothing."""
    stage.unload()
    before = stage.back_to(stage.used())
    shape = stage.facts.layout.shape
    room = (stage.first.vram_total_mb or 0) * _MIB
    # Half as much again as the whole card has.
    tokens = room * 3 // 2 // (2 * shape.kv_elements_per_token)
    vast = {"context": 2048, "cache_tokens": tokens}
    reckoned = _refused(stage.load(vast))
    # Taken at its word, the node starts the engine, and CUDA says no.
    found_out = _refused(stage.load(vast, vram_mb=64))
    if found_out.get("reason") != "out_of_memory":
        raise Failed(f"the engine did not run out of memory: {found_out}")
    after = stage.back_to(before)
    stage.loaded()
    stage.sane(stage.neuron)
    return (
        f"reckoned: 409, {reckoned['needed_mb']} MiB needed, {reckoned['free_mb']} free; "
        f"found out by CUDA: 409; {before} MiB in use before, {after} after; then it served"
    )


def oom_midway(stage: Stage) -> str:
    """Long prompts while a stranger holds all that is free: answered, or 503 and well again."""
    stage.loaded()
    words = "sea" + " sea" * _LONG_TOKENS
    with child("tests.gpu.hog", [stage.first]) as hog:
        held = hog.ask({})["held_mb"]
        with ThreadPoolExecutor(STREAMS) as pool:
            answers = list(
                pool.map(
                    lambda number: stage.complete(
                        stage.neuron, f"{number} {words}", max_tokens=64, logprobs=20
                    ),
                    range(STREAMS),
                )
            )
    failed = [one for one in answers if one.status_code != httpx.codes.OK]
    if odd := [one for one in failed if one.status_code != httpx.codes.SERVICE_UNAVAILABLE]:
        raise Failed(f"a request was answered {odd[0].status_code}: {odd[0].text[:300]}")
    eventually(lambda: stage.complete(stage.neuron).is_success, within=LOAD_SECS, every=0.2)
    stage.sane(stage.neuron)
    if not failed:
        raise NotApplicable(
            f"could not be provoked: with {held} MiB held by a stranger and none free, "
            f"{STREAMS} long requests were answered, so the engine had all it needs"
        )
    codes = sorted({str(one.json()["error"]["code"]) for one in failed})
    return f"{len(failed)} of {STREAMS} requests were 503 ({', '.join(codes)}); then it served"


def unload(stage: Stage) -> str:
    """What was in use before a load is in use after the unload, and no process is left."""
    stage.unload()
    before = stage.back_to(stage.used())
    stage.loaded()
    stage.sane(stage.neuron)
    loaded = stage.used()
    stage.unload()
    after = stage.back_to(before)
    if loaded - before <= BOUND_MB:
        raise Failed(f"NVML saw no memory taken: {before} MiB before, {loaded} with the model")
    return f"{before} MiB before, {loaded} with the model, {after} after"


def estimates(stage: Stage) -> str:
    """Each cache mode allocates what was reckoned, and takes no more than was promised."""
    return judged([_weigh(stage, mode) for mode in CACHE_MODES])


def context_of_cuda(stage: Stage) -> str:
    """What a process takes besides its tensors is what CONTEXT_MIB says."""
    measured = _weigh(stage, "FP16").context
    return judged_context(measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """MiB of one load: `reckoned` and `allocated` for good, `promised` and `taken` at most.

    `tensors` is the most that torch had allocated; what was taken besides is the CUDA context.
    """

    mode: str
    reckoned: float
    allocated: float
    promised: int
    taken: int
    tensors: float

    @property
    def context(self) -> float:
        """What was taken and is no tensor."""
        return self.taken - self.tensors


def judged(weights: list[Weight]) -> str:
    """Return how far off the estimates are. Raises Failed when one is too far."""
    told = "; ".join(
        f"{one.mode}: {one.reckoned:.0f} MiB reckoned, {one.allocated:.0f} allocated "
        f"({off(one.reckoned, one.allocated)}), {one.promised} promised, {one.taken} taken at most "
        f"({off(one.promised, one.taken)})"
        for one in weights
    )
    if any(not within(one.reckoned, one.allocated, _TOLERANCE) for one in weights):
        raise Failed(f"an estimate is off by more than {_TOLERANCE:.0%}: {told}")
    if any(one.taken > one.promised for one in weights):
        raise Failed(f"more was taken than promised: {told}")
    return told


def judged_context(measured: float) -> str:
    """Return what was measured. Raises Failed when CONTEXT_MIB should be another number."""
    told = f"{measured:.0f} MiB measured, CONTEXT_MIB is {CONTEXT_MIB}"
    if measured > CONTEXT_MIB:
        raise Failed(f"{told}: too small")
    if measured < CONTEXT_MIB - _GENEROUS_MB:
        raise Failed(f"{told}: too large by more than {_GENEROUS_MB}")
    return told


def _weigh(stage: Stage, mode: str) -> Weight:
    """Load the model as the node would, in a process that says what torch has allocated."""
    stage.unload()
    here = [stage.first.index]
    before = used_mb(stage.nvml, here)
    plan, memory = stage.plan({**OPTIONS, "cache_mode": mode})
    with Peak(stage.nvml, here) as peak, child("tests.gpu.weighed", [stage.first]) as loading:
        said = loading.ask(plan.as_json())
    return Weight(
        mode=mode,
        reckoned=memory.resident / _MIB,
        allocated=said["allocated"][0] / _MIB,
        promised=memory.mib,
        taken=peak.mb - before,
        tensors=said["peak"][0] / _MIB,
    )


def _refused(answer: httpx.Response) -> dict[str, object]:
    """Return the facts of a load that does not fit. Raises Failed for any other answer."""
    error: dict[str, object] = {}
    if answer.status_code == httpx.codes.CONFLICT:
        error = answer.json()["error"]
    if error.get("code") != "insufficient_vram":
        raise Failed(f"loading was answered {answer.status_code}: {answer.text[:400]}")
    if missing := [key for key in ("needed_mb", "free_mb", "per_device") if key not in error]:
        raise Failed(f"the refusal does not say {', '.join(missing)}: {error}")
    return error
