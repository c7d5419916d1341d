"""Tasks that name no agent get one, or learn why they wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from coordinator.domains.agents import service as agents
from coordinator.domains.agents.service import Agent
from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import service as queue
from coordinator.domains.tasks.service import orders, tasks
from coordinator.domains.tasks.service.tasks import WholeTask
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import StateConflict
from shared.policy.assignment import AgentFacts, Refusal, Round, Wanted
from shared.policy.placement import Needs

PAGES = 8
"""How many batches one call looks at: tasks that nobody can take must not hide those behind them."""


NEWS = frozenset({"unassigned", "amended", "lane", "fleet", "redriven"})
"""Reasons of nudges after which a task may find an agent that it did not find before."""
NO_NEWS = frozenset({"submitted", "assigned", "breaker"})
"""Reasons that change nothing for tasks without an agent; any other may mean that an agent has room again."""
REST = 4.0
"""How many times as long as a look that found nothing took no other one is taken: a busy queue has other work."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """How many tasks got an agent, whether more may get one at once, and whether some only wait for room."""

    count: int = 0
    may_go_on: bool = False
    waits_for_room: bool = False


class Occasions:
    """When another look at tasks without an agent is worth its cost: after news, and at every sweep."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._has_news = True
        self._may_have_room = False
        self._waits_for_room = False
        self._rests_until = 0.0

    def heard(self, reason: str) -> None:
        """Something happened, for the reason that its nudge gave. Called from other threads too."""
        if reason in NEWS:
            self._has_news = True
        elif reason not in NO_NEWS:
            self._may_have_room = True

    def swept(self) -> None:
        """Nudges may have been lost."""
        self._has_news = True

    def take(self) -> bool:
        """Whether to look now; what was heard until now is then dealt with."""
        if not self._is_wanted or self._monotonic() < self._rests_until:
            return False
        self._has_news = self._may_have_room = False
        return True

    def looked(self, found: Assigned, *, began: float) -> None:
        """What a look that began at this time brought."""
        now = self._monotonic()
        self._waits_for_room = found.waits_for_room
        self._has_news = self._has_news or found.may_go_on
        self._rests_until = now if found.count else now + REST * (now - began)

    @property
    def due_at(self) -> float:
        """When to look even if nothing else happens; never while nothing was heard."""
        return self._rests_until if self._is_wanted else float("inf")

    @property
    def _is_wanted(self) -> bool:
        return self._has_news or (self._may_have_room and self._waits_for_room)


def assign_waiting(tx: Transaction, resources: Resources, limit: int) -> Assigned:
    """Give at most `limit` waiting tasks their agents, most urgent first."""
    waiting = tasks.waiting_without_agent(tx, limit)
    if not waiting:
        return Assigned()
    desk = _Desk(tx, resources)
    count = 0
    for _ in range(PAGES):
        count += sum(desk.serve(whole) for whole in waiting)
        if count >= limit or len(waiting) < limit:
            break
        waiting = tasks.waiting_without_agent(tx, limit, after=waiting[-1])
    return Assigned(count, may_go_on=count >= limit, waits_for_room=desk.waits_for_room)


class _Desk:
    """One round of assignment on real rows."""

    def __init__(self, tx: Transaction, resources: Resources) -> None:
        self._tx = tx
        self._resources = resources
        self._agents = [agent for agent in agents.find_started(tx) if agent.runtime in agents.RUNNABLE]
        self._stats = agents.stats_of(tx, self._agents)
        self._round = Round(self._facts_for, fleet.facts(tx))
        self._kept: dict[str, Agent | None] = {}
        self.waits_for_room = False

    def serve(self, whole: WholeTask) -> bool:
        """Whether the task got an agent; if not, it says why it waits."""
        choice = self._round.choose(_wanted(whole))
        if isinstance(choice, Refusal):
            self.waits_for_room = self.waits_for_room or not choice.lasting
            if whole.job.hold_reason != choice.reason:
                queue.hold(self._tx, whole.task.id, choice.reason)
            return False
        agent = self._keep(whole.job.space, choice.id)
        return agent is not None and self._give(whole, agent)

    def _give(self, whole: WholeTask, agent: Agent) -> bool:
        try:
            tasks.assign(self._tx, self._resources, whole, agent)
        except StateConflict:
            # Cancelled, closed or given an agent by its owner since we read it: nothing is left to do.
            return False
        return True

    def _keep(self, space: str, agent_id: str) -> Agent | None:
        """The chosen agent, kept from deletion until we commit; None when it was deleted since we read it."""
        if agent_id not in self._kept:
            self._kept[agent_id] = agents.find_to_use(self._tx, space, {agent_id}).get(agent_id)
        return self._kept[agent_id]

    def _facts_for(self, wanted: Wanted) -> Sequence[AgentFacts]:
        placement = orjson.loads(wanted.placement)
        return [self._facts(agent, placement) for agent in self._agents if agent.space == wanted.space]

    def _facts(self, agent: Agent, placement: Mapping[str, Any]) -> AgentFacts:
        stats = self._stats[agent.id]
        has_computer = agent.runtime in agents.NEEDS_COMPUTER
        needs = orders.needs_of(agent, {"placement": placement})
        return AgentFacts(
            id=agent.id,
            name=agent.name,
            tools=agent.tools,
            needs=Needs.from_json(needs, takes_slot=has_computer),
            live=stats.active + stats.waiting,
            limit=agent.max_concurrent_tasks,
            needs_script=has_computer,
        )


def _wanted(whole: WholeTask) -> Wanted:
    placement = whole.task.requested.get("placement") or {}
    return Wanted(
        space=whole.job.space,
        tools=frozenset(whole.task.required_tools),
        has_script=bool(whole.task.instructions.strip()),
        placement=orjson.dumps(placement, option=orjson.OPT_SORT_KEYS).decode(),
    )
