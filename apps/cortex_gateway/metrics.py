"""What Prometheus sees. Labels are ids of the catalogue and names of the configuration, only."""

import asyncio
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cortex_core.wire import DeviceHealth, ModelInfo

_DURATION = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)
_FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)
_RATE = (1, 2.5, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
_WHERE = ("model", "node")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Series(NamedTuple):
    """What a request adds to, of one model on one node: looked up once, because a look-up costs."""

    requests: Counter
    duration: Histogram
    first_token: Histogram
    rate: Histogram
    overhead: Histogram
    prompt_tokens: Counter
    completion_tokens: Counter
    cached_tokens: Counter


class Metrics:
    """Every series of the gateway, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cortex_requests_total", "Requests that ended.", _WHERE, registry=registry
        )
        self.errors = Counter(
            "cortex_request_errors_total",
            "Requests that ended in an error, by its code.",
            (*_WHERE, "code"),
            registry=registry,
        )
        self.duration = Histogram(
            "cortex_request_duration_seconds",
            "From taking the request to its last byte.",
            _WHERE,
            buckets=_DURATION,
            registry=registry,
        )
        self.first_token = Histogram(
            "cortex_time_to_first_token_seconds",
            "From taking the request to its first token.",
            _WHERE,
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self.rate = Histogram(
            "cortex_tokens_per_second",
            "Decoded tokens a second after the first one.",
            _WHERE,
            buckets=_RATE,
            registry=registry,
        )
        self.overhead = Histogram(
            "cortex_gateway_overhead_seconds",
            "Time the gateway itself spent before it asked the node.",
            _WHERE,
            buckets=_OVERHEAD,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "cortex_prompt_tokens_total", "Prompt tokens.", _WHERE, registry=registry
        )
        self.completion_tokens = Counter(
            "cortex_completion_tokens_total", "Generated tokens.", _WHERE, registry=registry
        )
        self.cached_tokens = Counter(
            "cortex_cached_prompt_tokens_total",
            "Prompt tokens found in a prefix cache.",
            _WHERE,
            registry=registry,
        )
        self.cold_starts = Counter(
            "cortex_cold_starts_total", "Loads that requests caused.", _WHERE, registry=registry
        )
        self.evictions = Counter(
            "cortex_evictions_total",
            "Models asked to leave for another.",
            _WHERE,
            registry=registry,
        )
        self.decisions = Counter(
            "cortex_route_decisions_total",
            "Routing decisions.",
            ("decision", "reason"),
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
        self._series: dict[tuple[str, str], Series] = {}
        self._models: dict[str, set[str]] = {}
        self._devices: dict[str, set[str]] = {}

    def of(self, model: str, node: str) -> Series:
        """Return the series of a model on a node."""
        where = (model, node)
        if (found := self._series.get(where)) is None:
            made = (getattr(self, name).labels(*where) for name in Series._fields)
            found = self._series[where] = Series(*made)
        return found

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
