"""Tasks that name no agent get one, or learn why they wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def assign_waiting(tx: Transaction, resources: Resources, limit: int) -> int:
    """Give at most `limit` waiting tasks their agents, most urgent first; answers how many got one."""
    waiting = tasks.waiting_without_agent(tx, limit)
    if not waiting:
        return 0
    desk = _Desk(tx, resources)
    count = 0
    for _ in range(PAGES):
        count += sum(desk.serve(whole) for whole in waiting)
        if count >= limit or len(waiting) < limit:
            break
        waiting = tasks.waiting_without_agent(tx, limit, after=waiting[-1])
    return count


class _Desk:
    """One round of assignment on real rows."""

    def __init__(self, tx: Transaction, resources: Resources) -> None:
        self._tx = tx
        self._resources = resources
        self._agents = [agent for agent in agents.find_started(tx) if agent.runtime in agents.RUNNABLE]
        self._stats = agents.stats_of(tx, self._agents)
        self._round = Round(self._facts_for, fleet.facts(tx))
        self._kept: dict[str, Agent | None] = {}

    def serve(self, whole: WholeTask) -> bool:
        """Whether the task got an agent; if not, it says why it waits."""
        choice = self._round.choose(_wanted(whole))
        if isinstance(choice, Refusal):
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
