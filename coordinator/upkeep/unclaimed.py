"""Attempts that nobody claims: their tickets are sent again, and given up when that does not help."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, or_

from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import moves, store
from coordinator.domains.queue.decisions import expire
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.models import attempts
from coordinator.domains.queue.states import AttemptState
from coordinator.resources import Resources
from coordinator.store.database import Transaction

BATCH = 500


def expire_unclaimed(tx: Transaction, resources: Resources) -> int:
    """Take back what was published often enough, or sent to a node that is not here; answers how many."""
    limits = Limits.of(resources.settings)
    away = [node.id for node in fleet.facts(tx) if not node.is_approved or node.status in ("offline", "pending")]
    tired = and_(
        attempts.c.publish_count >= limits.max_publishes,
        attempts.c.published_at < tx.now - timedelta(seconds=limits.republish_seconds),
    )
    where = and_(attempts.c.state == str(AttemptState.dispatched), or_(tired, attempts.c.node_id.in_(away)))
    made = [expire(attempt, job, now=tx.now) for attempt, job in store.lock_live_attempts(tx, where, BATCH)]
    moves.apply(tx, made)
    return len(made)
