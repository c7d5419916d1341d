"""Statements of circuit breakers. Rows are locked in the order of their names, and after those of jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, literal, literal_column, or_, select, update

from coordinator.domains.queue import store
from coordinator.domains.queue.models import (
    attempts,
    breaker_buckets,
    breaker_changes,
    breakers,
    demands,
    lanes,
)
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page
from shared.policy.breaker import Breaker, BreakerState, Thresholds

THRESHOLDS = tuple(Thresholds.__dataclass_fields__)
KEPT = tuple(name for name in Breaker.__dataclass_fields__ if name not in ("name", "thresholds"))
LONGEST_HISTORY = 200
"""So many changes of a breaker are kept."""

ANY_BREAKER = select(breakers.c.name).exists()
ANY_NOT_CLOSED = select(breakers.c.name).where(breakers.c.state != literal_column("'closed'")).exists()
"""True while some breaker is open or half open: asked along with another statement, it costs no round trip."""
NEXT_PROBE = select(func.min(breakers.c.probe_from).label("at")).where(
    breakers.c.state == literal_column("'open'"),
    breakers.c.probe_from > bindparam("now", type_=breakers.c.probe_from.type),
)
"""When the next open breaker may be tried."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A breaker with what its row says about itself; None for one that has no row."""

    breaker: Breaker
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a breaker's history."""

    at: datetime
    source: str
    target: str
    cause: str
    changed_by: str | None


@dataclass(frozen=True, slots=True)
class Dependence:
    """What the jobs of one demand depend on, by name of breaker, and what their agent is called now."""

    names: Sequence[str]
    agent: str | None


_COLUMNS = select(breakers)
_LOCKED = (
    _COLUMNS.where(breakers.c.name.in_(bindparam("names", expanding=True))).order_by(breakers.c.name).with_for_update()
)
_LOCKED_NOT_CLOSED = (
    _COLUMNS.where(breakers.c.state != literal_column("'closed'")).order_by(breakers.c.name).with_for_update()
)
_DEPENDENCES = (
    select(demands.c.id, demands.c.needs["breakers"].label("names"), lanes.c.agent_name)
    .outerjoin(lanes, lanes.c.agent_id == demands.c.agent_id)
    .where(demands.c.id.in_(bindparam("ids", expanding=True)))
)
_LIVE = select(attempts.c.id).where(
    attempts.c.id.in_(bindparam("ids", expanding=True)), attempts.c.state.in_(store.LIVE_ATTEMPT)
)
_SAVE = (
    update(breakers)
    .where(breakers.c.name == bindparam("of_name"))
    .values(
        {name: bindparam(f"new_{name}", type_=breakers.c[name].type) for name in (*THRESHOLDS, *KEPT, "updated_at")}
        | {"version": breakers.c.version + 1}
    )
)


def breaker_of(row: Any) -> Breaker:
    kept = {name: getattr(row, name) for name in KEPT}
    kept |= {"state": BreakerState(row.state), "forced": bool(row.forced)}
    return Breaker(row.name, Thresholds(**{name: getattr(row, name) for name in THRESHOLDS}), **kept)


def lock(tx: Transaction, names: Collection[str]) -> dict[str, Breaker]:
    """Those of them that there are, locked."""
    rows = tx.conn.execute(_LOCKED, {"names": sorted(names)})
    return {row.name: breaker_of(row) for row in rows}


def lock_not_closed(tx: Transaction) -> dict[str, Breaker]:
    """Every breaker that keeps work from going, locked."""
    return {row.name: breaker_of(row) for row in tx.conn.execute(_LOCKED_NOT_CLOSED)}


def make(tx: Transaction, fresh: Iterable[Breaker]) -> set[str]:
    """Insert those that are not there yet, in order of name so that two who make the same never deadlock.

    Answers which of them were made.
    """
    made: set[str] = set()
    for breaker in sorted(fresh, key=lambda each: each.name):
        row = {"name": breaker.name, **_values(breaker), "created_at": tx.now, "updated_at": tx.now, "version": 1}
        insertion = store.upsert(tx, breakers).values(row).on_conflict_do_nothing(index_elements=["name"])
        if tx.conn.execute(insertion.returning(breakers.c.name)).first() is not None:
            made.add(breaker.name)
    return made


def save(tx: Transaction, changed: Sequence[Breaker]) -> None:
    """Write breakers that the caller has locked."""
    rows = [
        {"of_name": each.name, "new_updated_at": tx.now}
        | {f"new_{name}": value for name, value in _values(each).items()}
        for each in changed
    ]
    if rows:
        tx.conn.execute(_SAVE, rows)


def _values(breaker: Breaker) -> dict[str, Any]:
    numbers = {name: getattr(breaker.thresholds, name) for name in THRESHOLDS}
    return numbers | {name: getattr(breaker, name) for name in KEPT} | {"state": str(breaker.state)}


def dependences(tx: Transaction, demand_ids: Collection[str]) -> dict[str, Dependence]:
    """What the jobs of these demands depend on."""
    rows = tx.conn.execute(_DEPENDENCES, {"ids": sorted(demand_ids)})
    return {row.id: Dependence(tuple(row.names or ()), row.agent_name) for row in rows}


def live(tx: Transaction, attempt_ids: Collection[str]) -> set[str]:
    """Those of the attempts that are on their way or running."""
    return {row.id for row in tx.conn.execute(_LIVE, {"ids": sorted(attempt_ids)})} if attempt_ids else set()


