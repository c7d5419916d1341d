"""Pauses as the fleet sees them: of one node, of a group, of all nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.domains.fleet import service, store
from coordinator.domains.fleet.states import NodeStatus
from coordinator.domains.fleet.store import Node
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import Author, Pause, Scope
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import NotFound

EVERY = ""
"""The subject of a pause of the whole fleet."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What views of nodes tell beside the nodes' own rows."""

    slots_used: Mapping[str, int]
    pauses: Sequence[Pause]

    def pauses_of(self, node: Node) -> list[Pause]:
        return queue.pauses_of(node.id, node.group_name, self.pauses)


def standing(tx: Transaction) -> Standing:
    """Taken slots by node, from the attempts' rows, and the pauses there are."""
    load, pauses = queue.load_and_pauses(tx)
    return Standing({node_id: count for (node_id, takes_slot), count in load.items() if takes_slot}, pauses)


def pause_node(tx: Transaction, resources: Resources, node_id: str, *, by: Author, reason: str | None) -> Node:
    """Let a node finish what it has and start nothing new. It stays online and goes on beating."""
    node = _present(tx, node_id)
    pause(tx, resources, Scope.node, node_id, by=by, reason=reason)
    return node


def resume_node(tx: Transaction, resources: Resources, node_id: str, *, lifts_pause: bool) -> Node:
    """Let a node take work again, drained or paused; a node that speaks for itself ends its own draining alone."""
    node = _present(tx, node_id)
    was_paused = lifts_pause and resume(tx, resources, Scope.node, node_id)
    if was_paused and not node.is_approved:
        return node
    return service.drain(tx, resources, node_id, is_draining=False)


def pause(
    tx: Transaction, resources: Resources, scope: Scope, subject: str, *, by: Author, reason: str | None
) -> Pause:
    """Hold back what is named, and tell others; paused already, it stays so."""
    made = queue.pause(tx, resources, scope, subject, by=by, reason=reason)
    if made.paused_at == tx.now:
        _tell(tx, "worker.paused", scope, subject, {"reason": reason, "by": by.name})
    return made


def resume(tx: Transaction, resources: Resources, scope: Scope, subject: str) -> bool:
    """Let what is named take work again, and tell others; False when it was not paused."""
    is_new = queue.resume(tx, resources, scope, subject)
    if is_new:
        _tell(tx, "worker.resumed", scope, subject, {})
    return is_new


def concerned(tx: Transaction, scope: Scope, subject: str) -> int:
    """How many nodes a pause of this concerns."""
    every = store.present(tx)
    return sum(scope is Scope.fleet or subject in (node.id, node.group_name) for node in every)


def _present(tx: Transaction, node_id: str) -> Node:
    node = service.get(tx, node_id)
    if node.status == NodeStatus.removed:
        raise NotFound(f"there is no worker {node_id}")
    return node


def _tell(tx: Transaction, event: str, scope: Scope, subject: str, data: Mapping[str, Any]) -> None:
    told = {"scope": str(scope), "subject": subject or None, **data}
    queue.emit(tx, event, space="default", subject_id=subject if scope is Scope.node else None, data=told)
