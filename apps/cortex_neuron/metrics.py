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
        self.xids = Counter(
            "neuron_device_xids_total",
            "Critical errors that the driver reported.",
            ("device", "xid"),
            registry=registry,
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
        self._device_reserved = Gauge(
            "neuron_device_vram_reserved_mb",
            "Memory promised to loads in progress.",
            ("device",),
            registry=registry,
        )
        self._device_foreign = Gauge(
            "neuron_device_vram_foreign_mb",
            "Memory that processes of others hold.",
            ("device",),
            registry=registry,
        )
        self._device_faulty = Gauge(
            "neuron_device_faulty",
            "1 while nothing can run on the device.",
            ("device",),
            registry=registry,
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
            known = (
                (self._device_used, device.vram_used_mb),
                (self._device_free, device.vram_free_mb),
                (self._device_reserved, device.vram_reserved_mb),
                (self._device_foreign, device.vram_foreign_mb),
                (self._device_faulty, int(device.fault is not None)),
            )
            for gauge, value in known:
                if value is not None:
                    gauge.labels(str(device.index)).set(value)
        return generate_latest(self._registry)
