"""Queries of the identity domain about API keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update

from coordinator.domains.identity import store
from coordinator.domains.identity.models import api_keys, principals
from coordinator.domains.identity.store import Principal
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class Key:
    """One row of `api_keys`; of the key itself there is the digest alone."""

    id: str
    principal_id: str
    name: str
    prefix: str
    digest: str
    scopes: tuple[str, ...]
    plan: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_address: str | None
    revoked_at: datetime | None


FIELDS = tuple(Key.__dataclass_fields__)
_COLUMNS = tuple(api_keys.c[name] for name in FIELDS)

# Built once: every request that comes with a key runs it. One round trip, by primary keys and one index.
_WITH_OWNER = (
    select(*store.OWNER_COLUMNS, store.SPACE_EXISTS, *(api_keys.c[name].label(f"key_{name}") for name in FIELDS))
    .select_from(store.HELD.join(api_keys, api_keys.c.principal_id == principals.c.id))
    .where(api_keys.c.id == bindparam("id"), api_keys.c.revoked_at.is_(None))
)


@dataclass(frozen=True, slots=True)
class Held:
    """A key with its owner, and whether the space that they ask for exists."""

    key: Key
    owner: Principal
    space_exists: bool


def find_with_owner(tx: Transaction, key_id: str, space: str) -> Held | None:
    """A key that was not revoked, and whoever it belongs to."""
    rows = tx.conn.execute(_WITH_OWNER, {"id": key_id, "space": space}).all()
    if not rows:
        return None
    values = {name: getattr(rows[0], f"key_{name}") for name in FIELDS}
    return Held(_key(values), store.assembled(rows), bool(rows[0].space_exists))


def add(tx: Transaction, key: Key) -> None:
    values = {name: getattr(key, name) for name in FIELDS}
    tx.conn.execute(insert(api_keys).values(values | {"scopes": list(key.scopes)}))


def page_of(tx: Transaction, principal_id: str, request: PageRequest) -> Page[Key]:
    """The keys of a principal that were not revoked, newest first."""
    mine = select(*_COLUMNS).where(api_keys.c.principal_id == principal_id, api_keys.c.revoked_at.is_(None))
    found = fetch_page(tx, mine.order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()), request)
    return Page([_key(row._asdict()) for row in found.items], found.total)


def revoke(tx: Transaction, key_id: str, principal_id: str | None) -> str | None:
    """Revoke a key, of this principal if one is named; whose it was, None when there is none such."""
    mine = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    if principal_id is not None:
        mine = mine.where(api_keys.c.principal_id == principal_id)
    owner: str | None = tx.conn.scalar(mine.values(revoked_at=tx.now).returning(api_keys.c.principal_id))
    return owner


def note_uses(tx: Transaction, uses: Sequence[tuple[str, datetime, str | None]], *, apart: timedelta) -> None:
    """Write when keys were last used and from where, unless that was written a moment ago."""
    for key_id, at, address in sorted(uses):
        stale = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= at - apart)
        noted = update(api_keys).where(api_keys.c.id == key_id, stale)
        tx.conn.execute(noted.values(last_used_at=at, last_used_address=address))


def _key(values: dict[str, Any]) -> Key:
    return Key(**values | {"scopes": tuple(values["scopes"])})
