"""Queries of the identity domain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, insert, or_, select, update

from coordinator.domains.identity.models import principals
from coordinator.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Principal:
    """One row of `principals`."""

    id: str
    kind: str
    name: str
    email: str | None
    full_name: str | None
    password_hash: str | None
    role: str
    active: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    version: int


# Built once: every authenticated request runs it.
_BY_ID = select(principals).where(principals.c.id == bindparam("id"))


def _principal(row: Row[Any] | None) -> Principal | None:
    return None if row is None else Principal(**row._asdict())


def find(tx: Transaction, principal_id: str) -> Principal | None:
    return _principal(tx.conn.execute(_BY_ID, {"id": principal_id}).one_or_none())


def find_by_login(tx: Transaction, login: str) -> Principal | None:
    """The principal with this name or, when nobody has the name, this e-mail address."""
    rows = tx.conn.execute(
        select(principals).where(or_(principals.c.name == login, principals.c.email == login.lower()))
    ).all()
    by_name = next((row for row in rows if row.name == login), None)
    return _principal(by_name or next(iter(rows), None))


def add(tx: Transaction, principal: Principal) -> None:
    values = {column.name: getattr(principal, column.name) for column in principals.columns}
    tx.conn.execute(insert(principals).values(**values))


def record_login(tx: Transaction, principal_id: str, password_hash: str | None) -> None:
    """Note the time, and the hash when it was made anew with today's cost."""
    changed: dict[str, Any] = {"last_login_at": tx.now}
    if password_hash is not None:
        changed["password_hash"] = password_hash
    tx.conn.execute(update(principals).where(principals.c.id == principal_id).values(**changed))
