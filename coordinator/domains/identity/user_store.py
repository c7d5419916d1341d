"""Queries of the identity domain about the names of users, and about who else is an admin."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import exists, func, or_, select

from coordinator.domains.identity import store
from coordinator.domains.identity.models import principals, role_bindings, roles
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.store import Principal
from coordinator.store.database import Transaction
from coordinator.store.paging import PageRequest

_ADMIN = BUILT_IN_IDS[Role.ADMIN]
_IS_ADMIN = exists().where(
    role_bindings.c.principal_id == principals.c.id,
    role_bindings.c.role_id == _ADMIN,
    role_bindings.c.space.is_(None),
)


def find_of_kinds(tx: Transaction, principal_id: str, kinds: Collection[str]) -> Principal | None:
    """The principal, if it shows among these kinds."""
    mine = (principals.c.id == principal_id) & store.of_kinds(kinds)
    return next(iter(store.list_page(tx, mine, PageRequest(limit=2)).items), None)


def is_taken(tx: Transaction, words: Sequence[str], *, but: str | None) -> bool:
    """Whether any of the words is somebody's name or address."""
    wanted = select(principals.c.id).where(or_(principals.c.name.in_(words), principals.c.email.in_(words)))
    return tx.conn.scalar(wanted.where(principals.c.id != (but or "")).limit(1)) is not None


def is_active_admin(tx: Transaction, principal_id: str) -> bool:
    """Whether the principal is switched on and an admin everywhere."""
    mine = select(principals.c.id).where(principals.c.id == principal_id, principals.c.active, _IS_ADMIN)
    return tx.conn.scalar(mine) is not None


def count_other_admins(tx: Transaction, principal_id: str) -> int:
    """How many others are switched on and admins everywhere."""
    others = select(func.count()).where(principals.c.id != principal_id, principals.c.active, _IS_ADMIN)
    return tx.conn.scalar(others) or 0


def hold_admins(tx: Transaction) -> None:
    """Nobody else decides who stays an admin until the transaction ends; binding the role goes on meanwhile."""
    tx.conn.execute(select(roles.c.id).where(roles.c.id == _ADMIN).with_for_update(key_share=True))
