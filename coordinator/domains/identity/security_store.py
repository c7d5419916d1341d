"""Queries of the identity domain about the security settings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.domains.identity.models import security_settings
from coordinator.store.database import Transaction


def sections(tx: Transaction) -> dict[str, Any]:
    """What is stored, by section."""
    found = tx.conn.execute(select(security_settings.c.section, security_settings.c.value)).all()
    return {row.section: row.value for row in found}


def lock(tx: Transaction, section: str, *, by: str | None) -> None:
    """Nobody else changes the section until the transaction ends; it is made if it is not there."""
    if tx.conn.scalar(_row(section)) is None:
        _make(tx, section, by=by)
        tx.conn.scalar(_row(section))


def put(tx: Transaction, section: str, value: Any, *, by: str | None) -> None:
    _make(tx, section, by=by)
    tx.conn.execute(
        update(security_settings)
        .where(security_settings.c.section == section)
        .values(value=value, updated_by=by, updated_at=tx.now, version=security_settings.c.version + 1)
    )


def _row(section: str) -> Any:
    return select(security_settings.c.section).where(security_settings.c.section == section).with_for_update()


def _make(tx: Transaction, section: str, *, by: str | None) -> None:
    kind: Any = sqlite if tx.conn.dialect.name == "sqlite" else postgresql
    made: dict[str, Any] = {"section": section, "value": {}, "updated_by": by, "updated_at": tx.now, "version": 0}
    tx.conn.execute(kind.insert(security_settings).values(made).on_conflict_do_nothing())
