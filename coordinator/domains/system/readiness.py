"""Whether everything that work needs is there: database, Redis, storage, a live dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

import redis
import structlog

from coordinator.domains.fleet import broker_access
from coordinator.domains.queue import leadership
from coordinator.resources import Resources
from shared.errors import LongshoreError

log = structlog.get_logger(__name__)
Check = tuple[bool, str | None]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Each part by name: whether it is there, and what is wrong in words fit for anybody."""

    checks: dict[str, Check]

    @property
    def is_ready(self) -> bool:
        return all(ok for ok, _ in self.checks.values())


def examine(resources: Resources) -> Readiness:
    """Ask every part once."""
    database, dispatcher = _database_and_dispatcher(resources)
    return Readiness(
        {
            "database": database,
            "redis": _redis(resources),
            "storage": _storage(resources),
            "dispatcher": dispatcher,
        }
    )


def _database_and_dispatcher(resources: Resources) -> tuple[Check, Check]:
    try:
        with resources.database.read() as tx:
            is_live = leadership.is_led(tx)
    except LongshoreError as error:
        log.warning("readiness.database", error=error.message, **error.details)
        return (False, "does not answer"), (False, "unknown while the database does not answer")
    return (True, None), (is_live, None if is_live else "no dispatcher is running")


def _redis(resources: Resources) -> Check:
    try:
        resources.redis.ping()
    except (redis.RedisError, OSError) as error:
        log.warning("readiness.redis", error=str(error))
        return False, "does not answer"
    return True, _logins(resources)


def _logins(resources: Resources) -> str | None:
    """What is to be said of the logins of nodes, though it keeps nothing from working."""
    try:
        with resources.database.read() as tx:
            return broker_access.in_words(tx, resources.settings)
    except LongshoreError:
        # Told by the check of the database.
        return None


def _storage(resources: Resources) -> Check:
    try:
        resources.storage.check()
    except (LongshoreError, OSError) as error:
        log.warning("readiness.storage", error=str(error))
        return False, "does not answer"
    return True, None
