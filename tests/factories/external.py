"""What tests of external logins ask afterwards."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from coordinator.domains.identity.models import audit_trail
from coordinator.store.database import Database


def refused(answer: Any) -> bool:
    """Whether it is the one answer to every proof that is not good."""
    return bool(
        answer.status_code == 401
        and answer.json["error"]["code"] == "AUTHENTICATION_ERROR"
        and answer.json["error"]["message"] == "the proof of identity is not accepted"
    )


def why(database: Database) -> str:
    """What the trail says of the last refusal."""
    with database.read() as tx:
        rows = select(audit_trail.c.message).where(audit_trail.c.outcome == "refused").order_by(audit_trail.c.id.desc())
        return str(tx.conn.scalars(rows).first())


def count(database: Database, table: Any) -> int:
    with database.read() as tx:
        return tx.conn.scalar(select(func.count()).select_from(table)) or 0
