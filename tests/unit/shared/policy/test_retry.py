"""When failed or lost work runs again, and when it does not."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.retry import (
    NOT_THE_WORKS_DOING,
    RETRYABLE,
    Failure,
    GiveUp,
    Loss,
    PoisonRule,
    RetryPolicy,
    TryAgain,
    after_failure,
    after_loss,
    backoff,
)

ROOT = Path(__file__).parents[4]
POLICY = RetryPolicy(max_attempts=4, base_seconds=5, cap_seconds=600)
RULE = PoisonRule(losses=3, nodes=2, hours=72)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DRAWS = st.floats(0, 1, exclude_max=True)


def failure(number: int = 1, **facts: Any) -> Failure:
    usual: dict[str, Any] = {"number": number, "reason_code": "exit_nonzero", "retryable": True}
    return Failure(**usual | facts)


def loss(node: str, *, hours_ago: float = 0, reason: str = "lease_expired") -> Loss:
    return Loss(node, f"name of {node}", NOW - timedelta(hours=hours_ago), reason)


@given(tries=st.integers(1, 200), draw=DRAWS)
def test_a_pause_is_never_longer_than_the_cap_nor_than_its_step(tries: int, draw: float) -> None:
    pause = backoff(POLICY, tries, draw)
    assert 0 <= pause <= min(600, 5 * 2 ** min(tries - 1, 32))


def test_the_whole_range_is_used() -> None:
    assert backoff(POLICY, 3, 0.0) == 0
    assert backoff(POLICY, 3, 0.5) == 10


def test_it_gives_up_after_the_last_attempt_and_not_before() -> None:
    verdicts = [after_failure(POLICY, failure(n), draw=0.5) for n in range(1, 5)]
    assert [isinstance(verdict, TryAgain) for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1] == GiveUp("attempts_exhausted")


def test_an_error_that_no_retry_can_help_is_final_at_once() -> None:
    assert after_failure(POLICY, failure(retryable=False), draw=0.5) == GiveUp("not_retryable")


def test_a_service_that_says_when_to_come_back_is_believed() -> None:
    assert after_failure(POLICY, failure(retry_after_seconds=90), draw=0.0) == TryAgain(90)


def test_only_the_reasons_that_a_policy_names_are_tried_again() -> None:
    policy = POLICY.merged({"on": ["timeout"]})
    assert isinstance(after_failure(policy, failure(reason_code="timeout"), draw=0.5), TryAgain)
    assert after_failure(policy, failure(), draw=0.5) == GiveUp("not_worth_a_retry")
    assert after_failure(policy, failure(reason_code=None), draw=0.5) == GiveUp("not_worth_a_retry")


def test_naming_a_reason_does_not_bring_back_what_is_final() -> None:
    policy = POLICY.merged({"on": ["exit_nonzero"]})
    assert after_failure(policy, failure(retryable=False), draw=0.5) == GiveUp("not_retryable")


def test_the_first_loss_runs_again_at_once() -> None:
    assert after_loss(POLICY, losses=1, max_losses=6, draw=0.9) == TryAgain(0)


def test_losses_end_too() -> None:
    assert after_loss(POLICY, losses=6, max_losses=6, draw=0.9) == GiveUp("infrastructure_exhausted")


def test_a_partial_policy_changes_only_what_it_names() -> None:
    assert POLICY.merged({"base_seconds": 0.01}) == RetryPolicy(4, 0.01, 600)
    assert POLICY.merged({"max_attempts": 1, "base_seconds": 0}) == RetryPolicy(1, 0, 600)
    assert POLICY.merged({"on": ["timeout"]}).merged({"max_attempts": 2}) == RetryPolicy(2, 5, 600, ("timeout",))
    assert POLICY.merged(None) == POLICY


@given(
    policy=st.builds(
        RetryPolicy,
        st.integers(1, 100),
        st.floats(0, 100),
        st.floats(0, 100),
        st.none() | st.lists(st.sampled_from(sorted(RETRYABLE)), min_size=1, unique=True).map(tuple),
    )
)
def test_a_policy_survives_being_stored(policy: RetryPolicy) -> None:
    assert POLICY.merged(policy.to_json()) == policy


def test_every_reason_that_a_node_calls_worth_a_retry_can_be_named() -> None:
    told = {
        call.args[0].value
        for path in (ROOT / "worker").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "failed"
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and any(word.arg == "retryable" and ast.unparse(word.value) == "True" for word in call.keywords)
    }
    assert {"exit_nonzero", "timeout"} <= told
    assert told <= set(RETRYABLE)


class TestPoison:
    def test_three_losses_on_two_nodes_are_suspicious_and_name_the_nodes(self) -> None:
        assert RULE.suspects([loss("a"), loss("b"), loss("a")], now=NOW) == ("name of a", "name of b")

    def test_one_bad_node_is_not_the_works_fault(self) -> None:
        assert RULE.suspects([loss("a")] * 5, now=NOW) == ()

    def test_two_losses_are_bad_luck(self) -> None:
        assert RULE.suspects([loss("a"), loss("b")], now=NOW) == ()
        assert [RULE.may_apply(n) for n in (1, 2, 3, 4)] == [False, False, True, True]

    def test_old_losses_are_forgotten(self) -> None:
        assert RULE.suspects([loss("a", hours_ago=73), loss("b"), loss("a")], now=NOW) == ()
        assert RULE.suspects([loss("a", hours_ago=71), loss("b"), loss("a")], now=NOW)

    @pytest.mark.parametrize("reason", sorted(NOT_THE_WORKS_DOING))
    def test_losses_that_the_work_had_no_part_in_do_not_count(self, reason: str) -> None:
        assert RULE.suspects([loss("a"), loss("b"), loss("c", reason=reason)], now=NOW) == ()
