"""Queries of the identity domain about spaces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.domains.identity.models import role_bindings, spaces
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class Space:
    """One row of `spaces`."""

    name: str
    description: str | None
    settings: dict[str, Any]
    active: bool
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    version: int


FIELDS = tuple(Space.__dataclass_fields__)
_COLUMNS = tuple(spaces.c[name] for name in FIELDS)
# Built once: every writing request in another space than `default` runs it.
_HOLD = select(spaces.c.active).where(spaces.c.name == bindparam("name")).with_for_update(read=True, key_share=True)


def hold(tx: Transaction, name: str) -> bool | None:
    """Keep the space from being deleted until the transaction ends; whether it is active, None when it is gone."""
    return tx.conn.scalar(_HOLD, {"name": name})


def find(tx: Transaction, name: str) -> Space | None:
    return _space_of(tx.conn.execute(select(*_COLUMNS).where(spaces.c.name == name)).one_or_none())


def lock(tx: Transaction, name: str) -> Space | None:
    """The space, and nobody begins to write in it until the transaction ends."""
    locked = select(*_COLUMNS).where(spaces.c.name == name).with_for_update()
    return _space_of(tx.conn.execute(locked).one_or_none())


def list_page(tx: Transaction, page: PageRequest, *, names: Collection[str] | None, active: bool | None) -> Page[Space]:
    """One page of the spaces, newest first: all of them, or those of these names."""
    wanted = select(*_COLUMNS)
    if names is not None:
        wanted = wanted.where(spaces.c.name.in_(sorted(names)))
    if active is not None:
        wanted = wanted.where(spaces.c.active.is_(active))
    found = fetch_page(tx, wanted.order_by(spaces.c.created_at.desc(), spaces.c.name.desc()), page)
    return Page([_made(row) for row in found.items], found.total)


def add(tx: Transaction, space: Space) -> bool:
    """Whether the name was free; when not, nothing more can be done in this transaction."""
    try:
        tx.conn.execute(insert(spaces).values({name: getattr(space, name) for name in FIELDS}))
    except IntegrityError:
        return False
    return True


def change(tx: Transaction, space: Space, changes: dict[str, Any]) -> None:
    """Write `changes` over a space that the caller has locked."""
    raised = {**changes, "updated_at": tx.now, "version": space.version + 1}
    tx.conn.execute(update(spaces).where(spaces.c.name == space.name).values(raised))


def remove(tx: Transaction, name: str) -> None:
    tx.conn.execute(delete(spaces).where(spaces.c.name == name))


def count_bindings(tx: Transaction, name: str) -> int:
    """How many roles are held in this space."""
    theirs = select(func.count()).select_from(role_bindings).where(role_bindings.c.space == name)
    return tx.conn.scalar(theirs) or 0


def _space_of(row: Row[Any] | None) -> Space | None:
    return None if row is None else _made(row)


def _made(row: Row[Any]) -> Space:
    return Space(**dict(zip(FIELDS, row, strict=True)))
