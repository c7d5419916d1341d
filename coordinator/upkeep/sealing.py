"""The audit trail's chain: rows get their places in it, and the oldest leave when they are old enough."""

from __future__ import annotations

from functools import partial

import structlog

from coordinator.domains.identity import audit
from coordinator.resources import Resources
from coordinator.store.database import Transaction

log = structlog.get_logger(__name__)


def seal_trail(tx: Transaction) -> int:
    """Seal what was committed since the last time; answers 0, as nothing was out of order.

    The head goes into the log: where logs are kept elsewhere, each line is a witness that the trail has to agree with.
    """
    count, head = audit.seal(tx)
    if count:
        tx.after_commit(partial(log.info, "audit.sealed", rows=count, head=str(head)))
    return 0


def prune_trail(tx: Transaction, resources: Resources) -> int:
    """Remove a batch of rows older than the retention allows; answers how many."""
    return audit.prune(tx, days=resources.settings.audit_days)
