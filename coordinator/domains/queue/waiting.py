"""What waits to be placed, as placement reads it: demands with ready jobs, their first jobs, and who is busy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Integer, and_, bindparam, func, literal_column, or_, select, union_all, update

from coordinator.domains.queue import store
from coordinator.domains.queue.breaker_store import ANY_NOT_CLOSED, NEXT_PROBE
from coordinator.domains.queue.gate import depends_on
from coordinator.domains.queue.models import attempts, demands, jobs, lanes
from coordinator.domains.queue.rows import JOB_FIELDS, Job, job_of, select_jobs
from coordinator.store.database import Transaction
from coordinator.store.schema import UTCDateTime
from shared.policy.placement import Needs


@dataclass(frozen=True, slots=True)
class Wish:
    """A demand with ready jobs whose lane is open. `max_active` is what its agent may run at a time, None: no limit."""

    demand_id: str
    agent_id: str
    space: str
    needs: Needs
    told_hold: str | None
    max_active: int | None
    depends_on: tuple[str, ...] = ()
    """The breakers that have to let it through."""
    some_are_open: bool = False
    """Whether any breaker of the fleet is not closed."""


@dataclass(slots=True)
class Busy:
    """How many attempts are on nodes or on their way to one."""

    by_agent: Counter[tuple[str, bool]] = field(default_factory=Counter)
    by_space: Counter[str] = field(default_factory=Counter)

    def of_agent(self, agent_id: str) -> int:
        return self.by_agent[agent_id, True] + self.by_agent[agent_id, False]

    def of_space(self, space: str) -> int:
        return self.by_space[space]

    def add(self, wish: Wish, count: int = 1) -> None:
        self.by_agent[wish.agent_id, wish.needs.takes_slot] += count
        self.by_space[wish.space] += count


def _ready() -> ColumnElement[bool]:
    due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= bindparam("now", type_=UTCDateTime))
    return and_(jobs.c.state == literal_column("'queued'"), due, jobs.c.waits_for_attempt_id.is_(None))


# Statements of the hot path are made once: making one costs more Python than running it. State words stand in the
# text, because a partial index serves only a condition that the planner can see.
WISHES = (
    select(demands, lanes.c.max_active, lanes.c.agent_name, ANY_NOT_CLOSED.label("some_are_open"))
    .outerjoin(lanes, lanes.c.agent_id == demands.c.agent_id)
    .where(select(jobs.c.id).where(jobs.c.demand_id == demands.c.id, _ready()).exists(), lanes.c.hold_reason.is_(None))
)
_BUSY = (
    select(jobs.c.space, jobs.c.agent_id, attempts.c.takes_slot, func.count().label("n"))
    .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
    .where(attempts.c.state.in_(store.LIVE_ATTEMPT))
    .group_by(jobs.c.space, jobs.c.agent_id, attempts.c.takes_slot)
)
HEADS = (
    select_jobs()
    .add_columns(jobs.c.spec["agent"].as_string(), jobs.c.rank)
    .where(jobs.c.demand_id == bindparam("demand"), _ready())
    .order_by(jobs.c.rank, jobs.c.id)
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)
_NEXT_READY = select(func.min(jobs.c.not_before).label("at")).where(
    jobs.c.state == literal_column("'queued'"), jobs.c.not_before > bindparam("now", type_=UTCDateTime)
)
_DUE = union_all(_NEXT_READY, NEXT_PROBE).subquery("due")
OUTLOOK = (
    select(func.min(_DUE.c.at)).scalar_subquery().label("next_due"),
    store.WITHOUT_AGENT.exists().label("has_unassigned"),
)
"""When the earliest delayed job is ready or an open breaker may be tried, and whether work waits for an agent: asked
together with the lead.
"""


def wishes(tx: Transaction) -> list[Wish]:
    """Demands that have ready jobs and an open lane. One index probe per demand, however many jobs wait."""
    return [
        Wish(
            demand_id=row.id,
            agent_id=row.agent_id,
            space=row.space,
            needs=Needs.from_json(row.needs, takes_slot=bool(row.takes_slot)),
            told_hold=row.hold_reason,
            max_active=row.max_active,
            depends_on=depends_on(row.needs, row.agent_name),
            some_are_open=bool(row.some_are_open),
        )
        for row in tx.conn.execute(WISHES, {"now": tx.now})
    ]


def busy(tx: Transaction) -> Busy:
    """Live attempts by agent and by space. Reads as many rows as the fleet runs, not as many as wait."""
    found = Busy()
    for row in tx.conn.execute(_BUSY):
        found.by_agent[row.agent_id, bool(row.takes_slot)] += row.n
        found.by_space[row.space] += row.n
    return found


def heads(tx: Transaction, demand_id: str, most: int) -> list[tuple[Job, str, int]]:
    """The first ready jobs of a demand with agent's name and rank; locked, leaving out what others hold."""
    rows = tx.conn.execute(HEADS, {"demand": demand_id, "now": tx.now, "most": most})
    return [(job_of(row[: len(JOB_FIELDS)]), row[len(JOB_FIELDS)] or "", row.rank) for row in rows]  # type: ignore[arg-type]


def tell_reasons(tx: Transaction, wishes: Sequence[Wish], reasons: Mapping[str, str | None]) -> None:
    """Keep the demands' reasons to wait true. Writes only what is new, once for each reason."""
    news: dict[str | None, list[str]] = {}
    for wish in wishes:
        if reasons[wish.demand_id] != wish.told_hold:
            news.setdefault(reasons[wish.demand_id], []).append(wish.demand_id)
    for reason, ids in news.items():
        tx.conn.execute(update(demands).where(demands.c.id.in_(ids)).values(hold_reason=reason))
