"""How many refusals get a row of their own in the audit trail: enough to see an attack, too few to be one."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta

from coordinator.domains.identity.places import place_of

__all__ = ["WINDOW", "RefusalBudget", "place_of"]

WINDOW = timedelta(minutes=1)
PER_ADDRESS = 10
PER_ACTOR = 10
PER_PROCESS = 120
"""Rows in one window; whatever is more is only counted."""

COUNTED_ADDRESSES = 4096
TOLD_AT_ONCE = 20
OTHERS = "others"
"""Stands for all addresses beyond those that are counted one by one."""


class RefusalBudget:
    """Decides for each refusal whether it gets a row. Callable from any thread; costs a few dictionary lookups."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: datetime | None = None
        # Only rows that are written are counted here, so neither grows beyond PER_PROCESS.
        self._by_address: Counter[str] = Counter()
        self._by_actor: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    @property
    def is_owing(self) -> bool:
        """Whether refusals were left out that no row has told of yet."""
        return bool(self._left_out)

    def spend(self, *, address: str, actor: str | None, now: datetime) -> int | None:
        """How many refusals from this address the row for this one has to tell of; None when it gets no row."""
        place = place_of(address)
        with self._lock:
            self._turn(now)
            if self._is_spent(place, actor):
                self._leave_out(place, 1)
                return None
            self._by_address[place] += 1
            if actor is not None:
                self._by_actor[actor] += 1
            return self._left_out.pop(place, 0)

    def give_back(self, *, address: str, count: int) -> None:
        """So many refusals were to be told of by a row that could not be written."""
        with self._lock:
            self._leave_out(place_of(address), count)

    def settle(self) -> list[tuple[str, int]]:
        """What was left out and not told yet, by address; the longest tail of addresses as one."""
        with self._lock:
            found = self._left_out.most_common()
            self._left_out.clear()
        told, rest = found[:TOLD_AT_ONCE], sum(count for _, count in found[TOLD_AT_ONCE:])
        return [*told, (OTHERS, rest)] if rest else told

    def _turn(self, now: datetime) -> None:
        # A clock that was set back must not keep a window open for as long as it was set back.
        if self._since is None or not timedelta() <= now - self._since < WINDOW:
            self._since = now
            self._by_address.clear()
            self._by_actor.clear()

    def _is_spent(self, place: str, actor: str | None) -> bool:
        if self._by_address.total() >= PER_PROCESS or self._by_address[place] >= PER_ADDRESS:
            return True
        return actor is not None and self._by_actor[actor] >= PER_ACTOR

    def _leave_out(self, place: str, count: int) -> None:
        full = len(self._left_out) >= COUNTED_ADDRESSES and place not in self._left_out
        self._left_out[OTHERS if full else place] += count
