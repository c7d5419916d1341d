"""What people ask for: work, its end, and changes to the fleet."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from coordinator.domains.queue.service import NewJob
from tests.faults.model.office import Order

AGENTS: Mapping[str, int | None] = {"agent-a": None, "agent-b": 2, "agent-c": None}
"""agent → how much of its work may run at a time"""
_KNOWN = frozenset(field.name for field in fields(NewJob))


def order(number: int, dice: random.Random, now: datetime) -> Order:
    """A request for one to three jobs."""
    key = f"order-{number}"
    return Order(key, tuple(_job(key, dice, now) for _ in range(dice.choices((1, 2, 3), (6, 3, 1))[0])))


def _job(key: str, dice: random.Random, now: datetime) -> dict[str, Any]:
    agent = dice.choice(sorted(AGENTS))
    is_exclusive = dice.random() < 0.15
    needs, deadline = _wishes(dice, now)
    told = {
        "order": key,
        "seconds": dice.choice((0.5, 2.0, 6.0)),
        "ends": {"succeeded": 7, "failed": 2, "broke": 1},
        "is_retryable": dice.random() < 0.9,
    }
    job = {
        "space": "default",
        "kind": "task",
        "agent_id": agent,
        "priority": dice.randrange(4),
        "spec": {"kind": "task", "agent": agent, "runtime": "command", "input": told, "is_exclusive": is_exclusive},
        "retry": {"max_attempts": dice.choice((1, 3, 4))},
        "needs": needs,
        "takes_slot": dice.random() < 0.7,
        "deadline_at": deadline,
        "created_by": None,
        "is_exclusive": is_exclusive,
    }
    return {name: value for name, value in job.items() if name in _KNOWN}


def _wishes(dice: random.Random, now: datetime) -> tuple[dict[str, Any], datetime | None]:
    """What kind of node it needs, and until when. What no node can do ends by its deadline alone."""
    draw = dice.random()
    if draw < 0.06:
        return {"labels": {"place": "nowhere"}}, now + timedelta(seconds=dice.uniform(0.5, 5))
    deadline = now + timedelta(seconds=dice.uniform(0.2, 12)) if dice.random() < 0.15 else None
    return ({"labels": {"place": "here"}} if draw < 0.3 else {}), deadline
