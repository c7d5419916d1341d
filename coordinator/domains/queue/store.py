"""Statements of the queue layer: reading, and the few writes that change no state."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import orjson
from sqlalchemy import ColumnElement, Select, Table, case, func, insert, literal, literal_column, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.domains.queue.models import (
    agent_stats as totals,
)
from coordinator.domains.queue.models import (
    attempts,
    demands,
    job_events,
    job_inputs,
    job_results,
    jobs,
    lanes,
)
from coordinator.domains.queue.rows import (
    ATTEMPT_FIELDS,
    JOB_FIELDS,
    Attempt,
    Job,
    job_of,
    pair_of,
    select_jobs,
    select_pairs,
)
from coordinator.domains.queue.states import ENDED, ON_A_NODE, JobState
from coordinator.store.database import Transaction
from coordinator.store.hints import likely
from coordinator.store.paging import Page, PageRequest, fetch_page
from coordinator.store.rowset import insert_many

# Written out in the text: a partial index serves only a condition that the planner can see.
LIVE_ATTEMPT: tuple[ColumnElement[str], ...] = (literal_column("'dispatched'"), literal_column("'running'"))
FRESH = (
    "id",
    "space",
    "kind",
    "agent_id",
    "demand_id",
    "priority",
    "rank",
    "is_exclusive",
    "state",
    "spec",
    "retry",
    "generation",
    "attempts_made",
    "fail_count",
    "infra_count",
    "deadline_at",
    "created_by",
    "created_at",
    "updated_at",
    "version",
)


@dataclass(frozen=True, slots=True)
class Demand:
    """All jobs of one agent that ask for the same kind of node. The id follows from the content."""

    id: str
    agent_id: str
    space: str
    needs: Mapping[str, Any]
    takes_slot: bool

    @classmethod
    def of(cls, agent_id: str, needs: Mapping[str, Any], *, space: str, takes_slot: bool) -> Self:
        told = {name: value for name, value in needs.items() if value not in (None, {}, [])}
        text = orjson.dumps([agent_id, told, takes_slot], option=orjson.OPT_SORT_KEYS)
        return cls(str(uuid.uuid5(uuid.NAMESPACE_OID, text.decode())), agent_id, space, told, takes_slot)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's timeline: a move, or a log line (type "log")."""

    id: int
    job_id: str
    attempt_number: int | None
    at: datetime
    type: str
    level: str
    stream: str | None
    message: str
    data: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AgentStats:
    """An agent's work in numbers. `active` is on a node now, `waiting` is queued."""

    active: int = 0
    waiting: int = 0
    succeeded: int = 0
    failed: int = 0
    run_ms: int = 0


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as others may see it. `attempts` covers all generations, oldest first; lists leave `result` out."""

    id: str
    space: str
    kind: str
    agent_id: str | None
    priority: int
    state: JobState
    hold_reason: str | None
    reason_code: str | None
    error: Mapping[str, Any] | None
    generation: int
    spec: Mapping[str, Any]
    retry: Mapping[str, Any]
    deadline_at: datetime | None
    not_before: datetime | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    version: int
    current_attempt_id: str | None
    rank: int = 0
    attempts: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Any] | None = None
    result: Any = None

    @property
    def accepted_attempt_id(self) -> str | None:
        """The attempt whose word counted, once the job has ended."""
        return self.current_attempt_id if self.state in ENDED else None


def upsert(tx: Transaction, table: Table) -> Any:
    """The dialect's INSERT, which alone knows ON CONFLICT."""
    return (sqlite if tx.conn.dialect.name == "sqlite" else postgresql).insert(table)


def ensure_demands(tx: Transaction, wanted: Sequence[Demand]) -> None:
    for demand in sorted(wanted, key=lambda item: item.id):
        row = {name: getattr(demand, name) for name in ("id", "agent_id", "space", "needs", "takes_slot")}
        tx.conn.execute(upsert(tx, demands).values(row).on_conflict_do_nothing(index_elements=["id"]))


