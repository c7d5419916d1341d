"""Queries of the identity domain about roles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from coordinator.domains.identity.models import role_bindings, roles
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class RoleRow:
    """One row of `roles`; `rules` is None for a built-in one."""

    id: str
    name: str
    description: str | None
    rules: list[dict[str, Any]] | None
    created_by: str | None
    created_at: datetime


FIELDS = tuple(RoleRow.__dataclass_fields__)
_COLUMNS = tuple(roles.c[name] for name in FIELDS)


def find(tx: Transaction, role_id: str) -> RoleRow | None:
    return _one(tx, roles.c.id == role_id)


def find_by_name(tx: Transaction, name: str) -> RoleRow | None:
    return _one(tx, roles.c.name == name)


def list_page(tx: Transaction, page: PageRequest) -> Page[RoleRow]:
    """One page of the roles, newest first."""
    found = fetch_page(tx, select(*_COLUMNS).order_by(roles.c.created_at.desc(), roles.c.id), page)
    return Page([_made(row) for row in found.items], found.total)


def add(tx: Transaction, role: RoleRow) -> bool:
    """Whether the name was free; when not, nothing more can be done in this transaction."""
    try:
        tx.conn.execute(insert(roles).values({name: getattr(role, name) for name in FIELDS}))
    except IntegrityError:
        return False
    return True


def remove(tx: Transaction, role_id: str) -> bool:
    """Delete a role and all its bindings; whether it was there."""
    return tx.conn.execute(delete(roles).where(roles.c.id == role_id)).rowcount == 1


def count_holders(tx: Transaction, role_id: str) -> int:
    theirs = select(func.count()).select_from(role_bindings).where(role_bindings.c.role_id == role_id)
    return tx.conn.scalar(theirs) or 0


def places_of(tx: Transaction, role_id: str) -> list[str | None]:
    """The spaces in which somebody holds the role; None among them when somebody holds it everywhere."""
    return list(tx.conn.scalars(select(role_bindings.c.space).where(role_bindings.c.role_id == role_id).distinct()))


def _one(tx: Transaction, condition: ColumnElement[bool]) -> RoleRow | None:
    row = tx.conn.execute(select(*_COLUMNS).where(condition)).one_or_none()
    return None if row is None else _made(row)


def _made(row: Row[Any]) -> RoleRow:
    return RoleRow(**dict(zip(FIELDS, row, strict=True)))
