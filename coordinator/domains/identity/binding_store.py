"""Queries of the identity domain about roles and who holds them."""

from __future__ import annotations

from sqlalchemy import delete, insert

from coordinator.domains.identity.models import role_bindings
from coordinator.store.database import Transaction
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
