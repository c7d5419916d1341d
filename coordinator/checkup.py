"""What the coordinator needs, looked at part by part and told in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
from sqlalchemy import func, select

from coordinator.broker_advice import advise
from coordinator.config import Settings
from coordinator.domains.vault import rotation
from coordinator.domains.vault.keyring import Keyring
from coordinator.resources import LOCAL_REDIS, Resources, make_resources
from coordinator.store import migrate
from coordinator.weak_secrets import weaknesses
from shared.errors import LongshoreError
from shared.queue import logins
from shared.queue.broker import parse_broker
from shared.queue.logins import LoginsRefused
from shared.settings import SettingsError

MIN_FREE_BYTES = 1024**3
MAX_SKEW = timedelta(seconds=2)
SHORTEST_KEY = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `ok` is None when it could not be judged and nothing is wrong with that."""

    name: str
    ok: bool | None
    message: str


def examine(settings: Settings) -> list[Finding]:
    """Every part, each on its own: one that is missing hides none of the others."""
    home_and_key = [*_home(settings.home), *_secret_key(settings), *_weak_secrets(settings)]
    try:
        resources = make_resources(settings)
    except (SettingsError, ValueError) as error:
        return [*home_and_key, Finding("settings", False, str(error))]
    try:
        return [*home_and_key, *_with(resources, parse_broker(settings.redis_url or LOCAL_REDIS).shown)]
    finally:
        resources.redis.close()
        resources.database.dispose()


def _with(resources: Resources, redis_shown: str) -> Iterator[Finding]:
    looks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _database(resources),
        lambda: _redis(resources, redis_shown),
        lambda: _storage(resources),
        lambda: _clock(resources),
    ]
    for look in looks:
        yield from look()


def _home(home: Path) -> Iterator[Finding]:
    if not os.access(home, os.W_OK | os.X_OK):
        yield Finding("home", False, f"{home} cannot be written by this user")
        return
    free = shutil.disk_usage(home).free
    enough = free >= MIN_FREE_BYTES
    need = "" if enough else f"; {_size(MIN_FREE_BYTES)} are the least to work with"
    yield Finding("disk", enough, f"{_size(free)} free below {home}{need}")


def _secret_key(settings: Settings) -> Iterator[Finding]:
    length = len(settings.secret_key.get_secret_value())
    kept = settings.home / "secret_key"
    source = f"kept in {kept}" if kept.exists() else "from LONGSHORE_SECRET_KEY"
    if length < SHORTEST_KEY:
        yield Finding("secret key", False, f"{source}, but only {length} characters long: give at least {SHORTEST_KEY}")
    else:
        yield Finding("secret key", True, source)


def _weak_secrets(settings: Settings) -> Iterator[Finding]:
    in_production = settings.env == "production"
    if (found := weaknesses(settings)) and in_production:
        yield Finding("secrets", False, "; ".join(found))


def _data_keys(resources: Resources) -> Iterator[Finding]:
    """Whether the master key opens what was sealed; nothing to say before there is anything."""
    with resources.database.read() as tx:
        missing = rotation.missing_masters(tx, Keyring.of(resources))
    if missing:
        told = f"the master key {', '.join(missing)} is missing: what was sealed cannot be opened"
        yield Finding("master key", False, f"{told} (LONGSHORE_MASTER_KEY, LONGSHORE_OLD_MASTER_KEYS)")


def _database(resources: Resources) -> Iterator[Finding]:
    shown = resources.database.url.render_as_string(hide_password=True)
    try:
        problems = migrate.check(resources.database)
    except LongshoreError as error:
        yield Finding("database", False, f"{shown}: {error.message} ({error.details.get('reason', 'no reason given')})")
        return
    yield Finding("database", True, shown)
    yield Finding("migrations", not problems, "; ".join(problems) or "the schema is the one of this version")
    if not problems:
        yield from _data_keys(resources)


def _redis(resources: Resources, shown: str) -> Iterator[Finding]:
    try:
        resources.redis.ping()
    except (redis.RedisError, OSError) as error:
        hint = "" if shown != "127.0.0.1:6379/0" else " (LONGSHORE_REDIS_URL names another)"
        yield Finding("redis", False, f"{shown} does not answer: {error}{hint}")
        return
    yield Finding("redis", True, shown)
    yield from _redis_settings(resources.redis, resources.settings)


def _redis_settings(connection: redis.Redis, settings: Settings) -> Iterator[Finding]:
    try:
        for advice in advise(connection):
            yield Finding(f"redis {advice.name}", advice.is_right, advice.message)
        yield _node_logins(connection, settings)
        yield _open_door(settings)
    except (redis.RedisError, OSError) as error:
        yield Finding("redis", False, f"stopped answering: {error}")


def _node_logins(connection: redis.Redis, settings: Settings) -> Finding:
    mode, name = settings.node_broker_logins, "node logins"
    if mode == "shared":
        return Finding(name, None, "LONGSHORE_NODE_BROKER_LOGINS=shared: all nodes have one login to Redis")
    try:
        logins.try_out(connection)
    except LoginsRefused as error:
        without = "nodes get none" if mode == "own" else "all nodes share one"
        return Finding(name, False if mode == "own" else None, f"Redis makes no logins for us, {without}: {error}")
    return Finding(name, True, "each approved node gets a login of its own, good for its own queue")


def _open_door(settings: Settings) -> Finding:
    """Logins of nodes protect nothing where nobody needs one."""
    broker = replace(parse_broker(settings.redis_url or LOCAL_REDIS), username=None, password=None)
    try:
        with broker.client() as stranger:
            stranger.ping()
    except redis.RedisError:
        return Finding("redis without login", True, "refused")
    told = "anybody who reaches this Redis may do anything there: give its default user a password"
    return Finding("redis without login", False if settings.env == "production" else None, told)


def _storage(resources: Resources) -> Iterator[Finding]:
    url = resources.settings.storage_url
    try:
        resources.storage.check()
    except (LongshoreError, OSError) as error:
        yield Finding("storage", False, f"{url}: {error}")
        return
    yield Finding("storage", True, url)


def _clock(resources: Resources) -> Iterator[Finding]:
    """Our clock beside those of database and Redis: leases and tokens are judged by it."""
    others = dict(_other_clocks(resources))
    if not others:
        yield Finding("clock", None, "nobody answers with whom it could be compared")
        return
    here = datetime.now(UTC)
    skews = {name: abs(here - there) for name, there in others.items()}
    wrong = [f"{skew.total_seconds():.1f} s apart from {name}" for name, skew in skews.items() if skew > MAX_SKEW]
    agreed = f"agrees with {' and '.join(others)}"
    yield Finding("clock", not wrong, f"{'; '.join(wrong)}: synchronise the clocks (NTP)" if wrong else agreed)


def _other_clocks(resources: Resources) -> Iterator[tuple[str, datetime]]:
    try:
        seconds, microseconds = resources.redis.time()
        yield "Redis", datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)
    except (redis.RedisError, OSError):
        pass
    if resources.database.is_sqlite:
        return
    try:
        with resources.database.read() as tx:
            moment = tx.conn.scalar(select(func.clock_timestamp()))
    except LongshoreError:
        return
    if isinstance(moment, datetime):
        yield "the database", moment.astimezone(UTC)


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
