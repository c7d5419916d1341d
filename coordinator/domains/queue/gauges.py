"""What the metrics page says of the queue, read at each scrape: all of it by index, none by counting history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import func, select

from coordinator.domains.queue import breaker_store
from coordinator.domains.queue.letters import OPEN
from coordinator.domains.queue.models import agent_stats, attempts, dead_letters, jobs
from coordinator.domains.queue.service import PRIORITIES
from coordinator.domains.queue.states import ON_A_NODE, JobState
from coordinator.domains.queue.store import LIVE_ATTEMPT
from coordinator.http.metrics import GaugeSample
from coordinator.store.database import Transaction
from shared.ids import first_id_at
from shared.policy.breaker import BreakerState

RECENT = timedelta(minutes=5)
SAMPLES = 2_000
QUANTILES = (0.5, 0.9, 0.99)


def gauges(tx: Transaction) -> Iterable[GaugeSample]:
    """Samples of the queue: depth and age, jobs by state, attempts, how long work waits for a node."""
    yield from _depth(tx)
    yield from _on_nodes(tx)
    yield from _ended(tx)
    yield from _letters(tx)
    yield from _recent_attempts(tx)
    yield from _waits(tx)
    yield from _breakers(tx)


def _depth(tx: Transaction) -> Iterable[GaugeSample]:
    queued = jobs.c.state == str(JobState.queued)
    query = select(jobs.c.priority, func.count().label("n")).where(queued).group_by(jobs.c.priority)
    found = {row.priority: row.n for row in tx.conn.execute(query)}
    for name, number in PRIORITIES.items():
        told = found.get(number, 0)
        yield GaugeSample("longshore_queue_depth", "Jobs that wait to be placed.", told, {"priority": name})
    yield GaugeSample("longshore_jobs", "Jobs by state.", sum(found.values()), {"state": "queued"})
    oldest = tx.conn.scalar(select(func.min(jobs.c.id)).where(queued))
    since = tx.conn.scalar(select(jobs.c.created_at).where(jobs.c.id == oldest)) if oldest else None
    age = max(0.0, (tx.now - since).total_seconds()) if since else 0.0
    yield GaugeSample("longshore_queue_oldest_seconds", "Age of the oldest job that waits.", age)


def _on_nodes(tx: Transaction) -> Iterable[GaugeSample]:
    query = (
        select(jobs.c.state, func.count().label("n"))
        .select_from(attempts.join(jobs, jobs.c.current_attempt_id == attempts.c.id))
        .where(attempts.c.state.in_(LIVE_ATTEMPT))
        .group_by(jobs.c.state)
    )
    found = {row.state: row.n for row in tx.conn.execute(query)}
    for state in sorted(ON_A_NODE):
        yield GaugeSample("longshore_jobs", "Jobs by state.", found.get(str(state), 0), {"state": str(state)})


def _ended(tx: Transaction) -> Iterable[GaugeSample]:
    totals = tx.conn.execute(select(func.sum(agent_stats.c.succeeded), func.sum(agent_stats.c.failed))).one()
    for state, total in zip(("succeeded", "dead"), totals, strict=True):
        yield GaugeSample("longshore_jobs_ended", "Jobs that ended, since the beginning.", total or 0, {"state": state})


def _letters(tx: Transaction) -> Iterable[GaugeSample]:
    found = tx.conn.scalar(select(func.count()).select_from(dead_letters).where(OPEN))
    yield GaugeSample("longshore_dead_letters", "Jobs that died and that no admin has decided about.", found or 0)


def _recent_attempts(tx: Transaction) -> Iterable[GaugeSample]:
    # Ids begin with their time, so the primary key finds the recent ones.
    recent = attempts.c.id >= first_id_at(tx.now - RECENT)
    query = select(attempts.c.state, func.count().label("n")).where(recent).group_by(attempts.c.state)
    for row in tx.conn.execute(query):
        text = "Attempts made in the last five minutes, by how they stand."
        yield GaugeSample("longshore_attempts_recent", text, row.n, {"state": row.state})


def _waits(tx: Transaction) -> Iterable[GaugeSample]:
    query = (
        select(jobs.c.created_at, attempts.c.dispatched_at, attempts.c.claimed_at)
        .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
        .where(
            attempts.c.id >= first_id_at(tx.now - RECENT), attempts.c.number == 1, attempts.c.claimed_at.is_not(None)
        )
        .order_by(attempts.c.id.desc())
        .limit(SAMPLES)
    )
    rows = tx.conn.execute(query).all()
    placed = [(row.dispatched_at - row.created_at).total_seconds() for row in rows]
    claimed = [(row.claimed_at - row.dispatched_at).total_seconds() for row in rows]
    yield from _quantiles("longshore_placement_seconds", "From accepted to placed, last five minutes.", placed)
    yield from _quantiles("longshore_dispatch_seconds", "From placed to started, last five minutes.", claimed)


def _breakers(tx: Transaction) -> Iterable[GaugeSample]:
    found = breaker_store.states(tx)
    for state in BreakerState:
        told = found.get(str(state), 0)
        yield GaugeSample("longshore_breakers", "Circuit breakers by state.", told, {"state": str(state)})


def _quantiles(name: str, text: str, values: Sequence[float]) -> Iterable[GaugeSample]:
    ordered = sorted(values)
    for quantile in QUANTILES:
        value = ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else 0.0
        yield GaugeSample(name, text, value, {"quantile": str(quantile)})
