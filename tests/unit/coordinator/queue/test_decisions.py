"""What becomes of a job that fails, is lost, is put away or goes round again: decided without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.config import Settings
from coordinator.domains.queue import decisions
from coordinator.domains.queue.decisions import Accepted, Circumstances, Granted, Refused, Told
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.moves import Move, letter
from coordinator.domains.queue.rows import Attempt, Job
from coordinator.domains.queue.states import ENDED, JOB, AttemptState, JobState
from shared.contracts.node import Outcome
from shared.errors import StateConflict
from shared.ids import new_id
from shared.policy.retry import Loss

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIMITS = Limits.of(Settings())
ADMIN = new_id()


def job(**facts: Any) -> Job:
    usual: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__) | {
        "id": "job",
        "space": "default",
        "kind": "task",
        "priority": 1,
        "is_exclusive": False,
        "state": JobState.running,
        "retry": {},
        "generation": 1,
        "attempts_made": 1,
        "current_attempt_id": "attempt",
        "fail_count": 0,
        "infra_count": 0,
        "created_at": NOW,
        "version": 1,
    }
    return Job(**usual | facts)


def attempt(**facts: Any) -> Attempt:
    usual: dict[str, Any] = dict.fromkeys(Attempt.__dataclass_fields__) | {
        "id": "attempt",
        "job_id": "job",
        "number": 1,
        "generation": 1,
        "node_id": "node",
        "node_name": "rack-1",
        "takes_slot": True,
        "state": AttemptState.running,
        "token_hash": "hash",
        "dispatched_at": NOW,
        "publish_count": 1,
    }
    return Attempt(**usual | facts)


def told(outcome: Outcome, reason: str | None = None, **error: Any) -> Told:
    body = {"code": "X", "message": "it broke", "retryable": True} | error
    return Told(outcome, "hash", None, reason, body, None, None, "digest")


def reported(what: Told, of: Job | None = None, *, losses: tuple[Loss, ...] = ()) -> Move:
    given = Circumstances(NOW, LIMITS, 0.5, losses)
    verdict = decisions.report(attempt(), of or job(), what, node_id="node", given=given)
    assert isinstance(verdict, Accepted)
    assert verdict.move is not None
    return verdict.move


def given_up(of: Job, *, losses: tuple[Loss, ...] = ()) -> Job:
    given = Circumstances(NOW, LIMITS, 0.5, losses)
    return decisions.lost_lease(attempt(), of, given, reason_code="lease_expired", message="silent").after


ELSEWHERE = (Loss("a", "rack-2", NOW), Loss("a", "rack-2", NOW))


class TestLosses:
    def test_poison_is_told_from_bad_luck_whoever_tells_of_the_loss(self) -> None:
        lost_twice = job(infra_count=2)
        for after in (
            given_up(lost_twice, losses=ELSEWHERE),
            reported(told(Outcome.lost, "computer_lost"), lost_twice, losses=ELSEWHERE).after,
        ):
            assert (after.state, after.reason_code) == (JobState.dead, "poison_suspected")
            assert after.error is not None
            assert after.error["nodes"] == ["rack-1", "rack-2"]
            assert after.error["retryable"] is False
        assert given_up(lost_twice).state is JobState.queued

    @pytest.mark.parametrize("outcome", [Outcome.failed, Outcome.lost])
    def test_a_node_without_memory_is_not_the_jobs_fault(self, outcome: Outcome) -> None:
        after = reported(told(outcome, "node_out_of_memory")).after
        assert (after.state, after.fail_count, after.infra_count) == (JobState.queued, 0, 1)

    def test_the_jobs_own_memory_limit_is(self) -> None:
        after = reported(told(Outcome.failed, "out_of_memory")).after
        assert (after.fail_count, after.infra_count) == (1, 0)

    def test_what_is_handed_back_counts_against_nothing(self) -> None:
        after = reported(told(Outcome.returned)).after
        assert (after.state, after.fail_count, after.infra_count) == (JobState.queued, 0, 0)


class TestExclusive:
    def test_a_lost_lease_leaves_the_old_computer_to_be_waited_for(self) -> None:
        after = given_up(job(is_exclusive=True))
        assert (after.state, after.waits_for_attempt_id) == (JobState.queued, "attempt")
        assert after.hold_reason == "exclusive: waits until node rack-1 confirms that the old computer is gone"

    def test_the_nodes_own_word_does_not(self) -> None:
        after = reported(told(Outcome.lost, "computer_lost"), job(is_exclusive=True)).after
        assert (after.waits_for_attempt_id, after.hold_reason) == (None, None)

    def test_death_does_not_end_the_waiting_but_being_seen_gone_does(self) -> None:
        dead = given_up(job(is_exclusive=True, infra_count=2), losses=ELSEWHERE)
        assert (dead.state, dead.waits_for_attempt_id) == (JobState.dead, "attempt")
        again = decisions.redrive(dead, by="me", not_before=None).after
        assert (again.waits_for_attempt_id, again.hold_reason) == ("attempt", dead.hold_reason)
        free = decisions.confirm_gone(again, by="node rack-1").after
        assert (free.state, free.waits_for_attempt_id, free.hold_reason) == (JobState.queued, None, None)

    def test_one_that_is_stopped_to_die_unseen_waits_too_should_it_go_round_again(self) -> None:
        stopping = job(is_exclusive=True, state=JobState.cancelling, reason_code="deadline_exceeded")
        assert given_up(stopping).waits_for_attempt_id == "attempt"

    def test_giving_up_the_wish_gives_up_the_waiting(self) -> None:
        waiting = given_up(job(is_exclusive=True))
        kept = decisions.exclusivity(waiting, {"is_exclusive": True})
        assert kept == {"is_exclusive": True}
        assert decisions.exclusivity(waiting, {})["waits_for_attempt_id"] is None
        assert decisions.exclusivity(waiting, None) == {}


class TestDeadlines:
    CLAIM = decisions.Claimant("node", "epoch", "hash")

    def claimed(self, of: Job) -> Granted | Refused:
        sent = attempt(state=AttemptState.dispatched, token_hash=None)
        return decisions.claim(sent, of, self.CLAIM, now=NOW, lease_seconds=30)

    def test_the_last_moment_is_too_late_to_begin(self) -> None:
        sent = job(state=JobState.dispatched)
        assert self.claimed(sent.with_(deadline_at=NOW)) == Refused("deadline_exceeded")
        assert isinstance(self.claimed(sent.with_(deadline_at=NOW + timedelta(seconds=1))), Granted)

    @pytest.mark.parametrize("retryable", [True, False])
    def test_what_its_node_ended_at_the_deadline_is_dead(self, retryable: bool) -> None:
        late = told(Outcome.failed, "deadline_exceeded", retryable=retryable)
        after = reported(late, job(deadline_at=NOW)).after
        assert (after.state, after.reason_code) == (JobState.dead, "deadline_exceeded")


class TestBurying:
    def bury(self, of: Job, held: Attempt | None = None) -> Move | None:
        return decisions.bury(of, held, reason="wrong input", by=ADMIN, now=NOW)

    @pytest.mark.parametrize("state", list(JobState))
    def test_every_state_has_an_answer_that_the_lifecycle_allows(self, state: JobState) -> None:
        held = attempt() if state is JobState.running else None
        if state in ENDED or state is JobState.cancelling:
            with pytest.raises(StateConflict):
                self.bury(job(state=state))
            return
        move = self.bury(job(state=state), held)
        assert move is not None
        assert JOB.allows(state, move.after.state)

    def test_what_runs_is_dead_only_once_its_computer_is_gone(self) -> None:
        move = self.bury(job(), attempt())
        assert move is not None
        assert move.after.state is JobState.cancelling
        ended = reported(told(Outcome.succeeded), move.after).after
        assert (ended.state, ended.reason_code) == (JobState.dead, "dead_lettered_by_hand")
        assert letter(ended, NOW)["created_by"] == ADMIN

    def test_asked_again_it_goes_on_as_it_is(self) -> None:
        assert self.bury(job(state=JobState.cancelling, reason_code="dead_lettered_by_hand")) is None

    @pytest.mark.parametrize("by", ["somebody", 7, None, ["x"], "x" * 500])
    def test_an_error_from_a_node_cannot_pass_for_an_admins_doing(self, by: Any) -> None:
        assert letter(job(error={"message": "m", "by": by}), NOW)["created_by"] is None


class TestRedrive:
    def test_nothing_of_the_old_generation_is_charged_to_the_new_one(self) -> None:
        dead = job(
            state=JobState.dead,
            fail_count=4,
            infra_count=5,
            error={"message": "m"},
            reason_code="timeout",
            started_at=NOW,
            finished_at=NOW,
            cancel_requested_at=NOW,
        )
        after = decisions.redrive(dead, by="me", not_before=NOW).after
        assert (after.state, after.generation, after.attempts_made) == (JobState.queued, 2, 1)
        assert (after.fail_count, after.infra_count, after.not_before) == (0, 0, NOW)
        cleared = (after.error, after.reason_code, after.started_at, after.finished_at, after.cancel_requested_at)
        assert cleared == (None, None, None, None, None)
        assert after.current_attempt_id is None

    @pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.dead])
    def test_only_the_dead_go_round_again(self, state: JobState) -> None:
        with pytest.raises(StateConflict):
            decisions.redrive(job(state=state), by="me", not_before=None)
