"""Queries of the identity domain about second factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, or_, select, update

from coordinator.domains.identity.models import recovery_codes, second_factors
from coordinator.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Factor:
    """One row of `second_factors`."""

    seed: str
    key_id: str
    last_step: int | None
    confirmed_at: datetime | None


def find(tx: Transaction, principal_id: str) -> Factor | None:
    table = second_factors
    wanted = select(table.c.seed, table.c.key_id, table.c.last_step, table.c.confirmed_at)
    row = tx.conn.execute(wanted.where(table.c.principal_id == principal_id)).one_or_none()
    return None if row is None else Factor(*row)


def is_confirmed(tx: Transaction, principal_id: str) -> bool:
    table = second_factors
    wanted = select(table.c.principal_id).where(table.c.principal_id == principal_id, table.c.confirmed_at.isnot(None))
    return tx.conn.scalar(wanted) is not None


def which_are_confirmed(tx: Transaction, principal_ids: Sequence[str]) -> frozenset[str]:
    """Those of the principals that have a second factor."""
    table = second_factors
    wanted = select(table.c.principal_id).where(
        table.c.principal_id.in_(principal_ids), table.c.confirmed_at.isnot(None)
    )
    return frozenset(tx.conn.scalars(wanted)) if principal_ids else frozenset()


def replace(tx: Transaction, principal_id: str, *, seed: str, key_id: str, digests: Sequence[str]) -> None:
    """Put a factor that is to be confirmed yet in the place of whatever there was."""
    remove(tx, principal_id)
    made = {"principal_id": principal_id, "seed": seed, "key_id": key_id, "created_at": tx.now}
    tx.conn.execute(insert(second_factors).values(made))
    tx.conn.execute(insert(recovery_codes), [{"principal_id": principal_id, "digest": digest} for digest in digests])


def remove(tx: Transaction, principal_id: str) -> bool:
    """Forget the factor and its recovery codes; whether there was one."""
    tx.conn.execute(delete(recovery_codes).where(recovery_codes.c.principal_id == principal_id))
    gone = tx.conn.execute(delete(second_factors).where(second_factors.c.principal_id == principal_id))
    return gone.rowcount == 1


def confirm(tx: Transaction, principal_id: str) -> None:
    mine = second_factors.c.principal_id == principal_id
    tx.conn.execute(update(second_factors).where(mine).values(confirmed_at=tx.now))


def take_step(tx: Transaction, principal_id: str, step: int) -> bool:
    """Use up a time step; False when it, or a later one, was used before."""
    table = second_factors
    taken = tx.conn.execute(
        update(table)
        .where(table.c.principal_id == principal_id, or_(table.c.last_step.is_(None), table.c.last_step < step))
        .values(last_step=step)
    )
    return taken.rowcount == 1


def take_recovery_code(tx: Transaction, principal_id: str, digest: str) -> bool:
    """Use up a recovery code; False when there is none such, or it was used before."""
    table = recovery_codes
    taken = tx.conn.execute(
        update(table)
        .where(table.c.principal_id == principal_id, table.c.digest == digest, table.c.used_at.is_(None))
        .values(used_at=tx.now)
    )
    return taken.rowcount == 1


def count_recovery_codes(tx: Transaction, principal_id: str) -> int:
    """How many are left."""
    table = recovery_codes
    wanted = select(func.count()).where(table.c.principal_id == principal_id, table.c.used_at.is_(None))
    return tx.conn.scalar(wanted) or 0
