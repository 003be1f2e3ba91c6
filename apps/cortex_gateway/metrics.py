"""What Prometheus sees. Labels are ids of the catalogue and names of the configuration, only."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from cortex_gateway.fleet import Fleet
from cortex_gateway.fleet_gauges import FleetGauges
from cortex_gateway.tallies import Tallies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Every series of the gateway, in a registry of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._registry = CollectorRegistry()
        self.tallies = Tallies()
        self.gauges = FleetGauges(fleet)
        self.add(self.tallies)
        self.add(self.gauges)

    def add(self, collector: Collector) -> None:
        """Expose the series of `collector`, too."""
        self._registry.register(collector)

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes: nothing of models and nodes that are gone."""
        nodes = self._fleet.nodes
        models = set(self._fleet.view().profiles)
        for state in nodes.values():
            models |= state.models.keys()
        self.tallies.keep(models, nodes)
        return generate_latest(self._registry)
