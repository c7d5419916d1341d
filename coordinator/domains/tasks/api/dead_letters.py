"""Endpoints of the dead letter queue."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from coordinator.domains.queue.letters import LetterFilter
from coordinator.domains.queue.redriving import Principal
from coordinator.domains.queue.service import PRIORITIES
from coordinator.domains.tasks.api import shown
from coordinator.domains.tasks.dead_letter_schemas import (
    DeadLetterBody,
    DeadLetterQuery,
    DeadLetterStatsView,
    DeadLetterView,
    RetriedView,
    RetryAllBody,
)
from coordinator.domains.tasks.service import dead_letters as service
from coordinator.domains.tasks.service import orders
from coordinator.domains.tasks.service.dead_letters import Entry, Retried
from coordinator.http.slice import Call, ListOf, Page, Reply, Slice
from coordinator.store.database import Transaction

dead_letters = Slice("dead letters", "Tasks and executions that failed for good, until an admin decides about them")


@dead_letters.get(
    "/dead-letter", may="dead_letters:read", query=DeadLetterQuery, reply=ListOf("dead_letters", DeadLetterView)
)
def list_dead_letters(call: Call) -> Page[dict[str, Any]]:
    """List what failed for good, newest first."""
    found = service.list_entries(call.tx, call.space, _meant(call.query, call.tx.now), call.page)
    return Page([_view(entry) for entry in found.items], found.total)


@dead_letters.post(
    "/dead-letter",
    may="dead_letters:write",
    body=DeadLetterBody,
    reply=DeadLetterView,
    status=201,
    also={202: DeadLetterView},
    errors=(404, 409),
    example={"task_id": "019aa7c4-5b1e-7d3a-9c58-2f6f1f0c2d11", "reason": "the input is wrong, ask the customer"},
    audit="dead_letter.added",
)
def add_dead_letter(call: Call) -> Reply:
    """Put a task or an execution into the dead letter queue by hand.

    What waits dies at once. What runs is stopped first: 202, and it is there once its computer is gone. What failed
    and was taken out is put back. 409 for what succeeded or was cancelled.
    """
    job_id = _named(call.body)
    reason = call.body.get("reason") or call.body.get("error") or f"put there by {call.actor.name}"
    entry = service.put(call.tx, call.resources, call.space, job_id, reason=reason, by=_by(call))
    return Reply(_view(entry), status=201 if entry.letter is not None else 202)


@dead_letters.get("/dead-letter/stats", may="dead_letters:read", reply=DeadLetterStatsView)
def get_dead_letter_stats(call: Call) -> dict[str, Any]:
    """Count the dead letters by priority, by reason and by agent."""
    stats = service.stats(call.tx, call.space)
    return {
        "total": stats.total,
        "retryable": stats.retryable,
        "by_priority": dict(stats.by_priority),
        "by_reason": dict(stats.by_reason),
        "by_agent": dict(stats.by_agent),
        "oldest_entry": stats.oldest,
    }


@dead_letters.post(
    "/dead-letter/retry-all",
    may="dead_letters:write",
    body=RetryAllBody,
    reply=RetriedView,
    transaction="none",
    idempotent=True,
    example={"reason": "timeout", "newer_than_seconds": 86400},
    audit="dead_letter.redriven_all",
)
def retry_dead_letters(call: Call) -> dict[str, Any]:
    """Send all dead letters, or those that the filters mean, round again.

    Each goes round once, however often this is called at once. They are released at a limited rate, the oldest first;
    the answer says if there were more than one call can do.
    """
    with call.read() as tx:
        wanted = _meant(call.body, tx.now)

    def tell(tx: Transaction, count: int) -> None:
        call.audit("dead_letter.redriven_all", after={"count": count, "wanted": call.body}, tx=tx)

    retried = service.retry_all(
        call.write, call.resources, call.space, wanted, by=_by(call), seconds=service.RETRY_ALL_SECONDS, tell=tell
    )
    return {"retried_count": retried.count, "message": _told(retried)}


@dead_letters.get("/dead-letter/<id:entry_id>", may="dead_letters:read", reply=DeadLetterView)
def get_dead_letter(call: Call, entry_id: str) -> dict[str, Any]:
    """One dead letter, by the id of its task or execution."""
    return _view(service.get(call.tx, call.space, entry_id))


@dead_letters.post(
    "/dead-letter/<id:entry_id>/retry",
    may="dead_letters:write",
    reply=DeadLetterView,
    errors=(409,),
    audit="dead_letter.redriven",
)
def retry_dead_letter(call: Call, entry_id: str) -> dict[str, Any]:
    """Send one round again, at once and with all its tries.

    Answers it as it is now: out of the dead letter queue and waiting. 409 when it is not in the dead letter queue, or
    when its agent was deleted.
    """
    return _view(service.retry(call.tx, call.resources, call.space, entry_id, by=_by(call)))


@dead_letters.delete("/dead-letter/<id:entry_id>", may="dead_letters:write", status=204, audit="dead_letter.dismissed")
def remove_dead_letter(call: Call, entry_id: str) -> None:
    """Take one out of the dead letter queue: it stays failed and is no longer offered."""
    service.remove(call.tx, call.space, entry_id, by=_by(call))


def _named(body: Mapping[str, Any]) -> str:
    given = [str(body[name]) for name in ("task_id", "execution_id") if name in body]
    if len(given) != 1:
        raise orders.fault("task_id", "name either a task_id or an execution_id")
    return given[0]


def _by(call: Call) -> Principal:
    return Principal(call.actor.id, call.actor.name)


def _meant(asked: Mapping[str, Any], now: datetime) -> LetterFilter:
    older, newer = asked.get("older_than_seconds"), asked.get("newer_than_seconds")
    return LetterFilter(
        reason=asked.get("reason"),
        agent_id=asked.get("agent_id"),
        kind=asked.get("kind"),
        priority=PRIORITIES[asked["priority"]] if "priority" in asked else None,
        before=None if older is None else now - timedelta(seconds=older),
        since=None if newer is None else now - timedelta(seconds=newer),
    )


def _told(retried: Retried) -> str:
    if not retried.count:
        return "There was nothing to retry."
    told = "One goes round again." if retried.count == 1 else f"{retried.count} go round again."
    return told if retried.is_all else f"{told} There are more: call again."


def _view(entry: Entry) -> dict[str, Any]:
    letter = entry.letter
    return {
        **shown.dead_letter(entry.job),
        "title": entry.title,
        "metadata": dict(entry.metadata),
        "trace": entry.trace,
        "note": letter.note if letter else None,
        "added_by": letter.created_by if letter else None,
        "dead_since": letter.created_at if letter else None,
    }
