"""What every part of the coordinator is given: settings, database, clock, Redis, storage and the nudge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coordinator.config import Settings
from coordinator.domains.tasks.storage import Storage, make_storage
from coordinator.signal_line import SignalLine
from coordinator.store.database import Database
from shared.clock import Clock, SystemClock
from shared.queue.broker import parse_broker
from shared.queue.names import LIVE_CHANNEL, NUDGE_CHANNEL

REDIS_TIMEOUT_SECONDS = 2.0
LOCAL_REDIS = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True)
class Resources:
    """The outside world as one value; tests hand in their own parts."""

    settings: Settings
    database: Database
    clock: Clock
    redis: redis.Redis
    signals: SignalLine
    storage: Storage
    nudge: Callable[[str], None]

    def key(self, purpose: str) -> bytes:
        """32 bytes for one purpose, derived from the secret key, so that no key ever serves two."""
        return derive_key(self.settings.secret_key.get_secret_value(), purpose)


class Nudge:
    """Tells the dispatcher that there is something to do. Losing one costs a sweep interval."""

    def __init__(self, line: SignalLine) -> None:
        self._line = line

    def __call__(self, reason: str) -> None:
        self._line.send("nudge", lambda client: client.publish(NUDGE_CHANNEL, reason))


class Bell:
    """Tells followers that there is something new to read. A lost ring costs them their polling interval."""

    PAUSE_SECONDS = 1.0

    def __init__(self, line: SignalLine) -> None:
        self._line = line
        self._silent_until = 0.0

    def __call__(self) -> None:
        # It is rung at nearly every commit and mostly nobody listens: then one ring a second finds out whether
        # somebody has come. Whoever begins to listen looks for itself during that second.
        if time.monotonic() < self._silent_until:
            return
        if not self._line.send("bell", lambda client: client.publish(LIVE_CHANNEL, b"")):
            self._silent_until = time.monotonic() + self.PAUSE_SECONDS


@lru_cache(maxsize=32)
def derive_key(secret: str, purpose: str) -> bytes:
    """HKDF-SHA256 of the secret key, bound to a purpose."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"longshore/{purpose}".encode()).derive(secret.encode())


def make_resources(settings: Settings, **overrides: Any) -> Resources:
    """The real resources for these settings; `overrides` replace single parts. Connects to nothing yet."""
    clock = overrides.get("clock") or SystemClock()
    connection = overrides.get("redis") or connect_redis(settings.redis_url)
    signals = SignalLine(connection)
    parts: dict[str, Any] = {
        "settings": settings,
        "clock": clock,
        "redis": connection,
        "signals": signals,
        "storage": make_storage(settings),
        "nudge": Nudge(signals),
    }
    if "database" not in overrides:
        parts["database"] = Database(settings.database_url, clock=clock, pool_size=settings.web_threads)
    made = Resources(**(parts | overrides))
    made.database.bell = Bell(made.signals)
    return made


def connect_redis(url: str) -> redis.Redis:
    """A client that connects when first used and gives up soon."""
    return parse_broker(url or LOCAL_REDIS).client(REDIS_TIMEOUT_SECONDS)
