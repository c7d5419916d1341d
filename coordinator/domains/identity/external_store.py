"""Queries of the identity domain about who somebody of a provider is here."""

from __future__ import annotations

from sqlalchemy import exists, insert, or_, select, update

from coordinator.domains.identity.models import external_identities, principals, roles
from coordinator.store.database import Transaction


def principal_of(tx: Transaction, provider_id: str, subject: str) -> str | None:
    """The id of the principal that somebody of a provider is."""
    table = external_identities
    found: str | None = tx.conn.scalar(
        select(table.c.principal_id).where(table.c.provider_id == provider_id, table.c.subject == subject)
    )
    return found


def link(tx: Transaction, provider_id: str, subject: str, principal_id: str) -> None:
    tx.conn.execute(
        insert(external_identities).values(
            provider_id=provider_id,
            subject=subject,
            principal_id=principal_id,
            created_at=tx.now,
            last_login_at=tx.now,
        )
    )


def record_login(tx: Transaction, provider_id: str, subject: str) -> None:
    table = external_identities
    statement = update(table).where(table.c.provider_id == provider_id, table.c.subject == subject)
    tx.conn.execute(statement.values(last_login_at=tx.now))


def is_taken(tx: Transaction, name: str) -> bool:
    """Whether somebody logs in by this text, be it as a name or as an e-mail address."""
    taken = exists().where(or_(principals.c.name == name, principals.c.email == name.lower()))
    return bool(tx.conn.scalar(select(taken)))


def roles_named(tx: Transaction, names: set[str]) -> dict[str, str]:
    """The ids of those roles that there are, by their names."""
    if not names:
        return {}
    rows = tx.conn.execute(select(roles.c.name, roles.c.id).where(roles.c.name.in_(sorted(names))))
    return {row.name: row.id for row in rows}
