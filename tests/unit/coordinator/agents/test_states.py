"""Both vocabularies for how an agent stands mean the same agents."""

from __future__ import annotations

import pytest

from coordinator.domains.agents.states import (
    STATE_OF,
    STORED,
    AgentState,
    AgentStatus,
    hold_reason,
    shown_status,
    statuses_meant,
)


@pytest.mark.parametrize("state", list(AgentState))
def test_a_coarse_word_means_every_status_that_is_shown_with_it(state: AgentState) -> None:
    assert statuses_meant(state) == {status for status in AgentStatus if STATE_OF[status] is state}


@pytest.mark.parametrize("status", list(AgentStatus))
def test_a_fine_word_means_itself(status: AgentStatus) -> None:
    assert statuses_meant(status) == {status}


def test_a_word_of_neither_means_nothing() -> None:
    assert statuses_meant("sleeping") == frozenset()


@pytest.mark.parametrize("status", sorted(STORED))
def test_work_is_held_exactly_while_the_agent_is_not_active(status: AgentStatus) -> None:
    reason = hold_reason(status, "x")
    assert (reason is None) == (STATE_OF[status] is AgentState.active)
    assert reason is None or reason.startswith(f"agent_{status}: agent x ")


def test_only_an_idle_agent_is_shown_as_busy() -> None:
    assert shown_status(AgentStatus.idle, 2) is AgentStatus.busy
    assert shown_status(AgentStatus.idle, 0) is AgentStatus.idle
    assert shown_status(AgentStatus.offline, 2) is AgentStatus.offline
