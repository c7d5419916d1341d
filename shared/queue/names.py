"""Names on the broker. A node reads exactly one queue: its own."""

from __future__ import annotations

RUN = "agent.run"
"""The ticket: go and claim this attempt."""
NUDGE = "node.nudge"
"""Beat your heart now: the coordinator wants something (a stop, a drain). Losing it costs one heartbeat."""
PING = "node.ping"
"""The canary that shows that the consumer really consumes."""

NUDGE_CHANNEL = "longshore:nudge"
"""Pub/sub channel that wakes the dispatcher."""

LIVE_CHANNEL = "longshore:live"
"""Pub/sub channel that tells followers of timelines and events that there is something new to read."""


def node_queue(node_id: str) -> str:
    return f"node.{node_id}"


def consumer_name(node_id: str) -> str:
    """The Celery host name of a node, as Flower shows it."""
    return f"{node_id}@agents"
