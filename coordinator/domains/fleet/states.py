"""The life of a node."""

from __future__ import annotations

from enum import StrEnum

from shared.lifecycle import Lifecycle


class NodeStatus(StrEnum):
    """Where a node stands."""

    pending = "pending"
    """Enrolled or rejected; waits for an admin. Gets nothing."""
    online = "online"
    """Approved and heard of lately; may be given work."""
    offline = "offline"
    """Approved, but silent for longer than the limit (or not heard of yet)."""
    maintenance = "maintenance"
    """Approved and draining: finishes what it has, gets nothing new."""
    error = "error"
    """Approved and heard of, but it cannot run computers or hear its queue."""
    removed = "removed"
    """Taken out by an admin. Its row stays, so that its history can be read; its credential is void."""


NODE = Lifecycle(
    "node",
    {
        NodeStatus.pending: {NodeStatus.online, NodeStatus.offline, NodeStatus.removed},
        NodeStatus.online: {
            NodeStatus.offline,
            NodeStatus.maintenance,
            NodeStatus.error,
            NodeStatus.pending,
            NodeStatus.removed,
        },
        NodeStatus.offline: {
            NodeStatus.online,
            NodeStatus.maintenance,
            NodeStatus.error,
            NodeStatus.pending,
            NodeStatus.removed,
        },
        NodeStatus.maintenance: {
            NodeStatus.online,
            NodeStatus.offline,
            NodeStatus.error,
            NodeStatus.pending,
            NodeStatus.removed,
        },
        NodeStatus.error: {
            NodeStatus.online,
            NodeStatus.offline,
            NodeStatus.maintenance,
            NodeStatus.pending,
            NodeStatus.removed,
        },
        NodeStatus.removed: set(),
    },
)
