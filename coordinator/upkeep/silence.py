"""Nodes that are not heard of any more."""

from __future__ import annotations

from coordinator.domains.fleet import service as fleet
from coordinator.resources import Resources
from coordinator.store.database import Transaction


def miss_silent_nodes(tx: Transaction, resources: Resources) -> int:
    """Put silent nodes offline; answers how many."""
    return fleet.miss(tx, resources)
