"""Which agent takes a task that names none, and in words why none does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.policy.placement import PAUSED, Needs, NodeFacts, candidates, why_none

CAPACITY_WEIGHT = 0.5
CPU_WEIGHT = 0.3
MEMORY_WEIGHT = 0.2
UNKNOWN_PERCENT = 50.0
"""A node that has not told its load yet counts as half loaded: neither favoured nor avoided."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task asks of an agent. Equal values are decided once in a round."""

    space: str
    tools: frozenset[str] = frozenset()
    has_script: bool = True
    placement: str = ""
    """The task's own placement, in a form that can be compared."""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """A started agent as assignment sees it. `live` is its unfinished work, `limit` None when it has none."""

    id: str
    name: str
    tools: frozenset[str]
    needs: Needs
    live: int = 0
    limit: int | None = None
    needs_script: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """An agent that could take the work, and the load of the least loaded node that would run it."""

    agent: AgentFacts
    places: int
    node_load: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody takes it now; `reason` begins with a code. `lasting` is False when only somebody's work has to end."""

    reason: str
    lasting: bool = True


@dataclass(slots=True)
class Round:
    """One round of assignment: each choice raises the chosen agent's load for the choices after it."""

    agents_for: Callable[[Wanted], Sequence[AgentFacts]]
    nodes: Sequence[NodeFacts]
    _live: dict[str, int] = field(default_factory=dict)
    _fits: dict[Wanted, list[Fit] | Refusal] = field(default_factory=dict)

    def choose(self, wanted: Wanted) -> AgentFacts | Refusal:
        """The agent with the lowest score, or why there is none."""
        if wanted not in self._fits:
            self._fits[wanted] = fitting(wanted, self.agents_for(wanted), self.nodes)
        fits = self._fits[wanted]
        if isinstance(fits, Refusal):
            return fits
        free = [fit for fit in fits if _has_room(fit.agent, self._live_of(fit.agent))]
        if not free:
            return _all_busy(fits)
        best = min(free, key=lambda fit: (score(fit, self._live_of(fit.agent)), fit.agent.id)).agent
        self._live[best.id] = self._live_of(best) + 1
        return best

    def _live_of(self, agent: AgentFacts) -> int:
        return self._live.get(agent.id, agent.live)


def fitting(wanted: Wanted, agents: Sequence[AgentFacts], nodes: Sequence[NodeFacts]) -> list[Fit] | Refusal:
    """The agents that could ever take the work as things stand, with room or without."""
    if not agents:
        return Refusal("no_agent: there is no active agent that can run tasks")
    able = [agent for agent in agents if wanted.tools <= agent.tools]
    if not able:
        return Refusal(f"no_agent: no active agent has the tools: {', '.join(sorted(wanted.tools))}")
    able = [agent for agent in able if wanted.has_script or not agent.needs_script]
    if not able:
        return Refusal("no_agent: the task has no instructions, and every active agent needs some")
    placed = {agent.id: candidates(agent.needs, nodes) for agent in able}
    fits = [_fit(agent, placed[agent.id]) for agent in able if placed[agent.id]]
    return fits or Refusal(_no_node(why_none(able[0].needs, nodes)))


def score(fit: Fit, live: int) -> float:
    """How loaded the agent and its best node are, from 0 (idle) to 1; the lowest takes the work.

    An agent without a limit is measured against the places of the nodes that may run its work.
    """
    limit = fit.agent.limit if fit.agent.limit is not None else fit.places
    return CAPACITY_WEIGHT * min(1.0, live / max(1, limit)) + fit.node_load


def node_load(node: NodeFacts) -> float:
    """The part of the score that the node brings."""
    cpu = UNKNOWN_PERCENT if node.cpu_percent is None else node.cpu_percent
    memory = UNKNOWN_PERCENT if node.memory_percent is None else node.memory_percent
    return CPU_WEIGHT * cpu / 100 + MEMORY_WEIGHT * memory / 100


def _fit(agent: AgentFacts, nodes: Sequence[NodeFacts]) -> Fit:
    places = sum(node.slots if agent.needs.takes_slot else node.light_slots for node in nodes)
    return Fit(agent, places, min(node_load(node) for node in nodes))


def _has_room(agent: AgentFacts, live: int) -> bool:
    return agent.limit is None or live < agent.limit


def _all_busy(fits: Sequence[Fit]) -> Refusal:
    names = ", ".join(sorted(fit.agent.name for fit in fits)[:3])
    more = "" if len(fits) <= 3 else f" and {len(fits) - 3} more"
    return Refusal(f"agents_busy: every agent that fits is at its limit ({names}{more})", lasting=False)


def _no_node(reason: str) -> str:
    """Why no node would run it, as a reason that there is no agent; but what is paused is told as paused."""
    code, _, words = reason.partition(": ")
    return reason if code == PAUSED else f"no_agent: {words or reason}"
