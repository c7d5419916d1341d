"""Nodes that are not heard of any more, and history that nobody needs any more."""

from __future__ import annotations

from coordinator.domains.fleet import service as fleet
from coordinator.resources import Resources
from coordinator.store.database import Transaction


def miss_silent_nodes(tx: Transaction, resources: Resources) -> int:
    """Put silent nodes offline; answers how many."""
    return fleet.miss(tx, resources)


def prune_vitals(tx: Transaction, resources: Resources) -> int:
    """Forget vitals that are older than the setting allows; answers how many points."""
    return fleet.prune(tx, days=resources.settings.vitals_days)
