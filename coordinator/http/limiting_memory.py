"""Limits counted in this process alone: what holds while Redis is away, and the words that Redis' script repeats."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.http.limiting_rules import Kind, Limit, Verdict

SLACK = 1e-6
"""Sums of floats are compared with this much patience, here and in the script, so that both decide alike."""
GREATEST_COUNT = 20_000
"""Keys that are remembered; beyond, whatever has run out goes first, then the oldest."""


@dataclass(slots=True)
class Held:
    """What is known of one key; each kind of limit uses its part."""

    until: float = 0.0
    index: int = -1
    count: int = 0
    before: int = 0
    full_at: float = 0.0
    leases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """One limit's verdict, and how to count the request once all limits let it pass."""

    verdict: Verdict
    take: Callable[[], None]


class MemoryCounter:
    """Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}

    def count(self, limits: Sequence[Limit], *, lease: str, now: float) -> list[Verdict]:
        """What each limit says; the request is counted against all of them or against none."""
        with self._lock:
            asked = [_KINDS[limit.kind](self._of(limit.key, now), limit, lease, now) for limit in limits]
            if not any(one.verdict.wait for one in asked):
                for one in asked:
                    one.take()
            return [one.verdict for one in asked]

    def release(self, limits: Sequence[Limit], *, lease: str) -> None:
        """Give back the place that the request had."""
        with self._lock:
            for limit in limits:
                if (held := self._held.get(limit.key)) is not None:
                    held.leases.pop(lease, None)

    def _of(self, key: str, now: float) -> Held:
        if key not in self._held:
            if len(self._held) >= GREATEST_COUNT:
                self._make_room(now)
            self._held[key] = Held(until=now)
        return self._held[key]

    def _make_room(self, now: float) -> None:
        self._held = {key: held for key, held in self._held.items() if held.until > now}
        while len(self._held) >= GREATEST_COUNT:
            del self._held[next(iter(self._held))]


def _window(held: Held, limit: Limit, _lease: str, now: float) -> Asked:
    most, seconds = limit.most, limit.seconds
    # A clock that was set back stays in the newest window it has seen.
    index = max(math.floor(now / seconds), held.index)
    count = held.count if held.index == index else 0
    before = held.before if held.index == index else held.count if held.index == index - 1 else 0
    gone = max(0.0, now - index * seconds)
    used = before * (1 - gone / seconds) + count
    fits = used + 1 <= most + SLACK
    if fits:
        wait = 0.0
    elif count + 1 <= most:
        wait = seconds * (1 - (most - 1 - count) / before) - gone
    else:
        wait = seconds - gone + seconds * (1 - (most - 1) / count)
    remaining = math.floor(most - used - (1 if fits else 0) + SLACK)

    def take() -> None:
        held.index, held.count, held.before = index, count + 1, before
        held.until = (index + 2) * seconds

    return Asked(_verdict(remaining, wait, (index + 1) * seconds, fits=fits), take)


def _bucket(held: Held, limit: Limit, _lease: str, now: float) -> Asked:
    most, seconds = limit.most, limit.seconds
    taken = max(held.full_at, now) + seconds
    wait = taken - now - most * seconds
    fits = wait <= SLACK
    full_at = taken if fits else taken - seconds
    remaining = math.floor((most * seconds - (full_at - now)) / seconds + SLACK)

    def take() -> None:
        held.full_at = held.until = taken

    return Asked(_verdict(remaining, wait, full_at, fits=fits), take)


def _lease(held: Held, limit: Limit, lease: str, now: float) -> Asked:
    held.leases = {one: until for one, until in held.leases.items() if until > now}
    fits = len(held.leases) < limit.most
    remaining = limit.most - len(held.leases) - (1 if fits else 0)

    def take() -> None:
        held.leases[lease] = held.until = now + limit.seconds

    return Asked(_verdict(remaining, 1.0, now, fits=fits), take)


def _verdict(remaining: int, wait: float, reset: float, *, fits: bool) -> Verdict:
    return Verdict(max(0, remaining), 0.0 if fits else max(wait, SLACK), reset)


_KINDS = {Kind.WINDOW: _window, Kind.BUCKET: _bucket, Kind.LEASE: _lease}
