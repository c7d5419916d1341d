"""Circuit breakers of the whole fleet: charged by what attempts report, worked by admins, told to everybody."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog

from coordinator.config import Settings
from coordinator.domains.identity import audit
from coordinator.domains.queue import breaker_store, moves
from coordinator.domains.queue.breaker_store import Change, Dependence, Stored
from coordinator.domains.queue.moves import Move
from coordinator.domains.queue.signals import nudge
from coordinator.domains.queue.states import AttemptState
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.clock import rfc3339
from shared.contracts.node import Outcome
from shared.errors import Invalid
from shared.policy import breaker as policy
from shared.policy import charging
from shared.policy.breaker import BREAKER, Breaker, BreakerState, Charge, Thresholds
from shared.policy.charging import Ended

__all__ = [
    "BreakerState",
    "Change",
    "Stored",
    "charge",
    "configure",
    "failures_within",
    "follow_name",
    "force",
    "forget",
    "get",
    "histories",
    "list_breakers",
    "record",
    "require_name",
    "reset",
    "usual",
]

EVERYBODY = "default"
"""The space whose followers hear of breakers: they belong to the fleet, not to a tenant."""
_EVENTS = {
    BreakerState.open: "breaker.opened",
    BreakerState.half_open: "breaker.half_open",
    BreakerState.closed: "breaker.closed",
}
_ACTIONS = {
    BreakerState.open: "breaker.opened",
    BreakerState.half_open: "breaker.half_opened",
    BreakerState.closed: "breaker.closed",
}
QUIET = timedelta(days=7)
"""After so long without a failure a breaker that nobody made by hand is forgotten."""
FORGET_BATCH = 200
_SPEAKING = {str(outcome) for outcome in Outcome}

log = structlog.get_logger(__name__)


def usual(settings: Settings) -> Thresholds:
    """The numbers of a breaker that nobody configured."""
    return Thresholds(
        failure_threshold=settings.breaker_failure_threshold,
        window_seconds=settings.breaker_window_seconds,
        recovery_timeout_seconds=settings.breaker_recovery_seconds,
        success_threshold=settings.breaker_success_threshold,
    )


# ---- charged by attempts


def charge(
    tx: Transaction,
    resources: Resources,
    ended: Sequence[Move],
    told: Mapping[str, Mapping[str, object] | None],
    *,
    there_are_some: bool,
) -> None:
    """Let the ends of these attempts speak for or against what they depended on. The caller holds the jobs' locks.

    `told` is what the node says of services, by attempt. While there is no breaker (`there_are_some`), successes cost
    nothing: breakers of models, images and nodes are made by their first failure.
    """
    if not there_are_some and not any(_may_make_one(move, told) for move in ended):
        return
    depends = breaker_store.dependences(tx, {move.after.demand_id for move in ended if move.after.demand_id})
    facts = [_ended(move, depends, told) for move in ended if _speaks(move)]
    charges = [each for one in facts for each in charging.charges(one)]
    if charges:
        _settle(tx, resources, charges)


def _speaks(move: Move) -> bool:
    attempt = move.attempt_after
    return attempt is not None and str(attempt.state) in _SPEAKING


def _may_make_one(move: Move, told: Mapping[str, Mapping[str, object] | None]) -> bool:
    attempt = move.attempt_after
    if attempt is None:
        return False
    return attempt.state is AttemptState.lost or "failed" in (told.get(attempt.id) or {}).values()


def _ended(move: Move, depends: Mapping[str, Dependence], told: Mapping[str, Mapping[str, object] | None]) -> Ended:
    attempt = move.attempt_after
    assert attempt is not None
    on = depends.get(move.after.demand_id or "", Dependence((), None))
    return Ended(
        attempt_id=attempt.id,
        job_id=attempt.job_id,
        node_id=attempt.node_id,
        outcome=Outcome(str(attempt.state)),
        has_computer=attempt.takes_slot,
        reason_code=attempt.reason_code,
        message=str((attempt.error or {}).get("message") or "") or None,
        depends_on=on.names,
        agent=on.agent,
        told=told.get(attempt.id),
    )


def _settle(tx: Transaction, resources: Resources, charges: Sequence[Charge]) -> None:
    settings = resources.settings
    made = {
        each.name for each in charges if each.failure is not None and each.name.startswith(charging.MADE_BY_FAILURE)
    }
    breaker_store.make(tx, [Breaker(name, usual(settings)) for name in made])
    before = breaker_store.lock(tx, {each.name for each in charges})
    recent = _count(tx, before, charges)
    after = dict(before)
    for each in (one for one in charges if one.name in before):
        recent[each.name] += each.failure is not None
        after[each.name] = policy.charge(
            after[each.name],
            each,
            recent=recent[each.name],
            now=tx.now,
            draw=random.random(),  # noqa: S311 - jitter, not a secret
            cap_seconds=settings.breaker_recovery_cap_seconds,
        )
    breaker_store.save(tx, list(after.values()))
    for name, now_is in after.items():
        record(tx, before[name], now_is, resources=resources)


def _count(tx: Transaction, known: Mapping[str, Breaker], charges: Sequence[Charge]) -> dict[str, int]:
    """The failures in the windows so far; then these are noted there too."""
    failures = Counter(each.name for each in charges if each.failure is not None and each.name in known)
    recent = Counter(breaker_store.failures_within(tx, [known[name] for name in failures]))
    for name, count in failures.items():
        breaker_store.count_failures(tx, known[name], count)
    return recent


def record(
    tx: Transaction,
    before: Breaker,
    after: Breaker,
    *,
    resources: Resources | None = None,
    by: str | None = None,
    is_worth_a_line: bool = False,
) -> None:
    """What follows from a change of state: history, event, log line, and a nudge where work may go again.

    `is_worth_a_line` has a change told that leaves the state as it is.
    """
    if before.state is not after.state:
        BREAKER.require(before.state, after.state)
    elif before.forced == after.forced and not is_worth_a_line:
        return
    if after.state is BreakerState.closed and before.state is not BreakerState.closed:
        breaker_store.forget_failures(tx, [after.name])
    cause = after.cause or ""
    breaker_store.note_change(tx, after.name, Change(tx.now, str(before.state), str(after.state), cause, by))
    moves.announce(tx, [_event(tx, before, after)])
    if by is None:
        _tell_trail(tx, before, after)
    tx.after_commit(lambda: _log(before, after, by))
    if resources is not None:
        nudge(tx, resources, "breaker")


def _tell_trail(tx: Transaction, before: Breaker, after: Breaker) -> None:
    """What a breaker does by itself; what admins do to it is told by their requests."""
    facts = [{"state": str(each.state), "forced": each.forced} for each in (before, after)]
    audit.record(
        tx,
        audit.SYSTEM,
        _ACTIONS[after.state],
        resource_id=after.name,
        before=facts[0],
        after=facts[1],
        message=after.cause,
    )


def _event(tx: Transaction, before: Breaker, after: Breaker) -> dict[str, Any]:
    data = {
        "name": after.name,
        "state": str(after.state),
        "previous_state": str(before.state),
        "forced": after.forced,
        "cause": after.cause,
        "next_probe_at": rfc3339(after.probe_from) if after.probe_from else None,
    }
    return {"at": tx.now, "space": EVERYBODY, "type": _EVENTS[after.state], "subject_id": None, "data": data}


def _log(before: Breaker, after: Breaker, by: str | None) -> None:
    write = log.warning if after.state is BreakerState.open else log.info
    write(
        _EVENTS[after.state], name=after.name, previous=str(before.state), forced=after.forced, cause=after.cause, by=by
    )


# ---- worked by admins


def require_name(name: str) -> str:
    """The name as breakers are kept by it; Invalid when nothing can be called that."""
    try:
        return charging.tidy(name)
    except ValueError as error:
        reason = str(error)
        raise Invalid(
            f"name: {reason}", field="name", reason=reason, errors=[{"field": "name", "reason": reason}]
        ) from None


def get(tx: Transaction, settings: Settings, name: str) -> Stored:
    """The breaker; one that nobody has heard of is closed."""
    return breaker_store.find(tx, name) or Stored(Breaker(name, usual(settings)), None, None)


def list_breakers(tx: Transaction, page: PageRequest) -> Page[Stored]:
    """Breakers, those that keep work from going first."""
    return breaker_store.list_page(tx, page)


def failures_within(tx: Transaction, known: Sequence[Breaker]) -> dict[str, int]:
    """Failures within the window of each, by name."""
    return breaker_store.failures_within(tx, known)


def histories(tx: Transaction, names: Collection[str], limit: int) -> dict[str, list[Change]]:
    """The last changes of each, newest first."""
    return breaker_store.histories(tx, names, limit)


def configure(
    tx: Transaction, resources: Resources, name: str, numbers: Mapping[str, Any], *, by: str, by_name: str
) -> tuple[Stored, bool]:
    """Set the numbers that a breaker decides by; those not given stay. Answers whether it was made just now."""
    before, is_new = _locked(tx, resources, name)
    thresholds = Thresholds(
        **{each: numbers.get(each, getattr(before.thresholds, each)) for each in breaker_store.THRESHOLDS}
    )
    if thresholds.window_seconds != before.thresholds.window_seconds:
        # Slices of another width say nothing about this window.
        breaker_store.forget_failures(tx, [name])
    if is_new or thresholds != before.thresholds:
        after = before.with_(thresholds=thresholds)
        breaker_store.save(tx, [after])
        told = after.with_(cause=f"{'made' if is_new else 'configured'} by {by_name}")
        record(tx, before, told, by=by, is_worth_a_line=True)
    nudge(tx, resources, "breaker")
    return get(tx, resources.settings, name), is_new


def force(
    tx: Transaction, resources: Resources, name: str, state: BreakerState, *, by: str, by_name: str, reason: str | None
) -> Breaker:
    """Open or close a breaker until it is reset; one that nobody has heard of is made."""
    before, _ = _locked(tx, resources, name)
    word = "open" if state is BreakerState.open else "closed"
    cause = f"forced {word} by {by_name}" + (f": {reason}" if reason else "")
    return _put(tx, resources, before, policy.force(before, state, cause=cause, now=tx.now), by=by)


def reset(tx: Transaction, resources: Resources, name: str, *, by: str, by_name: str, reason: str | None) -> Breaker:
    """Close a breaker and clear what it counted and what was forced on it."""
    before = breaker_store.lock(tx, [name]).get(name)
    if before is None:
        return Breaker(name, usual(resources.settings))
    cause = f"reset by {by_name}" + (f": {reason}" if reason else "")
    breaker_store.forget_failures(tx, [name])
    return _put(tx, resources, before, policy.reset(before, cause=cause), by=by)


def _locked(tx: Transaction, resources: Resources, name: str) -> tuple[Breaker, bool]:
    made = breaker_store.make(tx, [Breaker(name, usual(resources.settings))])
    return breaker_store.lock(tx, [name])[name], name in made


def _put(tx: Transaction, resources: Resources, before: Breaker, after: Breaker, *, by: str) -> Breaker:
    breaker_store.save(tx, [after])
    record(tx, before, after, resources=resources, by=by, is_worth_a_line=True)
    return after


# ---- agents and age


def forget(tx: Transaction, settings: Settings) -> int:
    """Let go of breakers that a failure made and that have been quiet since: what is healthy costs nothing again."""
    quiet_since = tx.now - QUIET
    return breaker_store.forget(
        tx, charging.MADE_BY_FAILURE, usual(settings), quiet_since=quiet_since, limit=FORGET_BATCH
    )


def follow_name(tx: Transaction, agent_id: str, name: str) -> None:
    """An agent is called something else from now on: the breaker that was made for it goes on holding it.

    Others may bear the old name still, so its breaker stays and the new name gets one that stands the same.
    """
    former = breaker_store.called(tx, agent_id)
    if former is None or former == name:
        return
    source, target = charging.agent(former), charging.agent(name)
    before = breaker_store.lock(tx, [source]).get(source)
    if before is None:
        return
    after = before.with_(name=target, cause=f"taken over from {source}: the agent was renamed")
    if breaker_store.make(tx, [after]):
        breaker_store.copy_failures(tx, source, target)
        record(tx, after, after, is_worth_a_line=True)
