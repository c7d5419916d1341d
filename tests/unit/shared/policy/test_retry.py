"""When a failed job runs again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.policy.retry import GiveUp, RetryPolicy, TryAgain, after_failure, after_loss, backoff

POLICY = RetryPolicy(max_attempts=4, base_seconds=5, cap_seconds=600)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(tries=st.integers(1, 200), draw=DRAWS)
def test_a_pause_is_never_longer_than_the_cap_nor_than_its_step(tries: int, draw: float) -> None:
    pause = backoff(POLICY, tries, draw)
    assert 0 <= pause <= min(600, 5 * 2 ** min(tries - 1, 32))


def test_the_whole_range_is_used() -> None:
    assert backoff(POLICY, 3, 0.0) == 0
    assert backoff(POLICY, 3, 0.5) == 10


def test_it_gives_up_after_the_last_attempt_and_not_before() -> None:
    verdicts = [after_failure(POLICY, failures=n, retryable=True, draw=0.5) for n in range(1, 5)]
    assert [isinstance(verdict, TryAgain) for verdict in verdicts] == [True, True, True, False]
    assert verdicts[-1] == GiveUp("attempts_exhausted")


def test_an_error_that_no_retry_can_help_is_final_at_once() -> None:
    assert after_failure(POLICY, failures=1, retryable=False, draw=0.5) == GiveUp("not_retryable")


def test_a_server_that_says_when_to_come_back_is_believed() -> None:
    verdict = after_failure(POLICY, failures=1, retryable=True, draw=0.0, retry_after_seconds=90)
    assert verdict == TryAgain(90)


def test_the_first_loss_runs_again_at_once() -> None:
    assert after_loss(POLICY, losses=1, max_losses=6, draw=0.9) == TryAgain(0)


def test_losses_end_too() -> None:
    assert after_loss(POLICY, losses=6, max_losses=6, draw=0.9) == GiveUp("infrastructure_exhausted")


def test_a_partial_policy_changes_only_what_it_names() -> None:
    assert POLICY.merged({"base_seconds": 0.01}) == RetryPolicy(4, 0.01, 600)
    assert POLICY.merged({"max_attempts": 1, "base_seconds": 0}) == RetryPolicy(1, 0, 600)
    assert POLICY.merged(None) == POLICY
