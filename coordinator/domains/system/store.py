"""Queries of the system domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, text

from coordinator.domains.system.models import idempotency_keys
from coordinator.store.database import Transaction


@dataclass(frozen=True, slots=True)
class StoredKey:
    """Names one idempotent request of one principal."""

    principal_id: str
    request: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered then, and to which body."""

    body_hash: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def lock_key(tx: Transaction, number: int) -> bool:
    """Whether this transaction is the only one at work on `number`.

    SQLite has one writer at a time, so there the answer is yes by the time a write transaction has begun.
    """
    if tx.conn.dialect.name == "sqlite":
        return True
    return bool(tx.conn.scalar(select(func.pg_try_advisory_xact_lock(number))))


def find_answer(tx: Transaction, which: StoredKey) -> StoredAnswer | None:
    table = idempotency_keys
    row = tx.conn.execute(
        select(table.c.body_hash, table.c.status, table.c.headers, table.c.body).where(
            table.c.principal_id == which.principal_id,
            table.c.request == which.request,
            table.c.key == which.key,
            table.c.expires_at > tx.now,
        )
    ).one_or_none()
    return None if row is None else StoredAnswer(row.body_hash, row.status, row.headers, row.body)


def put_answer(tx: Transaction, which: StoredKey, answer: StoredAnswer, expires_at: datetime) -> None:
    table = idempotency_keys
    tx.conn.execute(
        delete(table).where(
            table.c.principal_id == which.principal_id, table.c.request == which.request, table.c.key == which.key
        )
    )
    tx.conn.execute(
        insert(table).values(
            principal_id=which.principal_id,
            request=which.request,
            key=which.key,
            body_hash=answer.body_hash,
            status=answer.status,
            headers=dict(answer.headers),
            body=answer.body,
            created_at=tx.now,
            expires_at=expires_at,
        )
    )


def delete_expired_answers(tx: Transaction, limit: int) -> int:
    table = idempotency_keys
    old = select(table.c.principal_id, table.c.request, table.c.key).where(table.c.expires_at <= tx.now).limit(limit)
    rows = tx.conn.execute(old).all()
    if rows:
        tx.conn.execute(delete(table).where(table.c.expires_at <= tx.now, table.c.key.in_([row.key for row in rows])))
    return len(rows)


def ping(tx: Transaction) -> None:
    tx.conn.execute(text("SELECT 1"))
