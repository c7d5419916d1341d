"""Queries of the identity domain about wrong passwords and codes, and about where somebody came from before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, delete, null, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.domains.identity.models import known_addresses, login_failures
from coordinator.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Counter:
    """One row of `login_failures`."""

    count: int
    began_at: datetime
    locked_until: datetime | None


def find(tx: Transaction, login: str, places: Sequence[str], *, hold: bool) -> dict[str, Counter]:
    """The counters of a login by place; with `hold` nobody counts on before the transaction ends."""
    table = login_failures
    wanted = (
        select(table.c.address, table.c.count, table.c.began_at, table.c.locked_until)
        .where(table.c.login == login, table.c.address.in_(places))
        .order_by(table.c.address)
    )
    rows = tx.conn.execute(wanted.with_for_update() if hold else wanted).all()
    return {address: Counter(*counter) for address, *counter in rows}


def count(tx: Transaction, login: str, place: str, *, greatest: int, window: timedelta) -> datetime | None:
    """One more failure, counted in one statement; until when the place is locked, if it is now.

    What is older than the window, or a lock that is over, is forgotten with it.
    """
    table = login_failures
    until = tx.now + window
    stale = or_(
        table.c.began_at <= tx.now - window, and_(table.c.locked_until.isnot(None), table.c.locked_until <= tx.now)
    )
    full = table.c.count + 1 >= greatest
    kind: Any = sqlite if tx.conn.dialect.name == "sqlite" else postgresql
    first = until if greatest <= 1 else None
    made = kind.insert(table).values(login=login, address=place, count=1, began_at=tx.now, locked_until=first)
    counted = made.on_conflict_do_update(
        index_elements=[table.c.login, table.c.address],
        set_={
            "count": case((stale, 1), else_=table.c.count + 1),
            "began_at": case((stale, tx.now), else_=table.c.began_at),
            "locked_until": case(
                (stale, null() if first is None else until),
                (table.c.locked_until.isnot(None), table.c.locked_until),
                (full, until),
                else_=null(),
            ),
        },
    )
    locked: datetime | None = tx.conn.scalar(counted.returning(table.c.locked_until))
    return locked


def forget(tx: Transaction, login: str, place: str | None = None) -> int:
    """Begin to count anew, at this place or at all of them."""
    mine = delete(login_failures).where(login_failures.c.login == login)
    return tx.conn.execute(mine if place is None else mine.where(login_failures.c.address == place)).rowcount


def delete_older(tx: Transaction, began_before: datetime, limit: int) -> int:
    table = login_failures
    old = (
        select(table.c.login, table.c.address)
        .where(table.c.began_at <= began_before, or_(table.c.locked_until.is_(None), table.c.locked_until <= tx.now))
        .limit(limit)
        .subquery()
    )
    gone = and_(table.c.login == old.c.login, table.c.address == old.c.address)
    return tx.conn.execute(delete(table).where(select(1).where(gone).exists())).rowcount


def is_known(tx: Transaction, principal_id: str, place: str, *, since: datetime) -> bool:
    """Whether the principal has logged in from there."""
    table = known_addresses
    wanted = select(table.c.address).where(
        table.c.principal_id == principal_id, table.c.address == place, table.c.last_login_at > since
    )
    return tx.conn.scalar(wanted) is not None


def remember(tx: Transaction, principal_id: str, place: str, *, forget_before: datetime) -> None:
    """The principal has logged in from there; places where it was not seen for long are forgotten."""
    table = known_addresses
    kind: Any = sqlite if tx.conn.dialect.name == "sqlite" else postgresql
    made = kind.insert(table).values(principal_id=principal_id, address=place, last_login_at=tx.now)
    tx.conn.execute(
        made.on_conflict_do_update(
            index_elements=[table.c.principal_id, table.c.address], set_={"last_login_at": tx.now}
        )
    )
    tx.conn.execute(delete(table).where(table.c.principal_id == principal_id, table.c.last_login_at <= forget_before))
