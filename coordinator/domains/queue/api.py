"""Endpoints of the queue layer itself: circuit breakers, for admins."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from coordinator.domains.queue import breakers
from coordinator.domains.queue.breakers import BreakerState, Change, Stored
from coordinator.domains.queue.schemas import BreakerBody, BreakerForcedView, BreakerView, ReasonBody
from coordinator.http.slice import PREFIXES, Call, ListOf, Page, Reply, Slice
from shared.policy.breaker import Breaker

circuit_breakers = Slice("circuit-breakers", "What keeps work away from models, images and nodes that fail")

FEW, MANY = 5, 200
"""Lines of history in a list, and of one breaker."""
NUMBERS = ("failure_threshold", "window_seconds", "recovery_timeout_seconds", "success_threshold")


@circuit_breakers.get("/circuit-breakers", may="circuit_breakers:read", reply=ListOf("circuit_breakers", BreakerView))
def list_circuit_breakers(call: Call) -> Page[dict[str, Any]]:
    """List circuit breakers, those that keep work waiting first.

    Breakers of models (`llm:`), images (`image:`) and nodes (`node:`) appear with their first failure.
    """
    found = breakers.list_breakers(call.tx, call.page)
    return Page(_views(call, found.items, FEW), found.total)


@circuit_breakers.post(
    "/circuit-breakers",
    may="circuit_breakers:admin",
    body=BreakerBody,
    reply=BreakerView,
    status=201,
    also={200: BreakerView},
    example={"name": "llm:openai/gpt-4o", "failure_threshold": 10, "window_seconds": 60},
    audit="breaker.configured",
)
def configure_circuit_breaker(call: Call) -> Reply:
    """Create a circuit breaker, or change the numbers it decides by.

    201 when it was made, 200 when it was there. Tasks, executions and agents name the breakers they depend on in
    `breakers`; `agent:<name>` counts the failures of that agent's own commands.
    """
    name = breakers.require_name(call.body.get("name") or call.body["service"])
    numbers = {key: call.body[key] for key in NUMBERS if key in call.body}
    stored, is_new = breakers.configure(
        call.tx, call.resources, name, numbers, by=call.actor.id, by_name=call.actor.name
    )
    call.audit("breaker.configured", resource_id=name, after=numbers | {"is_new": is_new})
    (view,) = _views(call, [stored], FEW)
    where = f"{PREFIXES[call.version]}/circuit-breakers/{quote(name, safe='/:@')}"
    return Reply(view, status=201, headers={"Location": where}) if is_new else Reply(view, status=200)


@circuit_breakers.get("/circuit-breakers/<path:name>", may="circuit_breakers:read", reply=BreakerView, errors=(422,))
def get_circuit_breaker(call: Call, name: str) -> dict[str, Any]:
    """One circuit breaker with its history. One that nothing was heard of is closed, not missing."""
    stored = breakers.get(call.tx, call.resources.settings, breakers.require_name(name))
    return _views(call, [stored], MANY)[0]


@circuit_breakers.post(
    "/circuit-breakers/<path:name>/force-open",
    may="circuit_breakers:admin",
    body=ReasonBody,
    reply=BreakerForcedView,
    example={"reason": "the provider announced an outage"},
    audit="breaker.forced_open",
)
def force_open_circuit_breaker(call: Call, name: str) -> dict[str, Any]:
    """Open a circuit breaker until it is reset: work that depends on it waits, what runs goes on."""
    return _forced(call, name, BreakerState.open)


@circuit_breakers.post(
    "/circuit-breakers/<path:name>/force-close",
    may="circuit_breakers:admin",
    body=ReasonBody,
    reply=BreakerForcedView,
    example={"reason": "the failures are of our own making"},
    audit="breaker.forced_closed",
)
def force_close_circuit_breaker(call: Call, name: str) -> dict[str, Any]:
    """Close a circuit breaker until it is reset: whatever fails, it does not open."""
    return _forced(call, name, BreakerState.closed)


@circuit_breakers.post(
    "/circuit-breakers/<path:name>/reset",
    may="circuit_breakers:admin",
    body=ReasonBody,
    reply=BreakerForcedView,
    example={"reason": "the provider is back"},
    audit="breaker.reset",
)
def reset_circuit_breaker(call: Call, name: str) -> dict[str, Any]:
    """Close a circuit breaker, clear its counts and whatever was forced on it; its numbers stay."""
    found = breakers.reset(
        call.tx,
        call.resources,
        breakers.require_name(name),
        by=call.actor.id,
        by_name=call.actor.name,
        reason=call.body.get("reason"),
    )
    return _done(found, "closed, its counts are cleared")


def _forced(call: Call, name: str, state: BreakerState) -> dict[str, Any]:
    found = breakers.force(
        call.tx,
        call.resources,
        breakers.require_name(name),
        state,
        by=call.actor.id,
        by_name=call.actor.name,
        reason=call.body.get("reason"),
    )
    return _done(found, f"forced {'open' if state is BreakerState.open else 'closed'} until it is reset")


def _done(found: Breaker, message: str) -> dict[str, Any]:
    return {"service": found.name, "state": str(found.state), "message": f"{found.name} is {message}"}


def _views(call: Call, found: list[Stored] | Any, lines: int) -> list[dict[str, Any]]:
    known = [stored.breaker for stored in found]
    recent = breakers.failures_within(call.tx, known)
    told = breakers.histories(call.tx, [each.name for each in known], lines)
    return [_view(stored, recent[stored.breaker.name], told[stored.breaker.name]) for stored in found]


def _view(stored: Stored, recent: int, told: list[Change]) -> dict[str, Any]:
    found = stored.breaker
    return {
        "name": found.name,
        "service": found.name,
        "state": str(found.state),
        "forced": found.forced,
        "cause": found.cause,
        "failure_count": recent,
        "total_successes": found.total_successes,
        "total_failures": found.total_failures,
        "success_rate": found.success_rate,
        "last_failure": found.last_failure,
        "last_failure_at": found.last_failure_at,
        "opened_at": found.opened_at,
        "next_probe_at": found.probe_from if found.state is BreakerState.open else None,
        "probe_attempt_id": found.probe_attempt_id,
        "probes_succeeded": found.probes_succeeded,
        "times_reopened": found.times_reopened,
        "config": {name: getattr(found.thresholds, name) for name in NUMBERS},
        "history": [_change(change) for change in told],
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "at": change.at,
        "previous_state": change.source,
        "state": change.target,
        "cause": change.cause,
        "changed_by": change.changed_by,
    }
