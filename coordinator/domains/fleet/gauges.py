"""What the metrics page says of the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from coordinator.domains.fleet import service
from coordinator.domains.fleet.states import NodeStatus
from coordinator.http.metrics import GaugeSample
from coordinator.store.database import Transaction


def gauges(tx: Transaction) -> Iterable[GaugeSample]:
    """Nodes by status; places and how many of them are taken, by node."""
    every = service.facts(tx)
    by_status = Counter(node.status for node in every)
    for status in NodeStatus:
        if status is not NodeStatus.removed:
            told = by_status[str(status)]
            yield GaugeSample("longshore_nodes", "Worker nodes by status.", told, {"status": str(status)})
    for node in every:
        if node.is_approved:
            label = {"node": node.name, "node_id": node.id}
            yield GaugeSample("longshore_node_slots", "Computers a node may run at a time.", node.slots, label)
            used = node.slots - node.free_slots
            yield GaugeSample("longshore_node_slots_used", "Computers a node runs or is sent now.", used, label)
