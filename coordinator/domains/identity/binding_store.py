"""Queries of the identity domain about roles and who holds them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from coordinator.domains.identity.models import principals, role_bindings, roles
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page
from shared.ids import new_id


def bind(tx: Transaction, *, principal_id: str, role_id: str, space: str | None, by: str | None) -> str:
    """Let a principal hold a role, everywhere or in a space; the id of the binding."""
    made = new_id()
    tx.conn.execute(
        insert(role_bindings).values(
            id=made, principal_id=principal_id, role_id=role_id, space=space, created_by=by, created_at=tx.now
        )
    )
    return made


def unbind_everywhere(tx: Transaction, principal_id: str, role_ids: list[str]) -> None:
    """Take away those of the roles that the principal holds everywhere."""
    tx.conn.execute(
        delete(role_bindings).where(
            role_bindings.c.principal_id == principal_id,
            role_bindings.c.role_id.in_(role_ids),
            role_bindings.c.space.is_(None),
        )
    )


@dataclass(frozen=True, slots=True)
class Binding:
    """One row of `role_bindings`, with the names of what it binds."""

    id: str
    role_id: str
    role: str
    principal_id: str
    principal: str
    principal_kind: str
    space: str | None
    created_by: str | None
    created_at: datetime


_SHOWN = (
    select(
        role_bindings.c.id,
        role_bindings.c.role_id,
        roles.c.name.label("role"),
        role_bindings.c.principal_id,
        principals.c.name.label("principal"),
        principals.c.kind.label("principal_kind"),
        role_bindings.c.space,
        role_bindings.c.created_by,
        role_bindings.c.created_at,
    )
    .join(roles, roles.c.id == role_bindings.c.role_id)
    .join(principals, principals.c.id == role_bindings.c.principal_id)
)


def find(tx: Transaction, binding_id: str) -> Binding | None:
    row = tx.conn.execute(_SHOWN.where(role_bindings.c.id == binding_id)).one_or_none()
    return None if row is None else Binding(**row._asdict())


def list_page(tx: Transaction, page: PageRequest) -> Page[Binding]:
    """One page of all bindings, newest first."""
    newest = _SHOWN.order_by(role_bindings.c.created_at.desc(), role_bindings.c.id.desc())
    found = fetch_page(tx, newest, page)
    return Page([Binding(**row._asdict()) for row in found.items], found.total)


def is_bound(tx: Transaction, *, principal_id: str, role_id: str, space: str | None) -> bool:
    """Whether they hold the role in exactly this place."""
    there = role_bindings.c.space.is_(None) if space is None else role_bindings.c.space == space
    theirs = (role_bindings.c.principal_id == principal_id, role_bindings.c.role_id == role_id)
    return tx.conn.execute(select(role_bindings.c.id).where(*theirs, there)).first() is not None


def remove(tx: Transaction, binding_id: str) -> bool:
    """Take a role away; whether the binding was there."""
    return tx.conn.execute(delete(role_bindings).where(role_bindings.c.id == binding_id)).rowcount == 1
