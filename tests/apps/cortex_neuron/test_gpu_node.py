"""A node with GPUs: what it tells of them, and what its engines see of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fake_nvml.gpus import H100, RTX_3090, Gpus
from tests.faults.stage import CLAIM_MB, Stage, gpu_environment, stage, start_node
from tests.fleet.conversations import row
from tests.fleet.processes import Daemon, eventually, workbench

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, nvml_library: Path) -> Iterator[Stage]:
    """A node with two different GPUs."""
    with stage(tmp_path_factory.mktemp("node"), nvml_library) as made:
        yield made


def visible(node: Stage) -> dict[str, str]:
    """Return what the only engine was told of devices."""
    environment = node.engine().environ()
    return {name: environment[name] for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}


def metrics(node: Daemon) -> str:
    """Return what Prometheus would scrape."""
    return node.http.get(f"{node.url}/metrics").text


def test_engines_see_their_devices_and_no_others(scene: Stage) -> None:
    """By UUID, in the order of the bus; both where a model is on both."""
    scene.loaded(devices=[1])
    one = visible(scene)
    scene.settles()
    scene.loaded(devices=[0, 1])
    both = visible(scene)
    scene.settles()

    assert one == {"CUDA_VISIBLE_DEVICES": H100["uuid"], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert both["CUDA_VISIBLE_DEVICES"] == f"{RTX_3090['uuid']},{H100['uuid']}"


def test_memory_is_settled_on_each_device_and_comes_back(scene: Stage) -> None:
    """Promised before the load, measured after it, free again when the model has gone."""
    model = scene.loaded(devices=[0, 1], estimate_mb=9000)
    found = row(scene.node, model)
    held = [scene.device(n) for n in (0, 1)]
    scene.settles()

    assert found is not None
    assert (found["vram_required_mb"], found["vram_used_mb"]) == (9000, CLAIM_MB)
    assert [one["vram_used_mb"] for one in held] == [1024 + CLAIM_MB // 2, 3 + CLAIM_MB // 2]
    assert [one["vram_reserved_mb"] for one in held] == [0, 0]
    assert [one["vram_foreign_mb"] for one in held] == [1024, 3]


def test_what_moves_is_told_as_an_event(scene: Stage) -> None:
    """Heat, load and strangers' memory, without anybody asking for them."""
    seen: dict[str, Any] = {}
    with (
        httpx.Client(timeout=20, trust_env=False) as client,
        client.stream("GET", f"{scene.node.url}/events") as events,
    ):
        scene.gpus.set(**{"gpu0.temp": 88, "gpu0.util": 97, "gpu0.used": 2048})
        for line in events.iter_lines():
            value = json.loads(line[6:]) if line.startswith("data: {") else {}
            devices = value.get("health", value).get("devices") or [{}]
            if devices[0].get("temp_c") == 88:
                seen = devices[0]
                break
    scene.reset()

    assert (seen["utilization_pct"], seen["vram_used_mb"], seen["vram_foreign_mb"]) == (
        97,
        2048,
        2048,
    )


def test_xids_are_counted(scene: Stage) -> None:
    """By device and number."""
    scene.gpus.add("gpu1.xid=63")
    eventually(lambda: 'neuron_device_xids_total{device="1",xid="63"} 1.0' in metrics(scene.node))

    assert "fault" not in scene.device(1)
    assert 'neuron_device_faulty{device="1"} 0.0' in metrics(scene.node)


def test_a_split_gpu_is_used_instance_by_instance(tmp_path: Path, nvml_library: Path) -> None:
    """Each is a device of its own; an engine sees the one that it was given."""
    gpus = Gpus(tmp_path / "gpus", nvml_library)
    gpus.plug(0, {**H100, "mig": 1})
    for part in (0, 1):
        prefix = f"gpu0.mig{part}"
        values = {"name": f"H100 MIG {part}", "uuid": f"MIG-{part}", "total": 40000, "used": 10}
        gpus.set(**{f"{prefix}.{key}": value for key, value in values.items()})
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with gpu_environment(gpus), workbench(tmp_path) as bench:
        node = Stage(bench, start_node(bench), gpus, file)
        node.loaded(devices=[1])
        said = node.node.http.get(f"{node.node.url}/discovery").json()
        told = visible(node)

    assert [one["uuid"] for one in said["devices"]] == ["MIG-0", "MIG-1"]
    assert {one["part_of"] for one in said["devices"]} == {H100["uuid"]}
    assert told["CUDA_VISIBLE_DEVICES"] == "MIG-1"
