"""Who leads: one holder at a time, with an epoch that every write of a leader carries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, select, update

from coordinator.domains.queue.models import leaders
from coordinator.domains.queue.store import upsert
from coordinator.store.database import Transaction
from coordinator.store.schema import UTCDateTime
from shared.errors import Conflict

DISPATCHER = "dispatcher"


class NotLeading(Conflict):
    """Somebody else leads by now; what this process wanted to write is not written."""


@dataclass(frozen=True, slots=True)
class Term:
    """One unbroken time of leading. Leases are not judged before `since` is older than the grace."""

    holder: str
    epoch: int
    since: datetime


def campaign(tx: Transaction, *, holder: str, seconds: float) -> Term | None:
    """Take the lead when nobody has it; None while somebody else does."""
    new = {"holder": holder, "epoch": 1, "since": tx.now, "until": tx.now + timedelta(seconds=seconds)}
    fresh = upsert(tx, leaders).values(name=DISPATCHER, **new).on_conflict_do_nothing(index_elements=["name"])
    if tx.conn.execute(fresh.returning(leaders.c.epoch)).first() is not None:
        return Term(holder, 1, tx.now)
    takeover = (
        update(leaders)
        .where(leaders.c.name == DISPATCHER, leaders.c.until < tx.now)
        .values(new | {"epoch": leaders.c.epoch + 1})
        .returning(leaders.c.epoch)
    )
    row = tx.conn.execute(takeover).first()
    return Term(holder, row.epoch, tx.now) if row else None


def renew(tx: Transaction, term: Term, *, seconds: float) -> None:
    """Lead on; NotLeading when the term is over.

    One that ran out is over even if nobody has taken the lead since: for a while nobody led (the database was away, or
    a clock was set), so no heartbeat may have been taken in either, and leases must have their grace anew.
    """
    mine = (leaders.c.name == DISPATCHER, leaders.c.holder == term.holder, leaders.c.epoch == term.epoch)
    going_on = update(leaders).where(*mine, leaders.c.until >= tx.now)
    statement = going_on.values(until=tx.now + timedelta(seconds=seconds))
    if tx.conn.execute(statement).rowcount == 0:
        raise NotLeading("the term is over")


def is_led(tx: Transaction) -> bool:
    """Whether somebody leads now."""
    query = select(leaders.c.epoch).where(leaders.c.name == DISPATCHER, leaders.c.until > tx.now)
    return tx.conn.execute(query).first() is not None


def require(tx: Transaction, term: Term, *, also: tuple[ColumnElement[Any], ...] = ()) -> Row[Any]:
    """Hold the lead's row to the end of this transaction; NotLeading when the term is over.

    `also` are scalar subqueries that come along: their values are in the answer, and a round trip is saved. They may
    use the parameter `now`.
    """
    given = {"holder": term.holder, "epoch": term.epoch, "now": tx.now}
    row = tx.conn.execute(_held(also), given).first()
    if row is None:
        raise NotLeading("the term is over")
    return row


@cache
def _held(also: tuple[ColumnElement[Any], ...]) -> Select[Any]:
    mine = (
        leaders.c.name == DISPATCHER,
        leaders.c.holder == bindparam("holder"),
        leaders.c.epoch == bindparam("epoch"),
        leaders.c.until >= bindparam("now", type_=UTCDateTime),
    )
    return select(leaders.c.epoch, *also).where(*mine).with_for_update(read=True, of=leaders)


def resign(tx: Transaction, term: Term) -> None:
    """End the term now, so that the next leader need not wait for it to run out."""
    mine = (leaders.c.name == DISPATCHER, leaders.c.holder == term.holder, leaders.c.epoch == term.epoch)
    tx.conn.execute(update(leaders).where(*mine).values(until=tx.now - timedelta(seconds=1)))
