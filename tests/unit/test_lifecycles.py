"""Every lifecycle, every pair of states: what the table has is allowed, everything else is refused."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from coordinator.domains.fleet.states import NODE, NodeStatus
from coordinator.domains.queue.states import ATTEMPT, ENDED, JOB, AttemptState, JobState
from shared.errors import StateConflict
from shared.lifecycle import Lifecycle
from shared.policy.breaker import BREAKER, BreakerState

LIFECYCLES: list[tuple[Lifecycle[Any], type[StrEnum]]] = [
    (JOB, JobState),
    (ATTEMPT, AttemptState),
    (NODE, NodeStatus),
    (BREAKER, BreakerState),
]
PAIRS = [(life, source, target) for life, states in LIFECYCLES for source in states for target in states]


@pytest.mark.parametrize(("life", "source", "target"), PAIRS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_move_is_allowed_exactly_when_the_table_has_it(
    life: Lifecycle[Any], source: StrEnum, target: StrEnum
) -> None:
    if target in life.moves[source]:
        life.require(source, target)
    else:
        with pytest.raises(StateConflict, match=f"{source} cannot become {target}"):
            life.require(source, target)


@pytest.mark.parametrize(("life", "states"), LIFECYCLES, ids=lambda value: getattr(value, "name", ""))
def test_every_state_is_in_the_table_and_reachable(life: Lifecycle[Any], states: type[StrEnum]) -> None:
    assert set(life.moves) == set(states)
    first = next(iter(states))
    reached, frontier = {first}, [first]
    while frontier:
        for target in life.moves[frontier.pop()] - reached:
            reached.add(target)
            frontier.append(target)
    assert reached == set(states)


def test_nothing_leaves_success_or_cancellation_and_only_a_redrive_leaves_death() -> None:
    assert JOB.terminal == {JobState.succeeded, JobState.cancelled}
    assert JOB.moves[JobState.dead] == {JobState.queued}
    assert JOB.terminal | {JobState.dead} == ENDED


def test_a_job_that_is_being_stopped_never_succeeds() -> None:
    assert JobState.succeeded not in JOB.moves[JobState.cancelling]
    assert JobState.queued not in JOB.moves[JobState.cancelling]
