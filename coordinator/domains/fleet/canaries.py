"""Canaries: small messages that show whether a node really reads its queue. A process that lives may yet be deaf.

The leader sends one to each node every so often and counts it as missed; a heartbeat that tells of one more than the
one before takes the count back to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from coordinator.domains.fleet import store
from coordinator.domains.fleet.store import Node
from coordinator.store.database import Transaction
from shared.contracts.node import Heartbeat
from shared.queue.names import node_queue
from shared.queue.tickets import ping_message, publish

DEAF_AFTER = 3
"""So many canaries that were not heard make a node deaf."""
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a heartbeat shows of a node's hearing."""

    is_deaf: bool = False
    needs_restart: bool = False
    """Its consumer has had time to hear, and did not."""
    columns: Mapping[str, Any] = field(default_factory=dict)


def judge(node: Node, told: Heartbeat, *, restarted: bool, canary_seconds: float) -> Hearing:
    """Whether this node hears, by what its row and its heartbeat say; `restarted` when another daemon speaks now."""
    queue: Any = told.vitals.get("queue")
    queue = queue if isinstance(queue, dict) else {}
    pings = queue.get("pings")
    if not isinstance(pings, int) or not 0 <= pings <= _MOST:
        return Hearing()
    if restarted or pings != node.canaries_heard:
        return Hearing(columns={"canaries_heard": pings, "canaries_missed": 0})
    if node.canaries_missed < DEAF_AFTER:
        return Hearing()
    listening = queue.get("listening_seconds")
    has_had_time = isinstance(listening, int | float) and listening > canary_seconds
    return Hearing(is_deaf=True, needs_restart=has_had_time)


def listeners(tx: Transaction) -> dict[str, int]:
    """The nodes that should hear: id → canaries that they have not answered."""
    return {node.id: node.canaries_missed for node in store.listening(tx)}


def send(client: redis.Redis, missed: Mapping[str, int]) -> list[str]:
    """A canary for each of these nodes; answers to whom one was sent. Raises what redis raises.

    In the queue of a deaf node one is enough: what lies there will be heard when it hears again.
    """
    full = _with_messages(client, [node_id for node_id, count in missed.items() if count >= DEAF_AFTER])
    sent = [node_id for node_id in missed if node_id not in full]
    publish(client, {node_id: [ping_message(node_id)] for node_id in sent})
    return sent


def note_sent(tx: Transaction, node_ids: Collection[str]) -> None:
    """Each of them has one more to answer."""
    if node_ids:
        store.miss_canary(tx, node_ids)


def _with_messages(client: redis.Redis, node_ids: Sequence[str]) -> frozenset[str]:
    if not node_ids:
        return frozenset()
    with client.pipeline(transaction=False) as pipe:
        for node_id in node_ids:
            pipe.llen(node_queue(node_id))
        return frozenset(node_id for node_id, count in zip(node_ids, pipe.execute(), strict=True) if count)
