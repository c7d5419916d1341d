"""What the end of an attempt says of which breaker."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.node import Outcome
from shared.policy import charging
from shared.policy.charging import Ended, charges


def ended(outcome: Outcome, reason: str | None = None, **facts: Any) -> dict[str, bool]:
    """The breakers that are charged; True where it worked."""
    usual: dict[str, Any] = {"has_computer": True, "depends_on": ("image:python:3", "payments"), "agent": "reporter"}
    found = charges(Ended("attempt", "job", "n1", outcome, reason_code=reason, **(usual | facts)))
    assert len({each.name for each in found}) == len(found), "one attempt speaks once for each"
    return {each.name: each.failure is None for each in found}


def test_success_speaks_for_image_node_and_agent() -> None:
    assert ended(Outcome.succeeded) == {"node:n1": True, "image:python:3": True, "agent:reporter": True}


@pytest.mark.parametrize("reason", sorted(charging.COMMAND_RAN))
def test_a_command_that_fails_charges_its_agent_alone(reason: str) -> None:
    assert ended(Outcome.failed, reason) == {"node:n1": True, "image:python:3": True, "agent:reporter": False}


def test_a_failure_before_any_command_ran_says_nothing_of_node_and_image() -> None:
    assert ended(Outcome.failed, "limit_too_high") == {"agent:reporter": False}


@pytest.mark.parametrize("reason", sorted(charging.NODES_FAULT))
def test_trouble_with_computers_is_the_nodes(reason: str) -> None:
    assert ended(Outcome.lost, reason) == {"node:n1": False}


def test_a_missing_image_is_the_images() -> None:
    assert ended(Outcome.lost, "image_missing") == {"image:python:3": False}


def test_a_missing_image_that_the_node_chose_itself_is_the_nodes() -> None:
    assert ended(Outcome.lost, "image_missing", depends_on=()) == {"node:n1": False}


@pytest.mark.parametrize("reason", ["node_fenced", "node_restarted", "lease_expired", None])
def test_other_losses_charge_nobody(reason: str | None) -> None:
    assert ended(Outcome.lost, reason) == {}


@pytest.mark.parametrize("outcome", [Outcome.cancelled, Outcome.returned])
def test_what_was_stopped_charges_nobody(outcome: Outcome) -> None:
    assert ended(outcome, "cancelled") == {}


def test_work_without_a_computer_says_nothing_of_an_image() -> None:
    assert ended(Outcome.succeeded, has_computer=False) == {"node:n1": True, "agent:reporter": True}


def test_a_node_is_believed_what_it_says_of_models_and_of_nothing_else() -> None:
    told = {
        "llm:openai/gpt-4o": "failed",
        "llm:anthropic/claude": "ok",
        "llm:odd/word": "perhaps",
        "llm:": "failed",
        f"llm:{'x' * 300}": "failed",
        "node:another": "failed",
        "image:python:3": "failed",
        "payments": "failed",
    }
    assert ended(Outcome.returned, told=told) == {"llm:openai/gpt-4o": False, "llm:anthropic/claude": True}


def test_a_node_cannot_name_models_without_end() -> None:
    assert len(ended(Outcome.returned, told={f"llm:x/{n}": "failed" for n in range(1000)})) == charging.MOST_TOLD


def test_a_failure_says_what_happened_where() -> None:
    (found,) = charges(
        Ended("a1", "j1", "n1", Outcome.lost, has_computer=True, reason_code="computer_error", message="m" * 1000)
    )
    assert found.failure == {
        "reason_code": "computer_error",
        "message": "m" * charging.LONGEST_MESSAGE,
        "job_id": "j1",
        "attempt_id": "a1",
        "node_id": "n1",
    }


def test_names_are_never_longer_than_a_breakers_may_be() -> None:
    long = "x" * 300
    for name in (charging.llm(long, long), charging.image(long), charging.agent(long)):
        assert len(name) == charging.LONGEST_NAME
