"""The audit trail as its tests see it: read, and tampered with, by SQL of their own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import text

from coordinator.domains.identity import audit
from coordinator.domains.identity.audit import SYSTEM, Head, Who
from coordinator.store.database import Database

ADA = Who("user", id="018f0000-0000-7000-8000-000000000001", name="ada", address="192.0.2.7", space="default")


def trail_of(database: Database, **conditions: Any) -> list[dict[str, Any]]:
    """Every row that fits, in order of their ids, with `before` and `after` as values."""
    where = " AND ".join(f"{name} = :{name}" for name in conditions) or "1 = 1"
    with database.read() as tx:
        found = tx.conn.execute(text(f"SELECT * FROM audit_trail WHERE {where} ORDER BY id"), conditions)  # noqa: S608
        rows = [dict(row) for row in found.mappings()]
    return [row | {name: json.loads(row[name]) for name in ("before", "after") if row[name]} for row in rows]


def write_rows(database: Database, count: int, *, who: Who = ADA, **facts: Any) -> None:
    """So many rows about workers, each in a transaction of its own."""
    for number in range(count):
        with database.write() as tx:
            audit.record(tx, who, "worker.approved", resource_id=f"w{number}", after={"number": number}, **facts)


def seal_all(database: Database) -> Head:
    with database.write() as tx:
        audit.seal(tx)
    with database.read() as tx:
        return audit.head(tx)


def verified(database: Database, expected: Head | None = None) -> str | None:
    """What is wrong with the chain; None when it is whole."""
    with database.read() as tx:
        return audit.verify(tx, expected).problem


def tamper(database: Database, *statements: str) -> None:
    """Change the trail as somebody can who owns the database: nothing that the product set up stands in the way."""
    with database.write() as tx:
        if database.is_sqlite:
            names = tx.conn.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            for name in names:
                tx.conn.execute(text(f"DROP TRIGGER {name}"))
        else:
            tx.conn.execute(text("SET LOCAL session_replication_role = 'replica'"))
        for statement in statements:
            tx.conn.execute(text(statement))


def hash_by_the_book(previous: str, row: dict[str, Any]) -> str:
    """The hash of a row as docs/audit.md describes it, computed without the product's code."""
    facts = {name: value for name, value in row.items() if name != "hash"}
    moment = str(row["at"]).replace(" ", "T").partition("+")[0]
    facts["at"] = f"{moment if '.' in moment else moment + '.000000'}Z"
    told = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{previous}{told}".encode()).hexdigest()


__all__ = [
    "ADA",
    "SYSTEM",
    "hash_by_the_book",
    "seal_all",
    "tamper",
    "trail_of",
    "verified",
    "write_rows",
]
