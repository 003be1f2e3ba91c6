"""Requests that share one cache are served together for as long as all of them fit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fleet.conversations import CHAT, ask, entry, row, say
from tests.fleet.processes import Workbench, eventually

pytestmark = pytest.mark.fleet

#: Together these are more than the cache has room for, and each alone is not.
CONTEXT = 512
STORY: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 300}


def test_a_request_waits_for_room_and_nobody_runs_out_of_it(
    bench: Workbench, demo_model: Path
) -> None:
    """Seats are free, but an engine whose cache overflows fails everybody in it.

    Another client's small request does not wait for the large ones.
    """
    neuron = bench.neuron()
    options = {"context": CONTEXT, "parallel": 4, "shared_context": True}
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model, options=options)])
    ask(cortex, "demo")

    def held() -> tuple[int, int]:
        found = row(neuron, "demo") or {}
        return found["in_flight"], found["queue_depth"]

    with ThreadPoolExecutor(2) as pool:
        long = [pool.submit(ask, cortex, "demo", **STORY) for _ in range(2)]
        eventually(lambda: held() == (1, 1))
        other = {"authorization": "Bearer other"}
        url = f"{cortex.url}{CHAT}"
        passed = httpx.post(url, json=say("demo"), headers=other, timeout=20, trust_env=False)
        waiting = held()
        answers = [one.result(60) for one in long]

    assert passed.status_code == 200
    assert waiting == (1, 1)
    assert [one.status_code for one in answers] == [200, 200]
    assert [one.json()["usage"]["completion_tokens"] for one in answers] == [300, 300]
