"""A run: arrivals meet a fleet under one policy."""

from collections.abc import Iterable

from cortex_router.simulation.agenda import Agenda
from cortex_router.simulation.arrivals import Arrival
from cortex_router.simulation.contenders import Contender
from cortex_router.simulation.gateway import Gateway
from cortex_router.simulation.machines import Death, Fleet
from cortex_router.simulation.node import SimNode
from cortex_router.simulation.replica import Request
from cortex_router.simulation.results import Recorder, Results
from cortex_router.view import fleet_view

_END = float("inf")


def simulate(fleet: Fleet, arrivals: Iterable[Arrival], contender: Contender) -> Results:
    """Return what happens when `arrivals`, in order of time, meet the fleet. Nothing is random."""
    agenda = Agenda()
    recorder = Recorder([machine.name for machine in fleet.machines])
    models = {model.profile.id: model for model in fleet.models}
    profiles = {name: model.profile for name, model in models.items()}
    gateway = Gateway(
        fleet_view((), profiles, fleet.aliases), fleet, contender.policy, agenda, recorder
    )
    nodes = {
        machine.name: SimNode(machine, fleet, models, contender.swapping, agenda, recorder, gateway)
        for machine in fleet.machines
    }
    gateway.nodes = nodes
    for node in nodes.values():
        gateway.observed(node, ())
    for machine in fleet.machines:
        for model in machine.default_models:
            nodes[machine.name].want(model)
    for fault in fleet.faults:
        if isinstance(fault, Death):
            agenda.enter(fault.at, lambda node: node.dies(), nodes[fault.node])
            if fault.back_at is not None:
                agenda.enter(fault.back_at, lambda node: node.comes_back(), nodes[fault.node])
    for arrival in arrivals:
        agenda.go_on(arrival.at, gateway.settle)
        agenda.now = arrival.at
        gateway.arrive(Request(arrival))
        gateway.settle()
    agenda.go_on(_END, gateway.settle)
    for node in nodes.values():
        node.closes_books(recorder.last_at)
    return recorder.results(contender.name)
