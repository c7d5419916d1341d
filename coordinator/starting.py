"""What must hold before the coordinator's processes start: a current schema, and somebody who can log in."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from coordinator.config import Settings
from coordinator.domains.identity import service as identity
from coordinator.domains.identity.service import Principal
from coordinator.store import revisions
from coordinator.store.database import Database
from shared.errors import Unavailable


def require_current(database: Database) -> None:
    """Raise unless the schema is the one that this version needs."""
    at, wanted = revisions.current(database), revisions.newest()
    if at != wanted:
        state = f"at revision {at}" if at else "empty"
        raise Unavailable(f"the database is {state}, this version needs {wanted}: run `coordinator db upgrade`")


def ensure_admin(database: Database, settings: Settings) -> Principal:
    """The admin that the settings name, made when there is none."""
    try:
        with database.write() as tx:
            return identity.ensure_admin(tx, settings)
    except IntegrityError:
        # Another coordinator that started at the same moment was faster.
        with database.write() as tx:
            return identity.ensure_admin(tx, settings)
