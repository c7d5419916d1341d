"""Placement: many waiting jobs get their nodes in one transaction."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, and_, bindparam, func, literal_column, or_, select, update

from coordinator.domains.queue import decisions, moves, store
from coordinator.domains.queue.models import attempts, demands, jobs, lanes
from coordinator.domains.queue.rows import JOB_FIELDS, Job, job_of, select_jobs
from coordinator.store.database import Transaction
from coordinator.store.schema import UTCDateTime
from shared.ids import new_id
from shared.policy.placement import Needs, NodeFacts, Room, candidates, why_none


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the relay publishes: ids and words for people, nothing else."""

    attempt_id: str
    job_id: str
    number: int
    node_id: str
    agent: str
    takes_slot: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """The outcome of one round: tickets to publish, and whether there may be more to place at once."""

    tickets: Sequence[Ticket]
    is_full_batch: bool


@dataclass(frozen=True, slots=True)
class _Wish:
    """A demand with waiting jobs, and what its lane allows."""

    demand_id: str
    agent_id: str
    needs: Needs
    told_hold: str | None
    lane_room: int | None


def place(tx: Transaction, nodes: Sequence[NodeFacts], *, batch: int) -> Placed:
    """Place as many ready jobs as there is room for, most urgent first, oldest first among equals."""
    room = Room(nodes)
    now_ms = int(tx.now.timestamp() * 1000)
    open_wishes = [wish for wish in _wishes(tx) if _is_open(tx, wish, nodes)]
    made: list[moves.Move] = []
    specs: dict[str, str] = {}
    lane_left = {wish.agent_id: wish.lane_room for wish in open_wishes if wish.lane_room is not None}
    for wish, job, agent in _heads(tx, open_wishes, room, batch):
        if lane_left.get(wish.agent_id, 1) <= 0:
            continue
        node = room.take(wish.needs)
        if node is None:
            continue
        made.append(decisions.place(job, node, attempt_id=new_id(now_ms), takes_slot=wish.needs.takes_slot, now=tx.now))
        specs[job.id] = agent
        if wish.agent_id in lane_left:
            lane_left[wish.agent_id] -= 1
    moves.apply(tx, made)
    return Placed([_ticket(move, specs[move.after.id]) for move in made], len(made) >= batch)


def _ticket(move: moves.Move, agent: str) -> Ticket:
    attempt = move.attempt_after
    assert attempt is not None
    return Ticket(attempt.id, attempt.job_id, attempt.number, attempt.node_id, agent, attempt.takes_slot)


def _ready() -> ColumnElement[bool]:
    due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= bindparam("now", type_=UTCDateTime))
    return and_(jobs.c.state == literal_column("'queued'"), due)


# Statements of the hot path are made once: making one costs more Python than running it. State words stand in the
# text, because a partial index serves only a condition that the planner can see.
_WISHES = (
    select(demands, lanes.c.max_active)
    .outerjoin(lanes, lanes.c.agent_id == demands.c.agent_id)
    .where(select(jobs.c.id).where(jobs.c.demand_id == demands.c.id, _ready()).exists(), lanes.c.hold_reason.is_(None))
)
_BUSY = (
    select(jobs.c.agent_id, func.count().label("n"))
    .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
    .where(attempts.c.state.in_(store.LIVE_ATTEMPT), jobs.c.agent_id.in_(bindparam("agents", expanding=True)))
    .group_by(jobs.c.agent_id)
)
_HEADS = (
    select_jobs()
    .add_columns(jobs.c.spec["agent"].as_string())
    .where(jobs.c.demand_id == bindparam("demand"), _ready())
    .order_by(jobs.c.priority.desc(), jobs.c.id)
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)
OUTLOOK = (
    select(func.min(jobs.c.not_before))
    .where(jobs.c.state == literal_column("'queued'"), jobs.c.not_before > bindparam("now", type_=UTCDateTime))
    .scalar_subquery()
    .label("next_due"),
    select(jobs.c.id)
    .where(jobs.c.state == literal_column("'queued'"), jobs.c.agent_id.is_(None))
    .exists()
    .label("has_unassigned"),
)
"""When the earliest delayed job is ready, and whether work waits for an agent: asked together with the lead."""


def _wishes(tx: Transaction) -> list[_Wish]:
    """Demands that have ready jobs and an open lane. One index probe per demand, however many jobs wait."""
    rows = tx.conn.execute(_WISHES, {"now": tx.now}).all()
    limited = sorted({row.agent_id for row in rows if row.max_active is not None})
    busy: dict[str, int] = {}
    if limited:
        busy = {row.agent_id: row.n for row in tx.conn.execute(_BUSY, {"agents": limited})}
    return [
        _Wish(
            demand_id=row.id,
            agent_id=row.agent_id,
            needs=Needs.from_json(row.needs, takes_slot=bool(row.takes_slot)),
            told_hold=row.hold_reason,
            lane_room=None if row.max_active is None else max(0, row.max_active - busy.get(row.agent_id, 0)),
        )
        for row in rows
    ]


def _is_open(tx: Transaction, wish: _Wish, nodes: Sequence[NodeFacts]) -> bool:
    """Whether some node could run it. Keeps the demand's reason to wait true on the way."""
    able = bool(candidates(wish.needs, nodes))
    reason = None if able else why_none(wish.needs, nodes)
    if reason != wish.told_hold:
        tx.conn.execute(update(demands).where(demands.c.id == wish.demand_id).values(hold_reason=reason))
    return able


def _heads(tx: Transaction, wishes: Sequence[_Wish], room: Room, batch: int) -> Iterator[tuple[_Wish, Job, str]]:
    """The first jobs of every demand, merged by urgency and age; locked, leaving out what others hold."""
    lists: list[list[tuple[tuple[int, str], int, Job, str]]] = []
    for index, wish in enumerate(wishes):
        most = min(batch, room.total(wish.needs), batch if wish.lane_room is None else wish.lane_room)
        if most <= 0:
            continue
        rows = tx.conn.execute(_HEADS, {"demand": wish.demand_id, "now": tx.now, "most": most})
        found = [(job_of(row), row[len(JOB_FIELDS)] or "") for row in rows]
        lists.append([((-job.priority, job.id), index, job, name) for job, name in found])
    merged = heapq.merge(*lists)
    for _, index, job, name in list(merged)[:batch]:
        yield wishes[index], job, name
