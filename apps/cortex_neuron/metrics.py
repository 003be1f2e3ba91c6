"""What Prometheus sees of one node. Gauges are read off the node's own state at every scrape."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from cortex_core.wire import Health, ModelInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Every series of the node, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "neuron_requests_total", "Requests that held a seat.", ("model",), registry=registry
        )
        self.prompt_tokens = Counter(
            "neuron_prompt_tokens_total", "Prompt tokens.", ("model",), registry=registry
        )
        self.completion_tokens = Counter(
            "neuron_completion_tokens_total", "Generated tokens.", ("model",), registry=registry
        )
        self._uptime = Gauge(
            "neuron_uptime_seconds", "Since the daemon started.", registry=registry
        )
        self._in_flight = Gauge(
            "neuron_model_in_flight", "Requests in flight.", ("model",), registry=registry
        )
        self._queue = Gauge(
            "neuron_model_queue_depth", "Requests that wait.", ("model",), registry=registry
        )
        self._model_mb = Gauge(
            "neuron_model_vram_used_mb", "Memory a model holds.", ("model",), registry=registry
        )
        self._device_used = Gauge(
            "neuron_device_vram_used_mb", "Memory in use.", ("device",), registry=registry
        )
        self._device_free = Gauge(
            "neuron_device_vram_free_mb", "Memory free.", ("device",), registry=registry
        )

    def exposition(self, rows: list[ModelInfo], health: Health) -> bytes:
        """Return the text that Prometheus scrapes."""
        self._uptime.set(health.uptime_secs)
        for gauge in (self._in_flight, self._queue, self._model_mb):
            gauge.clear()
        for row in rows:
            if row.status == "unloaded":
                continue
            self._in_flight.labels(row.id).set(row.in_flight)
            self._queue.labels(row.id).set(row.queue_depth)
            if row.vram_used_mb is not None:
                self._model_mb.labels(row.id).set(row.vram_used_mb)
        for device in health.devices:
            if device.vram_used_mb is not None:
                self._device_used.labels(str(device.index)).set(device.vram_used_mb)
            if device.vram_free_mb is not None:
                self._device_free.labels(str(device.index)).set(device.vram_free_mb)
        return generate_latest(self._registry)
