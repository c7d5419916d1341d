"""Tickets: Celery's message format (version 2) built by hand, because one LPUSH can then carry hundreds.

A ticket holds ids and nothing else: no payload, no secret. Losing one, or sending it twice, does no harm.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis import Redis

from shared.ids import new_id
from shared.queue.names import NUDGE, PING, RUN, node_queue

TICKET_VERSION = 1
MAX_TICKET_BYTES = 1024

_MAX_AGENT_NAME = 40


@dataclass(frozen=True, slots=True)
class RunTicket:
    """Tells a node that an attempt is its own to claim. `agent` is only for people who look at Flower."""

    attempt: str
    job: str
    number: int
    node: str
    agent: str = ""
    takes_slot: bool = True
    """False for a job without a computer: its node keeps no thread waiting for it."""


def run_message(ticket: RunTicket) -> bytes:
    """The message that sends an attempt to its node. Celery's task id is the attempt's id."""
    name = ticket.agent if len(ticket.agent) <= _MAX_AGENT_NAME else f"{ticket.agent[: _MAX_AGENT_NAME - 1]}…"
    shown = f"{name or 'job'} job={ticket.job} try={ticket.number}"
    kwargs = {
        "v": TICKET_VERSION,
        "job": ticket.job,
        "attempt": ticket.attempt,
        "number": ticket.number,
        "node": ticket.node,
        **({} if ticket.takes_slot else {"light": True}),
    }
    return _message(RUN, task_id=ticket.attempt, node=ticket.node, kwargs=kwargs, shown=shown)


def nudge_message(node: str) -> bytes:
    """The message that makes a node beat its heart now."""
    return _message(NUDGE, task_id=new_id(), node=node, kwargs={}, shown="")


def ping_message(node: str) -> bytes:
    """The canary."""
    return _message(PING, task_id=new_id(), node=node, kwargs={}, shown="")


def publish(client: Redis, messages: Mapping[str, Sequence[bytes]]) -> None:
    """Push messages to the queues of their nodes (node id → messages), oldest first, in one round trip.

    Raises what redis raises. An error is ambiguous: some or all of them may have arrived.
    """
    with client.pipeline(transaction=False) as pipe:
        for node, batch in messages.items():
            if batch:
                pipe.lpush(node_queue(node), *batch)
        pipe.execute()


def _message(task: str, *, task_id: str, node: str, kwargs: dict[str, Any], shown: str) -> bytes:
    # Every header that Celery needs and none that it takes for absent anyway: a ticket stays under a kilobyte.
    return orjson.dumps(
        {
            "body": base64.b64encode(orjson.dumps([[], kwargs, None])).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": task_id,
                "root_id": task_id,
                "retries": 0,
                "argsrepr": shown,
                "origin": "coordinator",
                "ignore_result": True,
            },
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": node_queue(node)},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": new_id(),
            },
        }
    )
