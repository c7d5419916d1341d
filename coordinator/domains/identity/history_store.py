"""Queries of the identity domain about passwords that were."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from coordinator.domains.identity.models import password_history
from coordinator.store.database import Transaction
from shared.ids import new_id


def last(tx: Transaction, principal_id: str, count: int) -> list[str]:
    """The hashes of the passwords before the present one, the newest first."""
    table = password_history
    wanted = select(table.c.password_hash).where(table.c.principal_id == principal_id)
    return list(tx.conn.scalars(wanted.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(count)))


def add(tx: Transaction, principal_id: str, password_hash: str, *, keep: int) -> None:
    """Remember a password that is one no more, and forget all but the newest `keep`."""
    table = password_history
    made = {"id": new_id(), "principal_id": principal_id, "password_hash": password_hash, "created_at": tx.now}
    tx.conn.execute(insert(table).values(made))
    mine = table.c.principal_id == principal_id
    newest = select(table.c.id).where(mine).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(keep)
    tx.conn.execute(delete(table).where(mine, table.c.id.not_in(newest)))
