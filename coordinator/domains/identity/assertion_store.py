"""Proofs that are good once: the begun step of a login, what an identity provider said."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.domains.identity.models import used_assertions
from coordinator.store.database import Transaction

PURGE_BATCH = 1000


def use(tx: Transaction, proof: str, until: datetime) -> bool:
    """Use up a proof that is good until then anyhow; False when it was used before."""
    kind: Any = sqlite if tx.conn.dialect.name == "sqlite" else postgresql
    row = {"digest": hashlib.sha256(proof.encode()).hexdigest(), "expires_at": until}
    # Of an INSERT psycopg's rowcount says nothing: only what comes back tells whether there is a new row.
    fresh = kind.insert(used_assertions).values(row).on_conflict_do_nothing().returning(used_assertions.c.digest)
    return tx.conn.execute(fresh).first() is not None


def purge(tx: Transaction) -> int:
    """Drop a batch of proofs that would not be good any more."""
    table = used_assertions
    old = select(table.c.digest).where(table.c.expires_at <= tx.now).limit(PURGE_BATCH)
    return tx.conn.execute(delete(table).where(table.c.digest.in_(old))).rowcount
