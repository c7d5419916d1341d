"""Waking others after a commit. Losing a signal costs an interval, never work."""

from __future__ import annotations

import redis

from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.queue import tickets


def nudge(tx: Transaction, resources: Resources, reason: str) -> None:
    """Wake the dispatcher once this transaction is durable."""
    tx.after_commit(lambda: resources.nudge(reason), once="nudge")


def call_node(tx: Transaction, resources: Resources, node_id: str) -> None:
    """Ask a node to beat its heart now, so that it learns what is wanted of it; else its next heartbeat tells."""

    def call(client: redis.Redis) -> None:
        tickets.publish(client, {node_id: [tickets.nudge_message(node_id)]})

    tx.after_commit(lambda: resources.signals.send("call", call), once=f"call {node_id}")
