"""What nobody needs any more."""

from __future__ import annotations

from coordinator.domains.fleet import service as fleet
from coordinator.domains.identity import service as identity
from coordinator.domains.queue import breakers, redriving
from coordinator.domains.system import service as system
from coordinator.resources import Resources
from coordinator.store.database import Transaction


def forget(tx: Transaction, resources: Resources) -> int:
    """Drop a batch of outdated rows of each kind; answers how many rows went."""
    vitals = fleet.prune(tx, days=resources.settings.vitals_days)
    letters = redriving.prune(tx, days=resources.settings.dead_letter_days)
    quiet = breakers.forget(tx, resources.settings)
    return vitals + letters + quiet + system.purge_answers(tx) + identity.purge_sessions(tx)
