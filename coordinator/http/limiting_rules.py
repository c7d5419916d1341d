"""What a request is counted against: plans, callers, strangers and logins as limits; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordinator.config import Settings
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.refusals import place_of

HOUR = 3600.0
MINUTE = 60.0
LEASE_SECONDS = 300.0
"""A request whose process died gives its place back after this long; none that lives takes as long to answer."""

OWNERS_PLAN = "owners_plan"
"""The fact about a key with a plan of its own that says which one its owner is on."""

EXEMPT = frozenset({ActorKind.NODE, ActorKind.ENROLMENT})


class Kind(StrEnum):
    """How a limit counts."""

    WINDOW = "window"
    """At most `most` in any `seconds`; the share of the window before that still counts is estimated."""
    BUCKET = "bucket"
    """At most `most` at once, and one more every `seconds`."""
    LEASE = "lease"
    """At most `most` at the same time; a place that is not given back is free again after `seconds`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that a request is counted against."""

    key: str
    kind: Kind
    most: int
    seconds: float
    told: str
    """What the caller reads when it is reached."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one limit says to one more request."""

    remaining: int
    wait: float
    """Seconds until it would fit; 0 when it does."""
    reset: float
    """When the count begins anew, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the headers of an answer tell."""

    most: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How much somebody may call."""

    per_hour: int
    at_once: int
    burst: int


PLANS: Mapping[str, Plan | None] = {
    "free": Plan(per_hour=1000, at_once=10, burst=50),
    "pro": Plan(per_hour=10_000, at_once=50, burst=500),
    "enterprise": None,
}
SMALLEST = PLANS["free"]
"""Stands for a plan that nobody knows: a misspelt one must not be the way to no limit at all."""


def of_caller(actor: Actor, settings: Settings) -> tuple[Limit, ...]:
    """The limits of somebody who has shown who they are; none for nodes, and none for most."""
    if actor.kind in EXEMPT:
        return ()
    user, told = f"user:{actor.id}", "too many requests in a minute"
    limits = _of_plan(user, actor.facts.get(OWNERS_PLAN, actor.plan))
    if OWNERS_PLAN in actor.facts:
        # Beside its owner and not in the owner's place, or ten keys would be ten times as much.
        limits += _of_plan(f"key:{actor.credential_id}", actor.plan)
    if settings.rate_user_per_minute:
        limits += (Limit(f"minute:{user}", Kind.WINDOW, settings.rate_user_per_minute, MINUTE, told),)
    return limits


def _of_plan(whose: str, name: str) -> tuple[Limit, ...]:
    plan = PLANS.get(name, SMALLEST)
    if plan is None:
        return ()
    return (
        Limit(f"hour:{whose}", Kind.WINDOW, plan.per_hour, HOUR, "the plan's requests of this hour are used up"),
        Limit(f"burst:{whose}", Kind.BUCKET, plan.burst, HOUR / plan.per_hour, "too many requests in a row"),
        Limit(f"open:{whose}", Kind.LEASE, plan.at_once, LEASE_SECONDS, "too many requests at the same time"),
    )


def of_door(door: str, address: str, settings: Settings) -> tuple[Limit, ...]:
    """The limits of an address from which somebody comes who has not shown who they are."""
    most = {
        "usual": settings.rate_anonymous_per_minute,
        "login": settings.rate_login_per_minute,
        "register": settings.rate_register_per_minute,
    }.get(door, 0)
    if not most:
        return ()
    told = f"too many {DOORS[door]} from this address"
    return (Limit(f"{door}:{place_of(address)}", Kind.WINDOW, most, MINUTE, told),)


DOORS: Mapping[str, str] = {
    "usual": "requests without a login",
    "login": "logins",
    "register": "registrations",
    "free": "",
}
"""What endpoints may say about themselves, and what it counts; `free` counts nothing."""


def standing_of(limits: Sequence[Limit], verdicts: Sequence[Verdict]) -> Standing:
    """What to tell: of the limit that refuses for longest, else of the first."""
    worst = max(range(len(limits)), key=lambda index: verdicts[index].wait)
    at = worst if verdicts[worst].wait else 0
    return Standing(limits[at].most, 0 if verdicts[at].wait else verdicts[at].remaining, verdicts[at].reset)


def refusing(limits: Sequence[Limit], verdicts: Sequence[Verdict]) -> tuple[Limit, int] | None:
    """The limit that refuses for longest and the whole seconds until it does not; None when all let it pass."""
    worst = max(range(len(limits)), key=lambda index: verdicts[index].wait)
    wait = verdicts[worst].wait
    return (limits[worst], math.ceil(wait)) if wait else None
