"""Circuit breakers: when one opens, lets a probe through and closes again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from shared.lifecycle import Lifecycle

BUCKETS = 10
"""In so many slices the window slides."""
LONGEST_JITTER = 0.1
"""How much of a repeated wait is added by lot at most, so that breakers that opened together do not probe together."""


class BreakerState(StrEnum):
    """Whether work that depends on something may go."""

    closed = "closed"
    """It may. Failures are counted."""
    open = "open"
    """It waits, until the recovery time is over or, when an admin forced it open, until it is reset."""
    half_open = "half_open"
    """One job at a time tries whether it works again; the others wait."""


BREAKER = Lifecycle(
    "breaker",
    {
        BreakerState.closed: {BreakerState.open},
        BreakerState.open: {BreakerState.half_open, BreakerState.closed},
        BreakerState.half_open: {BreakerState.open, BreakerState.closed},
    },
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers that one breaker decides by."""

    failure_threshold: int = 5
    window_seconds: float = 120.0
    recovery_timeout_seconds: float = 60.0
    success_threshold: int = 3

    def bucket(self, at: datetime) -> int:
        """The slice of time that a moment lies in."""
        return int(at.timestamp() / (self.window_seconds / BUCKETS))

    def oldest_bucket(self, now: datetime) -> int:
        """The first slice that still counts: together with those behind it, it spans no more than the window."""
        return self.bucket(now) - BUCKETS + 1


@dataclass(frozen=True, slots=True)
class Breaker:
    """One breaker. `probe_attempt_id` is the attempt that tries it out, for as long as that attempt lives."""

    name: str
    thresholds: Thresholds
    state: BreakerState = BreakerState.closed
    forced: bool = False
    cause: str | None = None
    opened_at: datetime | None = None
    probe_from: datetime | None = None
    times_reopened: int = 0
    probe_attempt_id: str | None = None
    probes_succeeded: int = 0
    total_successes: int = 0
    total_failures: int = 0
    last_failure: Mapping[str, Any] | None = None
    last_failure_at: datetime | None = None

    def with_(self, **changes: Any) -> Self:
        return replace(self, **changes)

    @property
    def success_rate(self) -> float:
        """In percent; a breaker that nothing was heard of is as good as can be."""
        total = self.total_successes + self.total_failures
        return round(100 * self.total_successes / total, 2) if total else 100.0


@dataclass(frozen=True, slots=True)
class Charge:
    """What the end of one attempt says of one breaker: `failure` tells what went wrong, None means that it worked."""

    name: str
    attempt_id: str
    failure: Mapping[str, Any] | None = None


def charge(breaker: Breaker, told: Charge, *, recent: int, now: datetime, draw: float, cap_seconds: float) -> Breaker:
    """The breaker after one more charge. `recent` are the failures within its window, this one included."""
    counted = _counted(breaker, told, now)
    if breaker.forced or breaker.state is BreakerState.open:
        return counted
    if breaker.state is BreakerState.closed:
        is_enough = told.failure is not None and recent >= breaker.thresholds.failure_threshold
        return _opened(counted, recent, told, now) if is_enough else counted
    if told.failure is not None:
        return _reopened(counted, told, now, draw=draw, cap_seconds=cap_seconds)
    # Only the probe speaks for the present: others may have begun before the trouble did.
    return _probed(counted) if told.attempt_id == breaker.probe_attempt_id else counted


def half_open(breaker: Breaker, now: datetime) -> Breaker | None:
    """The breaker with its recovery time over; None while it is not."""
    if breaker.state is not BreakerState.open or breaker.forced or breaker.probe_from is None:
        return None
    if breaker.probe_from > now:
        return None
    return breaker.with_(
        state=BreakerState.half_open, probe_attempt_id=None, probes_succeeded=0, cause="the recovery time is over"
    )


def force(breaker: Breaker, state: BreakerState, *, cause: str, now: datetime) -> Breaker:
    """Open or closed until it is reset, whatever happens."""
    is_open = state is BreakerState.open
    still = breaker.state is BreakerState.open and breaker.opened_at is not None
    return breaker.with_(
        state=state,
        forced=True,
        cause=cause,
        opened_at=(breaker.opened_at if still else now) if is_open else None,
        probe_from=None,
        times_reopened=0,
        probe_attempt_id=None,
        probes_succeeded=0,
    )


def reset(breaker: Breaker, *, cause: str) -> Breaker:
    """As on its first day; only its numbers to decide by stay."""
    return Breaker(breaker.name, breaker.thresholds, cause=cause)


def recovery_seconds(thresholds: Thresholds, times_reopened: int, *, draw: float, cap_seconds: float) -> float:
    """How long it stays open: the recovery time at first, then twice as long each time, at most the cap."""
    first = thresholds.recovery_timeout_seconds
    if times_reopened == 0:
        return first
    doubled: float = first * 2 ** min(times_reopened, 32)
    return min(max(cap_seconds, first), doubled * (1 + LONGEST_JITTER * draw))


def _counted(breaker: Breaker, told: Charge, now: datetime) -> Breaker:
    if told.failure is None:
        return breaker.with_(total_successes=breaker.total_successes + 1)
    total = breaker.total_failures + 1
    return breaker.with_(total_failures=total, last_failure=told.failure, last_failure_at=now)


def _opened(breaker: Breaker, recent: int, told: Charge, now: datetime) -> Breaker:
    window = breaker.thresholds.window_seconds
    return breaker.with_(
        state=BreakerState.open,
        opened_at=now,
        probe_from=now + timedelta(seconds=breaker.thresholds.recovery_timeout_seconds),
        times_reopened=0,
        cause=f"{recent} failures within {window:g} s, the last one: {_words(told)}",
    )


def _reopened(breaker: Breaker, told: Charge, now: datetime, *, draw: float, cap_seconds: float) -> Breaker:
    times = breaker.times_reopened + 1
    wait = recovery_seconds(breaker.thresholds, times, draw=draw, cap_seconds=cap_seconds)
    return breaker.with_(
        state=BreakerState.open,
        opened_at=now,
        probe_from=now + timedelta(seconds=wait),
        times_reopened=times,
        probe_attempt_id=None,
        probes_succeeded=0,
        cause=f"it failed again when it was tried: {_words(told)}",
    )


def _probed(breaker: Breaker) -> Breaker:
    succeeded = breaker.probes_succeeded + 1
    if succeeded < breaker.thresholds.success_threshold:
        return breaker.with_(probes_succeeded=succeeded, probe_attempt_id=None)
    return breaker.with_(
        state=BreakerState.closed,
        opened_at=None,
        probe_from=None,
        times_reopened=0,
        probe_attempt_id=None,
        probes_succeeded=0,
        cause=f"it worked {succeeded} times in a row" if succeeded > 1 else "it worked when it was tried",
    )


def _words(told: Charge) -> str:
    failure = told.failure or {}
    return str(failure.get("message") or failure.get("reason_code") or "it failed")
