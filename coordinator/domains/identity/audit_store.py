"""Statements of the audit trail. Rows are added, sealed once, and removed from their beginning; nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, String, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from coordinator.domains.identity.audit_chain import START, Head
from coordinator.domains.identity.models import audit_anchors, audit_trail, audit_uses, principals
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page
from coordinator.store.rowset import rowset
from coordinator.store.schema import Id
from shared.ids import is_id

STREAMED_ROWS = 1000
_PLACES: Mapping[str, TypeEngine[Any]] = {"id": Id, "sequence": BigInteger(), "hash": String(64)}

# Built once: building a statement costs more than running it.
_ADD = insert(audit_trail)
_UNSEALED = select(audit_trail).where(audit_trail.c.sequence.is_(None)).order_by(audit_trail.c.id)
_LAST_SEALED = (
    select(audit_trail.c.sequence, audit_trail.c.hash)
    .where(audit_trail.c.sequence.is_not(None))
    .order_by(audit_trail.c.sequence.desc())
    .limit(1)
)
_ANCHOR = select(audit_anchors.c.sequence, audit_anchors.c.hash).order_by(audit_anchors.c.sequence.desc()).limit(1)
_SEALED = select(audit_trail).where(audit_trail.c.sequence.is_not(None)).order_by(audit_trail.c.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which rows a reader asks for; None asks nothing. An action that ends in `*` stands for all that begin so."""

    actor: str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    tx.conn.execute(_ADD, row)


def page(tx: Transaction, sought: Sought, request: PageRequest) -> Page[Row[Any]]:
    """Rows newest first; each condition is served by an index of its own."""
    newest_first = (audit_trail.c.at.desc(), audit_trail.c.id.desc())
    return fetch_page(tx, select(audit_trail).where(*_conditions(sought)).order_by(*newest_first), request)


def _conditions(sought: Sought) -> Iterator[ColumnElement[bool]]:
    column = audit_trail.c
    if sought.actor is not None:
        yield (column.actor_id == sought.actor.lower()) if is_id(sought.actor) else (column.actor_name == sought.actor)
    if sought.action is not None:
        yield from _of_action(sought.action)
    for name in ("resource_type", "resource_id", "outcome"):
        if (value := getattr(sought, name)) is not None:
            yield column[name] == value
    if sought.since is not None:
        yield column.at >= sought.since
    if sought.until is not None:
        yield column.at < sought.until


def _of_action(action: str) -> Iterator[ColumnElement[bool]]:
    prefix = action.removesuffix("*")
    if prefix == action:
        yield audit_trail.c.action == action
    elif prefix:
        # Every text with this prefix lies between it and the same with its last letter raised by one.
        yield audit_trail.c.action >= prefix
        yield audit_trail.c.action < prefix[:-1] + chr(ord(prefix[-1]) + 1)


# ---- sealing


def unsealed(tx: Transaction, limit: int) -> Sequence[Row[Any]]:
    """What was committed and has no place yet, oldest id first."""
    return tx.conn.execute(_UNSEALED.limit(limit)).all()


def count_unsealed(tx: Transaction) -> int:
    return tx.conn.scalar(select(func.count()).select_from(audit_trail).where(audit_trail.c.sequence.is_(None))) or 0


def set_places(tx: Transaction, places: Sequence[tuple[str, Head]]) -> int:
    """Give rows their places in the chain; answers how many had none before."""
    rows = [{"id": row_id, "sequence": head.sequence, "hash": head.hash} for row_id, head in places]
    given = rowset(tx.conn, "places", _PLACES, rows)
    # Hidden in a sum, the second condition cannot lure SQLite into looking at all unsealed rows once for each place.
    has_none = (audit_trail.c.sequence + 0).is_(None)
    statement = (
        update(audit_trail)
        .values(sequence=given.c.sequence, hash=given.c.hash)
        .where(audit_trail.c.id == given.c.id, has_none)
    )
    return tx.conn.execute(statement).rowcount


def head(tx: Transaction) -> Head:
    """The end of the chain."""
    row = tx.conn.execute(_LAST_SEALED).one_or_none()
    return anchor(tx) if row is None else Head(row.sequence, row.hash)


def anchor(tx: Transaction) -> Head:
    """Where the kept part of the chain begins."""
    row = tx.conn.execute(_ANCHOR).one_or_none()
    return START if row is None else Head(row.sequence, row.hash)


# ---- walking


def hold_still(tx: Transaction) -> None:
    """Let this transaction, which must not have asked anything yet, see one moment from here on."""
    # SQLite does so by itself.
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


@contextmanager
def sealed(tx: Transaction) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Every sealed row in order of its sequence, a few at a time."""
    # Closed also by whoever stops half-way: on PostgreSQL the rest waits in a cursor of the server.
    with tx.conn.execute(_SEALED.execution_options(yield_per=STREAMED_ROWS)) as rows:
        yield (row._asdict() for row in rows)


def prunings(tx: Transaction, limit: int) -> Sequence[str | None]:
    """What the newest rows about removed rows tell, newest first."""
    told = select(audit_trail.c.after).where(audit_trail.c.action == "audit.pruned")
    return tx.conn.execute(told.order_by(audit_trail.c.at.desc(), audit_trail.c.id.desc()).limit(limit)).scalars().all()


# ---- removing


def oldest(tx: Transaction, limit: int) -> Sequence[Any]:
    """The first sealed rows there are: sequence, hash and time."""
    columns = select(audit_trail.c.sequence, audit_trail.c.hash, audit_trail.c.at)
    first = columns.where(audit_trail.c.sequence.is_not(None)).order_by(audit_trail.c.sequence).limit(limit)
    return tx.conn.execute(first).all()


def remove_through(tx: Transaction, last: Head) -> int:
    """Move the anchor to `last` and remove what lies before it; answers how many rows went."""
    tx.conn.execute(insert(audit_anchors).values(sequence=last.sequence, hash=last.hash, at=tx.now))
    return tx.conn.execute(delete(audit_trail).where(audit_trail.c.sequence <= last.sequence)).rowcount


# ---- uses of credentials


def note_use(tx: Transaction, credential_id: str, address: str, day: date) -> bool:
    """Whether this is the first time that day that the credential is used from there."""
    kind: Any = sqlite if tx.conn.dialect.name == "sqlite" else postgresql
    fresh = kind.insert(audit_uses).values(credential_id=credential_id, address=address, day=day)
    return tx.conn.execute(fresh.on_conflict_do_nothing().returning(audit_uses.c.day)).first() is not None


def forget_uses(tx: Transaction) -> int:
    """Drop the uses of past days."""
    return tx.conn.execute(delete(audit_uses).where(audit_uses.c.day < tx.now.date() - timedelta(days=1))).rowcount


# ---- names


def principal_named(tx: Transaction, principal_id: str) -> Any | None:
    """Kind and name of a principal, be it active or not."""
    return tx.conn.execute(select(principals.c.kind, principals.c.name).where(principals.c.id == principal_id)).first()
