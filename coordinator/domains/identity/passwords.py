"""Passwords: argon2id, and the same cost whether or not there is anybody to compare with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

GREATEST_LENGTH = 1024
AT_ONCE = 4
_turnstile = threading.BoundedSemaphore(AT_ONCE)
"""One verification needs 64 MiB; without a bound a burst of logins would be a burst of memory."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one hash costs."""

    memory_kib: int
    passes: int
    lanes: int


COSTS = {"standard": Cost(65536, 3, 4), "low": Cost(8, 1, 1)}
"""`low` is for tests: it keeps nobody out."""


class Passwords:
    """Makes and verifies hashes at one cost."""

    def __init__(self, cost: Cost) -> None:
        self._hasher = PasswordHasher(
            time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes, type=Type.ID
        )
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        with _turnstile:
            return self._hasher.hash(password)

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password is right. Without a stored hash it costs the same and is wrong."""
        if len(password) > GREATEST_LENGTH:
            return False
        try:
            with _turnstile:
                self._hasher.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)


@lru_cache(maxsize=4)
def passwords(cost: str) -> Passwords:
    """The hasher of a cost named in the settings."""
    return Passwords(COSTS[cost])
