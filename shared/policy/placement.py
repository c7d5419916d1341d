"""Which node may run a job, which of them should, and in words why none can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job asks of a node. A label with value None asks only that the label is there."""

    worker_id: str | None = None
    group: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    driver: str | None = None
    min_isolation: int = 0
    takes_slot: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, takes_slot: bool) -> Self:
        return cls(
            worker_id=data.get("worker_id"),
            group=data.get("group"),
            labels=dict(data.get("labels") or {}),
            driver=data.get("driver"),
            min_isolation=ISOLATION.index(data.get("min_isolation") or "none"),
            takes_slot=takes_slot,
        )


PAUSED = "paused"
"""The code of a reason to wait that a person gave; resuming is all that helps."""

ISOLATION = ("none", "bwrap", "container", "gvisor", "vm")
"""Kinds of isolation, weakest first."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as placement sees it. `free_slots` are for computers, `free_light` for work that needs none."""

    id: str
    name: str
    status: str
    is_approved: bool
    group: str | None
    labels: Mapping[str, str]
    driver: str | None
    isolation: str
    slots: int
    free_slots: int
    light_slots: int
    free_light: int
    cpu_percent: float | None = None
    memory_percent: float | None = None
    paused: str | None = None
    """Why it takes nothing new although it is well, in words; None when it is not paused."""

    @property
    def is_usable(self) -> bool:
        return self.is_approved and self.status == "online" and self.paused is None

    def free(self, takes_slot: bool) -> int:
        return self.free_slots if takes_slot else self.free_light


def fits(needs: Needs, node: NodeFacts) -> bool:
    """Whether the node has what the job asks for, free or not."""
    return misfit(needs, node) is None


def misfit(needs: Needs, node: NodeFacts) -> str | None:
    """The first thing that the node lacks, in words; None when it fits."""
    if needs.worker_id is not None and node.id != needs.worker_id:
        return "another node is asked for"
    if needs.group is not None and node.group != needs.group:
        return f"in group {needs.group}"
    for name, value in needs.labels.items():
        if name not in node.labels or (value is not None and node.labels[name] != value):
            return f"with label {name}" if value in (None, "true") else f"with label {name}={value}"
    if not needs.takes_slot:
        return None
    if needs.driver is not None and node.driver != needs.driver:
        return f"with the {needs.driver} driver"
    if ISOLATION.index(node.isolation) < needs.min_isolation:
        return f"with isolation {ISOLATION[needs.min_isolation]} or stronger"
    return None


def candidates(needs: Needs, nodes: Iterable[NodeFacts]) -> list[NodeFacts]:
    """The nodes that could run it once they have room."""
    return [node for node in nodes if node.is_usable and fits(needs, node)]


def why_none(needs: Needs, nodes: Sequence[NodeFacts]) -> str:
    """Why no node can run it now, in words that begin with a code; only asked when there are no candidates."""
    approved = [node for node in nodes if node.is_approved]
    if needs.worker_id is not None:
        return _why_not_that_one(needs.worker_id, needs, nodes)
    if not approved:
        return "no_node: no node is approved yet"
    fitting = [node for node in approved if fits(needs, node)]
    if paused := sorted({node.paused for node in fitting if node.paused and node.status == "online"}):
        return f"{PAUSED}: {'; '.join(paused[:3])}"
    if fitting:
        states = ", ".join(sorted({f"{node.name} is {node.status}" for node in fitting})[:3])
        return f"no_node: every node that fits is away ({states})"
    lacks = [lack for node in approved if (lack := misfit(needs, node))]
    return f"no_node: no approved node {max(set(lacks), key=lacks.count)}"


def _why_not_that_one(worker_id: str, needs: Needs, nodes: Sequence[NodeFacts]) -> str:
    node = next((node for node in nodes if node.id == worker_id), None)
    if node is None:
        return f"no_node: there is no node {worker_id}"
    if not node.is_approved:
        return f"no_node: node {node.name} is not approved"
    lack = misfit(needs, node)
    if lack is not None:
        return (
            f"no_node: node {node.name} is not {lack}"
            if lack.startswith("in ")
            else f"no_node: node {node.name} is not one {lack}"
        )
    if node.paused is not None:
        return f"{PAUSED}: {node.paused}"
    return f"no_node: node {node.name} is {node.status}"


class Room:
    """The free places of the fleet while one round of placement hands them out."""

    def __init__(self, nodes: Iterable[NodeFacts]) -> None:
        self.nodes = [node for node in nodes if node.is_usable]
        self._free = {(node.id, kind): node.free(kind) for node in self.nodes for kind in (True, False)}

    def close(self, node_id: str) -> None:
        """Nothing more goes to this node in this round."""
        self._free |= {(node_id, kind): 0 for kind in (True, False)}

    def places(self, takes_slot: bool) -> int:
        """All places of one kind, free or taken."""
        return sum(node.slots if takes_slot else node.light_slots for node in self.nodes)

    def total(self, needs: Needs) -> int:
        return sum(max(0, self._free[node.id, needs.takes_slot]) for node in candidates(needs, self.nodes))

    def take(self, needs: Needs) -> NodeFacts | None:
        """The fitting node with the most room, one place less now; None when all are full."""
        best: NodeFacts | None = None
        most = 0
        for node in candidates(needs, self.nodes):
            free = self._free[node.id, needs.takes_slot]
            if free > most:
                best, most = node, free
        if best is not None:
            self._free[best.id, needs.takes_slot] -= 1
        return best
