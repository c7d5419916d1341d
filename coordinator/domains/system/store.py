"""Queries of the system domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select

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
    row = tx.conn.execute(
        select(
            idempotency_keys.c.body_hash, idempotency_keys.c.status, idempotency_keys.c.headers, idempotency_keys.c.body
        ).where(
            idempotency_keys.c.principal_id == which.principal_id,
            idempotency_keys.c.request == which.request,
            idempotency_keys.c.key == which.key,
            idempotency_keys.c.expires_at > tx.now,
        )
    ).one_or_none()
    return None if row is None else StoredAnswer(row.body_hash, row.status, row.headers, row.body)


def delete_answer(tx: Transaction, which: StoredKey) -> None:
    tx.conn.execute(
        delete(idempotency_keys).where(
            idempotency_keys.c.principal_id == which.principal_id,
            idempotency_keys.c.request == which.request,
            idempotency_keys.c.key == which.key,
        )
    )


def put_answer(tx: Transaction, which: StoredKey, answer: StoredAnswer, expires_at: datetime) -> None:
    delete_answer(tx, which)
    tx.conn.execute(
        insert(idempotency_keys).values(
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
    old = (
        select(idempotency_keys.c.principal_id, idempotency_keys.c.request, idempotency_keys.c.key)
        .where(idempotency_keys.c.expires_at <= tx.now)
        .limit(limit)
    )
    rows = tx.conn.execute(old).all()
    if rows:
        tx.conn.execute(
            delete(idempotency_keys).where(
                idempotency_keys.c.expires_at <= tx.now, idempotency_keys.c.key.in_([row.key for row in rows])
            )
        )
    return len(rows)
