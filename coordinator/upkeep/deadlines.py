"""Jobs whose deadline passed."""

from __future__ import annotations

from sqlalchemy import and_

from coordinator.domains.queue import moves, store
from coordinator.domains.queue.decisions import miss_deadline
from coordinator.domains.queue.models import jobs
from coordinator.domains.queue.signals import call_node
from coordinator.domains.queue.states import JobState
from coordinator.resources import Resources
from coordinator.store.database import Transaction

BATCH = 500
STOPPABLE = [str(state) for state in (JobState.queued, JobState.dispatched, JobState.running)]


def expire_overdue(tx: Transaction, resources: Resources) -> int:
    """End jobs that missed their deadline: waiting ones at once, running ones by stopping them; answers how many."""
    where = and_(jobs.c.finished_at.is_(None), jobs.c.deadline_at <= tx.now, jobs.c.state.in_(STOPPABLE))
    found = store.lock_jobs(tx, where, BATCH)
    moves.apply(tx, [miss_deadline(job, attempt, now=tx.now) for job, attempt in found])
    for _, attempt in found:
        if attempt is not None:
            call_node(tx, resources, attempt.node_id)
    return len(found)
