"""Which agent takes a task that names none, and what is said when none can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.assignment import AgentFacts, Fit, Refusal, Round, Wanted, fitting, node_load, score
from shared.policy.placement import Needs, NodeFacts

NODE = NodeFacts(
    id="n1",
    name="one",
    status="online",
    is_approved=True,
    group=None,
    labels={},
    driver="docker",
    isolation="container",
    slots=4,
    free_slots=4,
    light_slots=8,
    free_light=8,
    cpu_percent=0.0,
    memory_percent=0.0,
)
ANYTHING = Wanted("default")


def agent(name: str = "a", **facts: Any) -> AgentFacts:
    defaults: dict[str, Any] = {"id": name, "name": name, "tools": frozenset(), "needs": Needs()}
    return AgentFacts(**(defaults | facts))


def chosen(agents: Sequence[AgentFacts], nodes: Sequence[NodeFacts] = (NODE,), wanted: Wanted = ANYTHING) -> str:
    choice = Round(lambda _: agents, nodes).choose(wanted)
    return choice.reason if isinstance(choice, Refusal) else choice.id


class TestWhoFits:
    def test_nobody_is_there(self) -> None:
        assert chosen([]) == "no_agent: there is no active agent that can run tasks"

    def test_all_required_tools_must_be_there(self) -> None:
        wanted = Wanted("default", tools=frozenset({"mail", "browser"}))
        half, whole = (
            agent("half", tools=frozenset({"mail"})),
            agent("whole", tools=frozenset({"mail", "browser", "x"})),
        )
        assert chosen([half, whole], wanted=wanted) == "whole"
        assert chosen([half], wanted=wanted) == "no_agent: no active agent has the tools: browser, mail"

    def test_without_a_script_only_those_take_it_that_need_none(self) -> None:
        wanted = Wanted("default", has_script=False)
        assert chosen([agent("shell"), agent("echo", needs_script=False)], wanted=wanted) == "echo"
        assert chosen([agent("shell")], wanted=wanted).startswith("no_agent: the task has no instructions")

    def test_some_node_must_be_able_to_run_it(self) -> None:
        needy = agent("needy", needs=Needs(labels={"gpu": None}))
        assert chosen([needy, agent("modest")]) == "modest"
        assert chosen([needy]) == "no_agent: no approved node with label gpu"
        assert chosen([agent()], [replace(NODE, status="offline")]).startswith("no_agent: every node that fits is away")

    def test_a_full_agent_is_left_out(self) -> None:
        full, free = agent("full", live=2, limit=2), agent("free", live=50)
        assert chosen([full, free]) == "free"
        assert chosen([full]) == "agents_busy: every agent that fits is at its limit (full)"

    def test_many_full_agents_are_not_all_named(self) -> None:
        agents = [agent(f"a{number}", live=1, limit=1) for number in range(5)]
        assert chosen(agents) == "agents_busy: every agent that fits is at its limit (a0, a1, a2 and 2 more)"

    def test_only_a_full_house_passes_by_itself(self) -> None:
        assert isinstance(lasting := fitting(ANYTHING, [], [NODE]), Refusal)
        busy = Round(lambda _: [agent(live=1, limit=1)], [NODE]).choose(ANYTHING)
        assert isinstance(busy, Refusal)
        assert (lasting.lasting, busy.lasting) == (True, False)


class TestWhoIsBest:
    def test_capacity_weighs_half_cpu_three_and_memory_two_tenths(self) -> None:
        node = replace(NODE, cpu_percent=50.0, memory_percent=25.0)
        assert node_load(node) == pytest.approx(0.3 * 0.5 + 0.2 * 0.25)
        assert score(Fit(agent(limit=4), 4, node_load(node)), 2) == pytest.approx(0.5 * 0.5 + 0.2)

    def test_a_node_that_told_nothing_is_half_loaded(self) -> None:
        assert node_load(replace(NODE, cpu_percent=None, memory_percent=None)) == pytest.approx(0.25)

    def test_the_less_loaded_agent_takes_it(self) -> None:
        assert chosen([agent("a", live=3, limit=4), agent("b", live=1, limit=4)]) == "b"

    def test_an_agent_without_limit_is_measured_against_its_nodes(self) -> None:
        # 2 of 4 slots are as much as 3 of 6 would be, and more than 1 of 4.
        assert chosen([agent("endless", live=2), agent("limited", live=1, limit=4)]) == "limited"
        assert chosen([agent("endless", live=2), agent("limited", live=3, limit=4)]) == "endless"

    def test_the_load_of_its_best_node_counts(self) -> None:
        hot = replace(NODE, id="hot", group="hot", cpu_percent=90.0)
        agents = [agent("a", needs=Needs(group="hot")), agent("b")]
        assert chosen(agents, [hot, NODE]) == "b"
        assert chosen([agent("free")], [hot, NODE]) == "free"

    def test_among_equals_the_oldest_takes_it(self) -> None:
        assert chosen([agent("b"), agent("a")]) == "a"


class TestRound:
    def test_each_choice_counts_for_the_next(self) -> None:
        one_round = Round(lambda _: [agent("a", limit=2), agent("b", limit=1)], [NODE])
        choices = [one_round.choose(ANYTHING) for _ in range(4)]
        assert [choice.id for choice in choices[:3] if isinstance(choice, AgentFacts)] == ["a", "b", "a"]
        assert isinstance(choices[3], Refusal)

    def test_what_is_asked_alike_is_looked_up_once(self) -> None:
        asked: list[Wanted] = []

        def agents_for(wanted: Wanted) -> list[AgentFacts]:
            asked.append(wanted)
            return [agent()]

        one_round = Round(agents_for, [NODE])
        other = Wanted("default", tools=frozenset({"x"}))
        for wanted in (ANYTHING, other, ANYTHING, other):
            one_round.choose(wanted)
        assert asked == [ANYTHING, other]

    @given(
        limits=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=5),
        live=st.lists(st.integers(0, 6), min_size=5, max_size=5),
        rounds=st.integers(1, 30),
    )
    def test_no_limit_is_ever_exceeded_and_nobody_waits_while_there_is_room(
        self, limits: list[int | None], live: list[int], rounds: int
    ) -> None:
        agents = [agent(f"a{i}", limit=limit, live=live[i]) for i, limit in enumerate(limits)]
        one_round = Round(lambda _: agents, [NODE])
        held = {each.id: each.live for each in agents}
        for _ in range(rounds):
            room = [each for each in agents if each.limit is None or held[each.id] < each.limit]
            choice = one_round.choose(ANYTHING)
            assert isinstance(choice, Refusal) == (not room)
            if isinstance(choice, AgentFacts):
                assert choice in room
                held[choice.id] += 1
