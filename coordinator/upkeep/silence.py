"""Nodes that are not heard of any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.domains.fleet import service as fleet
from coordinator.resources import Resources
from coordinator.store.database import Transaction


def miss_silent_nodes(tx: Transaction, resources: Resources, *, leading_since: datetime) -> int:
    """Put silent nodes offline; answers how many. Not before this leader has led for as long as silence may last:
    while nobody led, there may have been nobody to hear them."""
    if tx.now < leading_since + timedelta(seconds=resources.settings.lost_after_seconds):
        return 0
    return fleet.miss(tx, resources)
