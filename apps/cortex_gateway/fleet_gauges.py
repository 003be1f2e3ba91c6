"""How the fleet is, as Prometheus has it: read off what nodes said last, at each scrape.

A node that is away is told of as away, and nothing it said before.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cortex_core import __version__
from cortex_core.wire import DeviceHealth, ModelInfo, ModelLoad
from cortex_gateway.fleet import Fleet, NodeState

_MIB: Final = 1024 * 1024
_MODEL: Final = ("model", "node")
_DEVICE: Final = ("node", "device")
#: What a model says of itself, in its row or in its node's health, whichever knows.
_OF_MODELS: Final = (
    ("in_flight", "cortex_model_in_flight", "Requests in flight on a node."),
    ("queue_depth", "cortex_model_queue_depth", "Requests queued on a node."),
    ("max_in_flight", "cortex_model_max_in_flight", "Requests that it takes at a time."),
    ("max_queue_depth", "cortex_model_max_queue_depth", "Requests that it lets wait."),
    ("tok_s_prefill", "cortex_model_prefill_tokens_per_second", "Prompt tokens read a second."),
    ("tok_s_decode", "cortex_model_decode_tokens_per_second", "Tokens generated a second."),
)
_OF_DEVICES: Final = (
    ("vram_used_mb", "cortex_device_vram_used_bytes", "Memory in use.", _MIB),
    ("vram_free_mb", "cortex_device_vram_free_bytes", "Memory free.", _MIB),
    ("vram_reserved_mb", "cortex_device_vram_reserved_bytes", "Memory promised to loads.", _MIB),
    ("utilization_pct", "cortex_device_utilization_ratio", "How busy it is, from 0 to 1.", 0.01),
    ("temp_c", "cortex_device_temperature_celsius", "How warm it is.", 1),
)


class FleetGauges(Collector):
    """Every gauge. `in_flight` and `waiting` count the requests of this gateway."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.in_flight: Callable[[], int] = lambda: 0
        self.waiting: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        """Return everything as it is now. On the event loop, whose tasks are counted."""
        states = [self._fleet.nodes[name] for name in sorted(self._fleet.nodes)]
        yield GaugeMetricFamily(
            "cortex_requests_in_flight", "Requests being answered.", self.in_flight()
        )
        yield GaugeMetricFamily(
            "cortex_requests_waiting", "Requests that wait for a model.", self.waiting()
        )
        yield GaugeMetricFamily(
            "cortex_tasks", "Tasks of the event loop.", len(asyncio.all_tasks())
        )
        build = GaugeMetricFamily("cortex_build_info", "What runs here.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
        healthy = GaugeMetricFamily(
            "cortex_node_healthy", "1 while the node answers.", labels=("node",)
        )
        for state in states:
            healthy.add_metric((state.entry.name,), 1 if state.healthy else 0)
        yield healthy
        there = [state for state in states if state.healthy]
        yield from _models(there)
        yield from _devices(there)


def _models(states: list[NodeState]) -> Iterator[Metric]:
    rows = [
        (state.entry.name, row, next((m for m in state.health.models if m.id == row.id), None))
        for state in states
        for row in sorted(state.models.values(), key=lambda row: row.id)
        if row.status != "unloaded"
    ]
    for field, name, said in _OF_MODELS:
        gauge = GaugeMetricFamily(name, said, labels=_MODEL)
        for node, row, load in rows:
            if (value := _known(field, row, load)) is not None:
                gauge.add_metric((row.id, node), value)
        yield gauge
    memory = GaugeMetricFamily("cortex_model_vram_used_bytes", "Memory it holds.", labels=_MODEL)
    servable = GaugeMetricFamily(
        "cortex_model_servable", "0 for a model that is there and cannot serve.", labels=_MODEL
    )
    rejections = CounterMetricFamily(
        "cortex_model_rejections", "Requests that the node had no place for.", labels=_MODEL
    )
    for node, row, load in rows:
        if row.vram_used_mb is not None:
            memory.add_metric((row.id, node), row.vram_used_mb * _MIB)
        well = row.servable.ok and row.status not in {"failed", "recovering"}
        servable.add_metric((row.id, node), 1 if well else 0)
        if load is not None:
            rejections.add_metric((row.id, node), load.rejected)
    yield from (memory, servable, rejections)


def _known(field: str, row: ModelInfo, load: ModelLoad | None) -> float | None:
    said = [getattr(one, field, None) for one in (row, load)]
    known = [float(value) for value in said if value is not None]
    return max(known) if known else None


def _devices(states: list[NodeState]) -> Iterator[Metric]:
    total = GaugeMetricFamily(
        "cortex_device_vram_total_bytes", "Memory of the device.", labels=_DEVICE
    )
    for state in states:
        for device in state.discovery.devices if state.discovery else ():
            if device.vram_total_mb is not None:
                total.add_metric((state.entry.name, str(device.index)), device.vram_total_mb * _MIB)
    yield total
    seen: list[tuple[str, DeviceHealth]] = [
        (state.entry.name, device) for state in states for device in state.health.devices
    ]
    for field, name, said, unit in _OF_DEVICES:
        gauge = GaugeMetricFamily(name, said, labels=_DEVICE)
        for node, health in seen:
            if (value := getattr(health, field)) is not None:
                gauge.add_metric((node, str(health.index)), value * unit)
        yield gauge
