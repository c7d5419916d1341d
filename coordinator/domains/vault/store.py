"""Queries of the vault: data keys, and the sealed columns of all domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from coordinator.domains.vault.models import data_keys
from coordinator.store.database import Transaction
from coordinator.store.schema import SealedColumn

_MAKERS = 0x6C6F6E6773656C64
"""PostgreSQL's advisory lock: one transaction at a time makes, retires or re-wraps data keys."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """One row of `data_keys`."""

    id: str
    wrapped: str
    master: str
    created_at: datetime
    retired_at: datetime | None


_COLUMNS = tuple(data_keys.c[name] for name in DataKey.__dataclass_fields__)

_NEWEST = (
    select(*_COLUMNS)
    .where(data_keys.c.retired_at.is_(None))
    .order_by(data_keys.c.created_at.desc(), data_keys.c.id.desc())
    .limit(1)
)


def newest(tx: Transaction) -> DataKey | None:
    """The data key that seals now; it is not retired before this transaction ends."""
    # Sealing shares the row: whoever retires the key waits until what it sealed is committed, and finds that then.
    row = tx.conn.execute(_NEWEST.with_for_update(read=True)).first()
    return None if row is None else DataKey(*row)


def newest_id(tx: Transaction) -> str | None:
    """The id of the data key that sealed at this moment."""
    row = tx.conn.execute(_NEWEST).first()
    return None if row is None else row.id


def find(tx: Transaction, key_id: str) -> DataKey | None:
    row = tx.conn.execute(select(*_COLUMNS).where(data_keys.c.id == key_id)).first()
    return None if row is None else DataKey(*row)


def all_keys(tx: Transaction) -> list[DataKey]:
    """Every data key, the oldest first."""
    rows = tx.conn.execute(select(*_COLUMNS).order_by(data_keys.c.created_at, data_keys.c.id)).all()
    return [DataKey(*row) for row in rows]


def lock_makers(tx: Transaction) -> None:
    """From here to the end of the transaction nobody else makes or changes data keys."""
    # SQLite has one writer at a time anyhow.
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(_MAKERS)))


def add(tx: Transaction, key: DataKey) -> None:
    tx.conn.execute(insert(data_keys).values({name: getattr(key, name) for name in DataKey.__dataclass_fields__}))


def retire_all(tx: Transaction) -> None:
    """Let no data key that there is seal anything more; waits for those who are sealing."""
    tx.conn.execute(update(data_keys).where(data_keys.c.retired_at.is_(None)).values(retired_at=tx.now))


def rewrap(tx: Transaction, key_id: str, *, wrapped: str, master: str) -> None:
    tx.conn.execute(update(data_keys).where(data_keys.c.id == key_id).values(wrapped=wrapped, master=master))


# ---- sealed columns


@dataclass(frozen=True, slots=True)
class SealedRow:
    """One sealed text, wherever it stands."""

    subject_id: str
    text: str
    key_id: str


def rows_by_other_keys(
    tx: Transaction, column: SealedColumn, key_id: str, *, after: str | None, limit: int
) -> list[SealedRow]:
    """Locked rows of a column that another key sealed, in the order of subjects, from `after` on."""
    wanted = (
        select(column.subject, column.text, column.key_id)
        .where(column.key_id != key_id, column.text.is_not(None))
        .order_by(column.subject)
        .limit(limit)
        .with_for_update()
    )
    if after is not None:
        wanted = wanted.where(column.subject > after)
    return [SealedRow(*row) for row in tx.conn.execute(wanted)]


def rewrite(tx: Transaction, column: SealedColumn, rows: Sequence[SealedRow]) -> None:
    """Put these texts in the place of those that their subjects have; the caller has locked them."""
    if not rows:
        return
    statement = (
        update(column.table)
        .where(column.subject == bindparam("of_subject"))
        .values({column.text: bindparam("new_text"), column.key_id: bindparam("new_key")})
    )
    told: list[dict[str, Any]] = [
        {"of_subject": row.subject_id, "new_text": row.text, "new_key": row.key_id} for row in rows
    ]
    tx.conn.execute(statement, told)


def counts(tx: Transaction, column: SealedColumn) -> dict[str, int]:
    """How many texts of a column each data key sealed."""
    wanted = select(column.key_id, func.count()).where(column.text.is_not(None)).group_by(column.key_id)
    return {row[0]: row[1] for row in tx.conn.execute(wanted)}
