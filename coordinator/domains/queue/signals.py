"""Waking others after a commit. Losing a signal costs an interval, never work."""

from __future__ import annotations

import structlog

from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.queue import tickets

log = structlog.get_logger(__name__)


def nudge(tx: Transaction, resources: Resources, reason: str) -> None:
    """Wake the dispatcher once this transaction is durable."""
    tx.after_commit(lambda: resources.nudge(reason), once="nudge")


def call_node(tx: Transaction, resources: Resources, node_id: str) -> None:
    """Ask a node to beat its heart now, so that it learns what is wanted of it; else its next heartbeat tells."""

    def send() -> None:
        try:
            tickets.publish(resources.redis, {node_id: [tickets.nudge_message(node_id)]})
        except Exception as error:  # noqa: BLE001 - an edge: whatever the broker does, the heartbeat still tells the node
            log.warning("node.not_called", node_id=node_id, error=str(error))

    tx.after_commit(send, once=f"call {node_id}")
