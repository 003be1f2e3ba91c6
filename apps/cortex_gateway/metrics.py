"""What Prometheus sees. Labels are ids of the catalogue and names of the configuration, only."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from cortex_core.wire import DeviceHealth, ModelInfo
from cortex_gateway.tallies import Tallies

_WHERE = ("model", "node")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Every series of the gateway, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.tallies = Tallies()
        registry.register(self.tallies)
        self.cold_starts = Counter(
            "cortex_cold_starts_total", "Loads that requests caused.", _WHERE, registry=registry
        )
        self.evictions = Counter(
            "cortex_evictions_total",
            "Models asked to leave for another.",
            _WHERE,
            registry=registry,
        )
        self.retries = Counter(
            "cortex_retries_total",
            "Requests sent again to another replica, and those that were not, to spare the fleet.",
            ("outcome",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "cortex_model_in_flight", "Requests in flight on a node.", _WHERE, registry=registry
        )
        self.queue_depth = Gauge(
            "cortex_model_queue_depth", "Requests queued on a node.", _WHERE, registry=registry
        )
        self.node_healthy = Gauge(
            "cortex_node_healthy", "1 while the node answers.", ("node",), registry=registry
        )
        self.device_used = Gauge(
            "cortex_device_vram_used_mb", "Memory in use.", ("node", "device"), registry=registry
        )
        self.device_free = Gauge(
            "cortex_device_vram_free_mb", "Memory free.", ("node", "device"), registry=registry
        )
        self.tasks = Gauge("cortex_tasks", "Tasks of the event loop.", registry=registry)
        self._models: dict[str, set[str]] = {}
        self._devices: dict[str, set[str]] = {}

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes. On the event loop, whose tasks it counts."""
        self.tasks.set(len(asyncio.all_tasks()))
        return generate_latest(self._registry)

    def observe_node(
        self,
        node: str,
        *,
        healthy: bool,
        models: tuple[ModelInfo, ...],
        devices: tuple[DeviceHealth, ...],
    ) -> None:
        """Set the gauges of one node, and remove those of what it no longer has."""
        self.node_healthy.labels(node).set(1 if healthy else 0)
        for model in models:
            self.in_flight.labels(model.id, node).set(model.in_flight)
            self.queue_depth.labels(model.id, node).set(model.queue_depth)
        names = {model.id for model in models}
        for gone in self._models.get(node, set()) - names:
            self.in_flight.remove(gone, node)
            self.queue_depth.remove(gone, node)
        self._models[node] = names
        for device in devices:
            index = str(device.index)
            if device.vram_used_mb is not None:
                self.device_used.labels(node, index).set(device.vram_used_mb)
            if device.vram_free_mb is not None:
                self.device_free.labels(node, index).set(device.vram_free_mb)

    def forget_node(self, node: str) -> None:
        """Remove every gauge of a node that left the configuration."""
        self.observe_node(node, healthy=False, models=(), devices=())
        self.node_healthy.remove(node)
        for gauge in (self.device_used, self.device_free):
            gauge.remove_by_labels({"node": node})
