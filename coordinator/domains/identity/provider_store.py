"""Queries of the identity domain about identity providers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from sqlalchemy import delete, exists, insert, or_, select, update

from coordinator.domains.identity.models import external_identities, identity_providers, login_sessions, roles
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page

_ROW = (
    "id",
    "name",
    "kind",
    "config",
    "secrets",
    "key_id",
    "active",
    "created_by",
    "created_at",
    "updated_at",
    "version",
)
_COLUMNS = tuple(identity_providers.c[name] for name in _ROW)


def find(tx: Transaction, id_or_name: str, *, lock: bool = False) -> dict[str, Any] | None:
    """The provider with this id or, when none has it, this name."""
    table = identity_providers
    wanted = select(*_COLUMNS).where(or_(table.c.id == id_or_name.lower(), table.c.name == id_or_name))
    found = tx.conn.execute(wanted.with_for_update() if lock else wanted).mappings().all()
    ranked = sorted(found, key=lambda row: row["id"] != id_or_name.lower())
    return dict(ranked[0]) if ranked else None


def find_named(tx: Transaction, name: str) -> dict[str, Any] | None:
    row = tx.conn.execute(select(*_COLUMNS).where(identity_providers.c.name == name)).mappings().first()
    return None if row is None else dict(row)


def active_of_kind(tx: Transaction, kind: str) -> list[dict[str, Any]]:
    table = identity_providers
    rows = tx.conn.execute(select(*_COLUMNS).where(table.c.kind == kind, table.c.active)).mappings()
    return [dict(row) for row in rows]


def list_page(tx: Transaction, page: PageRequest) -> Page[dict[str, Any]]:
    """One page of the providers, newest first."""
    found = fetch_page(tx, select(*_COLUMNS).order_by(identity_providers.c.id.desc()), page)
    return Page([dict(row._mapping) for row in found.items], found.total)  # noqa: SLF001 - SQLAlchemy's public name


def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    tx.conn.execute(insert(identity_providers).values(dict(row)))


def write(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Write a whole row over the one that the caller has locked."""
    tx.conn.execute(update(identity_providers).where(identity_providers.c.id == row["id"]).values(dict(row)))


def delete_provider(tx: Transaction, provider_id: str) -> None:
    tx.conn.execute(delete(identity_providers).where(identity_providers.c.id == provider_id))


def is_still(tx: Transaction, provider_id: str, version: int) -> bool:
    """Whether the provider is active and as it was; on PostgreSQL it stays so until the transaction ends."""
    table = identity_providers
    wanted = select(table.c.id).where(table.c.id == provider_id, table.c.version == version, table.c.active)
    return tx.conn.execute(wanted.with_for_update(read=True)).first() is not None


def has_identities(tx: Transaction, provider_id: str) -> bool:
    return bool(tx.conn.scalar(select(exists().where(external_identities.c.provider_id == provider_id))))


def end_sessions(tx: Transaction, provider_id: str) -> int:
    """End the sessions that were opened by this provider's word; how many."""
    people = select(external_identities.c.principal_id).where(external_identities.c.provider_id == provider_id)
    ended = tx.conn.execute(
        update(login_sessions)
        .where(
            login_sessions.c.kind == "external",
            login_sessions.c.revoked_at.is_(None),
            login_sessions.c.principal_id.in_(people),
        )
        .values(revoked_at=tx.now)
    )
    return ended.rowcount


def known_roles(tx: Transaction, names: Set[str | None]) -> set[str | None]:
    """Those of the names that a role has."""
    return set(tx.conn.scalars(select(roles.c.name).where(roles.c.name.in_([each for each in names if each]))))