def failures_within(tx: Transaction, known: Collection[Breaker]) -> dict[str, int]:
    """How many failures lie within the window of each."""
    oldest = {each.name: each.thresholds.oldest_bucket(tx.now) for each in known}
    if not oldest:
        return {}
    counts = dict.fromkeys(oldest, 0)
    for row in tx.conn.execute(select(breaker_buckets).where(breaker_buckets.c.name.in_(sorted(oldest)))):
        if row.bucket >= oldest[row.name]:
            counts[row.name] += row.failures
    return counts


def count_failures(tx: Transaction, breaker: Breaker, failures: int) -> None:
    """Note failures of now, and forget those that have left the window."""
    slices = breaker_buckets.c
    tx.conn.execute(
        delete(breaker_buckets).where(
            slices.name == breaker.name, slices.bucket < breaker.thresholds.oldest_bucket(tx.now)
        )
    )
    row = {"name": breaker.name, "bucket": breaker.thresholds.bucket(tx.now), "failures": failures}
    added = store.upsert(tx, breaker_buckets).values(row)
    more = {"failures": slices.failures + added.excluded.failures}
    tx.conn.execute(added.on_conflict_do_update(index_elements=["name", "bucket"], set_=more))


def forget_failures(tx: Transaction, names: Collection[str]) -> None:
    """Empty the windows of these."""
    tx.conn.execute(delete(breaker_buckets).where(breaker_buckets.c.name.in_(sorted(names))))


def note_change(tx: Transaction, name: str, change: Change) -> None:
    """Append to the history, and let go of its far end."""
    values = {field: getattr(change, field) for field in Change.__dataclass_fields__}
    tx.conn.execute(insert(breaker_changes).values(name=name, **values))
    mine = select(breaker_changes.c.id).where(breaker_changes.c.name == name).order_by(breaker_changes.c.id.desc())
    far = mine.offset(LONGEST_HISTORY).limit(1).scalar_subquery()
    tx.conn.execute(delete(breaker_changes).where(breaker_changes.c.name == name, breaker_changes.c.id <= far))


def histories(tx: Transaction, names: Collection[str], limit: int) -> dict[str, list[Change]]:
    """The last changes of each, newest first."""
    number = func.row_number().over(partition_by=breaker_changes.c.name, order_by=breaker_changes.c.id.desc())
    ranked = select(breaker_changes, number.label("n")).where(breaker_changes.c.name.in_(sorted(names))).subquery()
    found: dict[str, list[Change]] = {name: [] for name in names}
    for row in tx.conn.execute(select(ranked).where(ranked.c.n <= limit).order_by(ranked.c.id.desc())):
        found[row.name].append(Change(row.at, row.source, row.target, row.cause, row.changed_by))
    return found


def find(tx: Transaction, name: str) -> Stored | None:
    row = tx.conn.execute(_COLUMNS.where(breakers.c.name == name)).one_or_none()
    return None if row is None else _stored(row)


def list_page(tx: Transaction, page: PageRequest) -> Page[Stored]:
    """Those that keep work from going first, then by name."""
    in_the_way = case((breakers.c.state == literal_column("'closed'"), 1), else_=0)
    found = fetch_page(tx, _COLUMNS.order_by(in_the_way, breakers.c.name), page)
    return Page([_stored(row) for row in found.items], found.total)


def _stored(row: Any) -> Stored:
    return Stored(breaker_of(row), row.created_at, row.updated_at)


def called(tx: Transaction, agent_id: str) -> str | None:
    """What the agent of a lane was called so far."""
    return tx.conn.scalar(select(lanes.c.agent_name).where(lanes.c.agent_id == agent_id))


def copy_failures(tx: Transaction, source: str, target: str) -> None:
    """Give one breaker the window of another."""
    slices = breaker_buckets.c
    theirs = select(literal(target, slices.name.type), slices.bucket, slices.failures).where(slices.name == source)
    tx.conn.execute(insert(breaker_buckets).from_select(["name", "bucket", "failures"], theirs))


def forget(tx: Transaction, kinds: Sequence[str], like: Thresholds, *, quiet_since: datetime, limit: int) -> int:
    """Let go of closed breakers of these kinds that nobody configured and nothing has failed for; answers how many."""
    plain = and_(*(breakers.c[name] == getattr(like, name) for name in THRESHOLDS))
    idle = select(breakers.c.name).where(
        breakers.c.state == literal_column("'closed'"),
        breakers.c.forced.is_(False),
        or_(*(breakers.c.name.startswith(kind, autoescape=True) for kind in kinds)),
        func.coalesce(breakers.c.last_failure_at, breakers.c.created_at) < quiet_since,
        plain,
    )
    chosen = idle.order_by(breakers.c.name).limit(limit).with_for_update(skip_locked=True)
    names = list(tx.conn.scalars(chosen))
    return tx.conn.execute(delete(breakers).where(breakers.c.name.in_(names))).rowcount if names else 0


def states(tx: Transaction) -> Mapping[str, int]:
    """How many breakers stand how."""
    query = select(breakers.c.state, func.count().label("n")).group_by(breakers.c.state)
    return {row.state: row.n for row in tx.conn.execute(query)}


__all__ = [
    "ANY_BREAKER",
    "ANY_NOT_CLOSED",
    "NEXT_PROBE",
    "Change",
    "Dependence",
    "Stored",
    "breaker_of",
    "called",
    "copy_failures",
    "count_failures",
    "dependences",
    "failures_within",
    "find",
    "forget",
    "forget_failures",
    "histories",
    "list_page",
    "live",
    "lock",
    "lock_not_closed",
    "make",
    "note_change",
    "save",
    "states",
]
