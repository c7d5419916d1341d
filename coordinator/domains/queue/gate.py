"""What breakers let through in one round of placement: nothing while open, one job at a time while half open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.domains.queue import breaker_store, breakers
from coordinator.store.database import Transaction
from shared.clock import rfc3339
from shared.policy import breaker as policy
from shared.policy import charging
from shared.policy.breaker import Breaker, BreakerState
from shared.policy.placement import Needs, NodeFacts, candidates

HELD = "breaker_open"


class Gate:
    """The breakers that are not closed, and which of them somebody is trying out."""

    def __init__(self, not_closed: Mapping[str, Breaker] | None = None, probed: Iterable[str] = ()) -> None:
        self._breakers = dict(not_closed or {})
        self._probed = set(probed)
        self._reserved: dict[str, str] = {}

    def admits(self, names: Iterable[str]) -> bool:
        """Whether a job that depends on all of these may go now."""
        return all(self._is_free(name) for name in names)

    def held(self, names: Iterable[str]) -> str | None:
        """Why jobs that depend on these wait, in words; None when no breaker is in their way.

        Told while it is half open too: the one job that tries it does not wait, the others do.
        """
        if not self._breakers:
            return None
        first = min((name for name in names if name in self._breakers), default=None)
        return None if first is None else words(self._breakers[first])

    def open_nodes(self, nodes: Sequence[NodeFacts]) -> Sequence[NodeFacts]:
        """The nodes without those that a breaker keeps out."""
        if not self._breakers:
            return nodes
        return [node for node in nodes if self._is_free(charging.node(node.id))]

    def held_nodes(self, needs: Needs, nodes: Sequence[NodeFacts]) -> str | None:
        """Why no node is left, when it is that breakers hold every node that would do; else None."""
        fitting = sorted(candidates(needs, nodes), key=lambda node: node.id) if self._breakers else ()
        held = [node for node in fitting if charging.node(node.id) in self._breakers]
        if not held or len(held) < len(fitting):
            return None
        return words(self._breakers[charging.node(held[0].id)], called=held[0].name)

    def most(self, names: Iterable[str], usual: int) -> int:
        """How many jobs that depend on these can go in this round, of `usual` without breakers."""
        return min(usual, 1) if any(name in self._breakers for name in names) else usual

    def take(self, names: Iterable[str], node_id: str, attempt_id: str) -> bool:
        """A job goes to a node: where a breaker is half open, it is the probe. Whether the node takes no more now."""
        here = charging.node(node_id)
        for name in (*names, here):
            if name in self._breakers:
                self._probed.add(name)
                self._reserved[name] = attempt_id
        return here in self._breakers

    def reserve(self, tx: Transaction) -> None:
        """Write down whose attempts the probes are. Their places are taken for as long as those attempts live."""
        if self._reserved:
            chosen = self._reserved.items()
            breaker_store.save(tx, [self._breakers[name].with_(probe_attempt_id=who) for name, who in chosen])

    def _is_free(self, name: str) -> bool:
        found = self._breakers.get(name)
        return found is None or (found.state is BreakerState.half_open and name not in self._probed)


ALL_CLOSED = Gate()
"""The gate of a healthy fleet."""


def gate(tx: Transaction) -> Gate:
    """The gate as it stands: what has been open for long enough is half open from now on. Locks what is not closed."""
    found = breaker_store.lock_not_closed(tx)
    for name, before in list(found.items()):
        after = policy.half_open(before, tx.now)
        if after is not None:
            found[name] = after
            breaker_store.save(tx, [after])
            breakers.record(tx, before, after)
    # Asked after the lock and not along with it: whoever held the lock before may have reserved a place just now.
    live = breaker_store.live(tx, {each.probe_attempt_id for each in found.values() if each.probe_attempt_id})
    return Gate(found, {name for name, each in found.items() if each.probe_attempt_id in live})


def depends_on(needs: Mapping[str, Any], agent_name: str | None) -> tuple[str, ...]:
    """The names of the breakers that jobs of a demand depend on, wherever they run."""
    own = (charging.agent(agent_name),) if agent_name else ()
    return (*needs.get("breakers", ()), *own)


def words(breaker: Breaker, *, called: str | None = None) -> str:
    """Why a breaker keeps work waiting, since when and until when."""
    name = breaker.name if called is None else f"{breaker.name} ({called})"
    since = f" since {rfc3339(breaker.opened_at)}" if breaker.opened_at else ""
    if breaker.state is BreakerState.half_open:
        return f"{HELD}: {name} was open{since}; one job at a time tries whether it works again"
    if breaker.forced or breaker.probe_from is None:
        return f"{HELD}: {name} is open{since} until an admin resets it: {breaker.cause}"
    return f"{HELD}: {name} is open{since} until {rfc3339(breaker.probe_from)}: {breaker.cause}"
