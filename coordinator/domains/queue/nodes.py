"""What the queue layer knows and does about nodes: their leases, their load, and losing them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, bindparam, literal_column, select, update

from coordinator.domains.queue import decisions, moves, store
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.losses import circumstances, earlier_losses
from coordinator.domains.queue.models import attempts, demands, jobs
from coordinator.domains.queue.rows import Attempt, Job, job_of, select_jobs
from coordinator.domains.queue.signals import nudge
from coordinator.domains.queue.states import AttemptState, JobState
from coordinator.domains.queue.tokens import token_hash
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.contracts.node import Want

LOST_BATCH = 500
SUMMARY = ("id", "kind", "agent_id", "state", "priority", "created_at", "attempt_number", "started_at", "rank")


def heartbeat(
    tx: Transaction,
    resources: Resources,
    *,
    node_id: str,
    held: Sequence[Mapping[str, Any]],
    restarted: bool,
    present: Collection[str] | None = None,
) -> dict[str, str]:
    """Renew the leases of the attempts a node holds; answers what is wanted of each (attempt id → Want).

    `present` are the attempts that have a computer on the node; None when nobody knows.
    """
    tokens = {str(item["attempt_id"]): token_hash(str(item["token"])) for item in held}
    if restarted:
        _lose_forgotten(tx, resources, node_id, set(tokens))
    if present is not None:
        confirm_gone(tx, resources, node_id, there={*present, *tokens})
    if not tokens:
        return {}
    query = (
        select(attempts.c.id, attempts.c.token_hash, jobs.c.state)
        .select_from(attempts.join(jobs, jobs.c.current_attempt_id == attempts.c.id))
        .where(attempts.c.id.in_(list(tokens)), attempts.c.node_id == node_id)
        .where(attempts.c.state == str(AttemptState.running))
    )
    theirs = {row.id: row.state for row in tx.conn.execute(query) if row.token_hash == tokens[row.id]}
    if theirs:
        until = tx.now + timedelta(seconds=resources.settings.lease_seconds)
        still = (attempts.c.id.in_(list(theirs)), attempts.c.state == str(AttemptState.running))
        tx.conn.execute(update(attempts).where(*still).values(lease_until=until))
    return {attempt_id: str(_want(theirs.get(attempt_id))) for attempt_id in tokens}


def _want(job_state: str | None) -> Want:
    if job_state is None:
        return Want.kill
    return Want.stop if job_state == JobState.cancelling else Want.keep


def _lose_forgotten(tx: Transaction, resources: Resources, node_id: str, held: set[str]) -> None:
    """A daemon that started anew does not know what the one before it ran: those attempts are lost now."""
    where = and_(attempts.c.node_id == node_id, attempts.c.state == str(AttemptState.running))
    pairs = [pair for pair in store.lock_live_attempts(tx, where, LOST_BATCH) if pair[0].id not in held]
    lose(tx, resources, pairs, reason_code="node_restarted", message="the node's daemon was started anew")


def abandon_node(tx: Transaction, resources: Resources, node_id: str, *, reason_code: str, message: str) -> None:
    """Give up everything that is on a node or on its way there."""
    where = and_(attempts.c.node_id == node_id, attempts.c.state.in_(store.LIVE_ATTEMPT))
    while True:
        pairs = store.lock_live_attempts(tx, where, LOST_BATCH)
        lose(tx, resources, pairs, reason_code=reason_code, message=message)
        if len(pairs) < LOST_BATCH:
            return


# Asked at every heartbeat, and answered by an index that is empty unless exclusive work waits.
WAITERS = (
    select_jobs()
    .add_columns(attempts.c.id.label("attempt_id"), attempts.c.node_name)
    .join(attempts, attempts.c.id == jobs.c.waits_for_attempt_id)
    .where(literal_column("jobs.waits_for_attempt_id IS NOT NULL"), attempts.c.node_id == bindparam("node_id"))
    .with_for_update(of=jobs)
)
"""In no order, as SQLite would walk through all jobs to have one; nobody else locks several of these and waits."""


def confirm_gone(
    tx: Transaction, resources: Resources, node_id: str, *, there: Collection[str] = (), by: str | None = None
) -> int:
    """Release the exclusive jobs that wait for a computer which is no longer `there` on this node; answers how many.

    `by` says who knows; None: the node itself.
    """
    rows = [row for row in tx.conn.execute(WAITERS, {"node_id": node_id}) if row.attempt_id not in there]
    for job in (job_of(row) for row in rows):
        if job.state is JobState.dead:
            # Its timeline has ended; should it go round again, it will find nothing to wait for.
            store.rewrite(tx, job, waits_for_attempt_id=None, hold_reason=None)
    waiting = [(job_of(row), by or f"node {row.node_name}") for row in rows if row.j_state == str(JobState.queued)]
    moves.apply(tx, [decisions.confirm_gone(job, by=who) for job, who in waiting])
    if waiting:
        nudge(tx, resources, "gone")
    return len(rows)


def lose(
    tx: Transaction,
    resources: Resources,
    pairs: Sequence[tuple[Attempt, Job]],
    *,
    reason_code: str,
    message: str,
) -> None:
    """Running attempts are lost, dispatched ones expire; their jobs run elsewhere or end, as their policy says."""
    limits = Limits.of(resources.settings)
    running = [job for attempt, job in pairs if attempt.state is AttemptState.running]
    earlier = earlier_losses(tx, running, limits)
    made = [
        decisions.expire(attempt, job, now=tx.now)
        if attempt.state is AttemptState.dispatched
        else decisions.lost_lease(
            attempt,
            job,
            circumstances(tx, limits, earlier.get(job.id, ())),
            reason_code=reason_code,
            message=message,
        )
        for attempt, job in pairs
    ]
    if made:
        moves.apply(tx, made)
        nudge(tx, resources, reason_code)


def work_of(tx: Transaction, node_id: str, limit: int) -> list[dict[str, Any]]:
    """What a node has, and what waits for it alone, most urgent first."""
    here = (
        _summary()
        .select_from(attempts.join(jobs, jobs.c.current_attempt_id == attempts.c.id))
        .where(attempts.c.node_id == node_id, attempts.c.state.in_(store.LIVE_ATTEMPT))
    )
    waiting = (
        _summary()
        .select_from(
            demands.join(jobs, jobs.c.demand_id == demands.c.id).outerjoin(
                attempts, attempts.c.id == jobs.c.current_attempt_id
            )
        )
        .where(demands.c.needs["worker_id"].as_string() == node_id, jobs.c.state == str(JobState.queued))
    )
    found = [
        dict(zip(SUMMARY, row, strict=True))
        for query in (here, waiting)
        for row in tx.conn.execute(query.order_by(jobs.c.rank, jobs.c.id).limit(limit))
    ]
    ordered = sorted(found, key=lambda item: (item["rank"], item["id"]))[:limit]
    return [{name: value for name, value in item.items() if name != "rank"} for item in ordered]


def _summary() -> Select[Any]:
    return select(
        jobs.c.id,
        jobs.c.kind,
        jobs.c.agent_id,
        jobs.c.state,
        jobs.c.priority,
        jobs.c.created_at,
        attempts.c.number.label("attempt_number"),
        attempts.c.claimed_at.label("started_at"),
        jobs.c.rank,
    )