def insert_jobs(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_many(tx.conn, jobs, FRESH, rows)
    inputs = [
        {"job_id": row["id"], "file_id": item["id"]} for row in rows for item in row["spec"].get("input_files", ())
    ]
    if inputs:
        insert_many(tx.conn, job_inputs, ("job_id", "file_id"), inputs)


def lock_job(tx: Transaction, job_id: str) -> Job | None:
    row = tx.conn.execute(select_jobs().where(jobs.c.id == job_id).with_for_update()).first()
    return job_of(row) if row else None


def lock_jobs(tx: Transaction, where: ColumnElement[bool], limit: int) -> list[tuple[Job, Attempt | None]]:
    """Jobs with their current attempts, locked; rows that somebody else holds are left for the next time."""
    query = select_jobs().where(where).order_by(jobs.c.id).limit(limit).with_for_update(skip_locked=True)
    found = [job_of(row) for row in tx.conn.execute(query)]
    current = [job.current_attempt_id for job in found if job.state in ON_A_NODE and job.current_attempt_id]
    held: dict[str, Attempt] = {}
    if current:
        rows = tx.conn.execute(select_pairs().where(attempts.c.id.in_(current)))
        held = {attempt.id: attempt for attempt, _ in map(pair_of, rows)}
    return [(job, held.get(job.current_attempt_id or "")) for job in found]


def lock_live_attempts(tx: Transaction, where: ColumnElement[bool], limit: int) -> list[tuple[Attempt, Job]]:
    query = select_pairs().where(where).order_by(jobs.c.id).limit(limit).with_for_update(of=jobs, skip_locked=True)
    return [pair_of(row) for row in tx.conn.execute(query)]


def current_attempt(tx: Transaction, job: Job) -> Attempt | None:
    """The attempt that a node has or is being sent; None for a job that is not on a node."""
    if job.state not in ON_A_NODE or job.current_attempt_id is None:
        return None
    row = tx.conn.execute(select_pairs().where(attempts.c.id == job.current_attempt_id)).first()
    return pair_of(row)[0] if row else None


def pair(tx: Transaction, attempt_id: str) -> tuple[Attempt, Job, Mapping[str, Any]] | None:
    query = select_pairs().add_columns(jobs.c.spec).where(attempts.c.id == attempt_id)
    row = tx.conn.execute(query).first()
    return (*pair_of(row[: len(ATTEMPT_FIELDS) + len(JOB_FIELDS)]), row.spec) if row else None  # type: ignore[arg-type]


def rewrite(tx: Transaction, job: Job, **changes: Any) -> None:
    """Change what a waiting job asks for; its state stays."""
    values = changes | {"version": job.version + 1, "updated_at": tx.now}
    tx.conn.execute(update(jobs).where(jobs.c.id == job.id, jobs.c.version == job.version).values(values))


def set_result(tx: Transaction, job_id: str, *, attempt_id: str, result: Any) -> None:
    tx.conn.execute(insert(job_results).values(job_id=job_id, attempt_id=attempt_id, result=result))


def hold_unassigned(tx: Transaction, job_id: str, reason: str) -> None:
    still = (jobs.c.id == job_id, jobs.c.state == "queued", jobs.c.agent_id.is_(None))
    tx.conn.execute(update(jobs).where(*still, jobs.c.hold_reason.is_distinct_from(reason)).values(hold_reason=reason))


def demand(tx: Transaction, demand_id: str | None) -> Demand | None:
    row = tx.conn.execute(select(demands).where(demands.c.id == demand_id)).first() if demand_id else None
    return Demand(row.id, row.agent_id, row.space, row.needs, row.takes_slot) if row else None


def set_lane(
    tx: Transaction, agent_id: str, *, hold_reason: str | None, max_active: int | None, agent_name: str | None
) -> None:
    new = {"hold_reason": hold_reason, "max_active": max_active} | ({"agent_name": agent_name} if agent_name else {})
    statement = upsert(tx, lanes).values(agent_id=agent_id, **new)
    tx.conn.execute(statement.on_conflict_do_update(index_elements=["agent_id"], set_=new))


def _viewed() -> Select[Any]:
    """Jobs with the reason that holds them, wherever it is kept."""
    held = func.coalesce(jobs.c.hold_reason, lanes.c.hold_reason, demands.c.hold_reason)
    waits = case((jobs.c.state == str(JobState.queued), held), else_=None).label("hold")
    return select(jobs, waits).select_from(
        jobs.outerjoin(demands, demands.c.id == jobs.c.demand_id).outerjoin(lanes, lanes.c.agent_id == jobs.c.agent_id)
    )


def full_views(tx: Transaction, job_ids: Collection[str]) -> dict[str, JobView]:
    query = (
        _viewed()
        .add_columns(job_results.c.result)
        .outerjoin(job_results, job_results.c.job_id == jobs.c.id)
        .where(jobs.c.id.in_(job_ids))
    )
    rows = {row.id: row for row in tx.conn.execute(query)}
    tries = attempts_of(tx, list(rows))
    return {job_id: _view(row, tries.get(job_id, []), result=row.result) for job_id, row in rows.items()}


def list_jobs(
    tx: Transaction,
    *,
    space: str,
    kind: str,
    page: PageRequest,
    states: Collection[JobState] | None,
    has_agent: bool | None,
    priority: int | None,
    agent_id: str | None,
) -> Page[JobView]:
    where: list[ColumnElement[bool]] = [jobs.c.space == space, jobs.c.kind == kind]
    if states is not None:
        where.append(jobs.c.state.in_([str(state) for state in states]))
    if has_agent is not None:
        where.append(jobs.c.agent_id.is_not(None) if has_agent else jobs.c.agent_id.is_(None))
    if priority is not None:
        where.append(jobs.c.priority == priority)
    if agent_id is not None:
        where.append(jobs.c.agent_id == agent_id)
    # The page is found on the index alone and joined afterwards: a deep page never drags wide rows along.
    found = fetch_page(tx, select(jobs.c.id).where(*where).order_by(jobs.c.id.desc()), page)
    ids = [row.id for row in found.items]
    rows = {row.id: row for row in tx.conn.execute(_viewed().where(jobs.c.id.in_(ids)))} if ids else {}
    tries = attempts_of(tx, ids)
    return Page([_view(rows[job_id], tries.get(job_id, [])) for job_id in ids if job_id in rows], found.total)


WITHOUT_AGENT = select(jobs.c.id).where(
    jobs.c.state == literal_column("'queued'"),
    # Else SQLite goes by an index on agent_id, and sorts all that waits.
    likely(jobs.c.agent_id.is_(None)),
)
"""Waiting jobs that have no agent."""


def unassigned(tx: Transaction, limit: int, *, after: JobView | None) -> list[JobView]:
    query = WITHOUT_AGENT.order_by(jobs.c.rank, jobs.c.id).limit(limit)
    if after is not None:
        seen = (literal(after.rank, jobs.c.rank.type), literal(after.id, jobs.c.id.type))
        query = query.where(tuple_(jobs.c.rank, jobs.c.id) > tuple_(*seen))
    ids = list(tx.conn.execute(query).scalars())
    rows = {row.id: row for row in tx.conn.execute(_viewed().where(jobs.c.id.in_(ids)))} if ids else {}
    return [_view(rows[job_id], []) for job_id in ids]


def attempts_of(tx: Transaction, job_ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The attempts of these jobs, oldest first."""
    if not job_ids:
        return {}
    query = select(attempts).where(attempts.c.job_id.in_(job_ids)).order_by(attempts.c.job_id, attempts.c.number)
    tries: dict[str, list[dict[str, Any]]] = {}
    for row in tx.conn.execute(query):
        tries.setdefault(row.job_id, []).append(_attempt_view(row))
    return tries


def _attempt_view(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "generation": row.generation,
        "node_id": row.node_id,
        "node_name": row.node_name,
        "state": row.state,
        "reason_code": row.reason_code,
        "exit_code": row.exit_code,
        "dispatched_at": row.dispatched_at,
        "started_at": row.claimed_at,
        "ended_at": row.ended_at,
        "error": row.error,
        "usage": row.usage,
        "computer": row.computer,
    }


def _view(row: Any, tries: Sequence[Mapping[str, Any]], *, result: Any = None) -> JobView:
    last = next((item for item in tries if item["id"] == row.current_attempt_id), tries[-1] if tries else None)
    return JobView(
        id=row.id,
        space=row.space,
        kind=row.kind,
        agent_id=row.agent_id,
        priority=row.priority,
        state=JobState(row.state),
        hold_reason=row.hold,
        reason_code=row.reason_code,
        error=row.error,
        generation=row.generation,
        spec=row.spec,
        retry=row.retry,
        deadline_at=row.deadline_at,
        not_before=row.not_before,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        version=row.version,
        current_attempt_id=row.current_attempt_id,
        rank=row.rank,
        attempts=tries,
        usage=last["usage"] if last else None,
        result=result,
    )


def stats(tx: Transaction, *, space: str, kind: str) -> dict[tuple[JobState, bool, int], int]:
    has_agent = jobs.c.agent_id.is_not(None).label("has_agent")
    query = (
        select(jobs.c.state, has_agent, jobs.c.priority, func.count().label("n"))
        .where(jobs.c.space == space, jobs.c.kind == kind)
        .group_by(jobs.c.state, has_agent, jobs.c.priority)
    )
    return {(JobState(row.state), bool(row.has_agent), row.priority): row.n for row in tx.conn.execute(query)}


def count_in_space(tx: Transaction, space: str, most: int) -> int:
    """How many jobs of all times a space has, counted up to `most`."""
    some = select(jobs.c.id).where(jobs.c.space == space).limit(most)
    return tx.conn.scalar(select(func.count()).select_from(some.subquery())) or 0


def agent_stats(tx: Transaction, agent_ids: Collection[str]) -> dict[str, AgentStats]:
    if not agent_ids:
        return {}
    ended = {row.agent_id: row for row in tx.conn.execute(select(totals).where(totals.c.agent_id.in_(agent_ids)))}
    live_states = [str(state) for state in (*ON_A_NODE, JobState.queued)]
    query = (
        select(jobs.c.agent_id, jobs.c.state, func.count().label("n"))
        .where(jobs.c.agent_id.in_(agent_ids), jobs.c.state.in_(live_states))
        .group_by(jobs.c.agent_id, jobs.c.state)
    )
    active: dict[str, int] = {}
    waiting: dict[str, int] = {}
    for row in tx.conn.execute(query):
        side = waiting if row.state == str(JobState.queued) else active
        side[row.agent_id] = side.get(row.agent_id, 0) + row.n
    return {
        agent_id: AgentStats(
            active=active.get(agent_id, 0),
            waiting=waiting.get(agent_id, 0),
            succeeded=ended[agent_id].succeeded if agent_id in ended else 0,
            failed=ended[agent_id].failed if agent_id in ended else 0,
            run_ms=ended[agent_id].run_ms if agent_id in ended else 0,
        )
        for agent_id in agent_ids
    }


def busy_agents(tx: Transaction) -> frozenset[str]:
    query = (
        select(jobs.c.agent_id)
        .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
        .where(attempts.c.state.in_(LIVE_ATTEMPT), jobs.c.agent_id.is_not(None))
        .distinct()
    )
    return frozenset(row.agent_id for row in tx.conn.execute(query))


def events_after(tx: Transaction, job_id: str, after: int, limit: int, *, event_type: str | None) -> list[JobEvent]:
    query = select(job_events).where(job_events.c.job_id == job_id, job_events.c.id > after)
    if event_type is not None:
        query = query.where(job_events.c.type == event_type)
    rows = tx.conn.execute(query.order_by(job_events.c.id).limit(limit))
    return [
        JobEvent(r.id, r.job_id, r.attempt_number, r.at, r.type, r.level, r.stream, r.message, r.data) for r in rows
    ]


def live_jobs_using(tx: Transaction, file_id: str) -> int:
    query = (
        select(func.count())
        .select_from(job_inputs.join(jobs, jobs.c.id == job_inputs.c.job_id))
        .where(job_inputs.c.file_id == file_id, jobs.c.state.not_in([str(state) for state in ENDED]))
    )
    return tx.conn.scalar(query) or 0
