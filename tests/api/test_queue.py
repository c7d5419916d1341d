"""Jobs are placed, claimed, reported, retried, lost and cancelled: each as a node and a user would see it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from coordinator.domains.queue import service as queue
from coordinator.resources import Resources
from coordinator.upkeep.deadlines import expire_overdue
from coordinator.upkeep.leases import lose_expired
from coordinator.upkeep.unclaimed import expire_unclaimed
from shared.clock import FrozenClock
from shared.errors import StateConflict
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit

FAILED: dict[str, Any] = {
    "error": {"code": "EXIT_NONZERO", "message": "exit code 3", "retryable": True},
    "exit_code": 3,
}


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=2, light_slots=4).approve()


def started(resources: Resources, node: TestNode, **facts: Any) -> tuple[str, str]:
    """A running job: (job id, attempt id)."""
    (job_id,) = submit(resources, new_job(**facts))
    (ticket,) = place_all(resources).tickets
    node.claim(ticket)
    return job_id, ticket.attempt_id


class TestPlacement:
    def test_no_more_goes_to_a_node_than_it_has_places(self, node: TestNode, resources: Resources) -> None:
        submit(resources, *(new_job(takes_slot=True) for _ in range(5)))
        assert len(place_all(resources).tickets) == 2
        assert not place_all(resources).tickets

    def test_light_work_and_computers_do_not_take_each_others_places(
        self, node: TestNode, resources: Resources
    ) -> None:
        submit(resources, *(new_job(takes_slot=True) for _ in range(3)), *(new_job() for _ in range(5)))
        assert len(place_all(resources).tickets) == 6

    def test_the_urgent_go_first_and_the_old_among_equals(self, node: TestNode, resources: Resources) -> None:
        low, high, old, new = (new_job(priority=priority) for priority in (0, 3, 1, 1))
        submit(resources, low, high, old, new)
        placed = [ticket.job_id for ticket in place_all(resources, batch=3).tickets]
        assert placed == [high.id, old.id, new.id]

    def test_work_is_shared_between_nodes(self, client: FlaskClient, node: TestNode, resources: Resources) -> None:
        other = TestNode(client, resources, slots=2).approve()
        submit(resources, *(new_job(takes_slot=True) for _ in range(4)))
        nodes = [ticket.node_id for ticket in place_all(resources).tickets]
        assert (nodes.count(node.id), nodes.count(other.id)) == (2, 2)

    def test_a_pinned_job_waits_for_its_node_and_blocks_nobody(
        self, client: FlaskClient, node: TestNode, resources: Resources
    ) -> None:
        absent = TestNode(client, resources)
        pinned, free = new_job(priority=3, needs={"worker_id": absent.id}), new_job()
        submit(resources, pinned, free)
        assert [ticket.job_id for ticket in place_all(resources).tickets] == [free.id]
        assert job_of(resources, pinned.id).hold_reason == f"no_node: node {absent.name} is not approved"

    def test_a_label_that_nobody_has_is_named(self, node: TestNode, resources: Resources) -> None:
        (job_id,) = submit(resources, new_job(needs={"labels": {"gpu": None}}))
        place_all(resources)
        assert job_of(resources, job_id).hold_reason == "no_node: no approved node with label gpu"

    def test_isolation_is_never_downgraded(self, node: TestNode, resources: Resources) -> None:
        (job_id,) = submit(resources, new_job(takes_slot=True, needs={"min_isolation": "container"}))
        assert not place_all(resources).tickets
        reason = job_of(resources, job_id).hold_reason
        assert reason == "no_node: no approved node with isolation container or stronger"

    def test_a_closed_lane_holds_work_with_its_reason_and_opens_again(
        self, node: TestNode, resources: Resources
    ) -> None:
        (job_id,) = submit(resources, new_job())
        with resources.database.write() as tx:
            queue.set_lane(tx, resources, "agent-1", hold_reason="agent_stopped: it is offline", max_active=None)
        assert not place_all(resources).tickets
        assert job_of(resources, job_id).hold_reason == "agent_stopped: it is offline"
        with resources.database.write() as tx:
            queue.set_lane(tx, resources, "agent-1", hold_reason=None, max_active=None)
        assert len(place_all(resources).tickets) == 1

    def test_a_lane_lets_no_more_through_than_its_limit(self, node: TestNode, resources: Resources) -> None:
        submit(resources, *(new_job() for _ in range(4)))
        with resources.database.write() as tx:
            queue.set_lane(tx, resources, "agent-1", hold_reason=None, max_active=2)
        assert len(place_all(resources).tickets) == 2
        assert not place_all(resources).tickets


class TestClaim:
    def test_only_the_first_claim_is_granted(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        assert node.claim(ticket, nonce="nonce-one")["token"]
        assert node.claim(ticket, nonce="nonce-two")["refused"] == "stale_attempt"

    def test_a_lost_answer_is_asked_again_with_the_same_nonce(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        first, second = node.claim(ticket), node.claim(ticket)
        assert first["token"] == second["token"]
        assert first["spec"]["runtime"] == second["spec"]["runtime"] == "echo"

    def test_the_same_attempt_twice_in_one_batch_is_granted_once(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        claims = [{"attempt_id": ticket.attempt_id, "nonce": nonce} for nonce in ("nonce-one", "nonce-two")]
        grants = node.sync(claims=claims).get_json()["grants"]
        assert [bool(grant["token"]) for grant in grants] == [True, False]

    def test_another_node_is_refused(self, client: FlaskClient, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        other = TestNode(client, resources).approve()
        assert other.claim(ticket)["refused"] == "not_yours"

    def test_a_forged_attempt_is_refused(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        grants = node.sync(claims=[{"attempt_id": "forged", "nonce": "the-nonce"}]).get_json()["grants"]
        assert grants[0]["refused"] == "unknown_attempt"
        assert ticket.attempt_id != "forged"

    def test_a_daemon_that_did_not_beat_yet_may_not_claim(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        node.epoch = "another-daemon"
        assert node.sync(claims=[{"attempt_id": ticket.attempt_id, "nonce": "the-nonce"}]).status_code == 409


class TestReport:
    def test_a_result_is_accepted_once_and_the_repeat_is_recognised(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        token = node.held[attempt_id]
        facts: dict[str, Any] = {"result": {"answer": [1, "two", None]}, "digest": "d" * 64, "usage": {"wall_ms": 5}}
        assert node.report(attempt_id, **facts) == "accepted"
        node.held[attempt_id] = token
        assert node.report(attempt_id, **facts) == "accepted"
        assert node.report(attempt_id, **(facts | {"digest": "e" * 64})) == "stale"
        view = job_of(resources, job_id)
        assert (view.state, view.result, view.usage) == ("succeeded", {"answer": [1, "two", None]}, {"wall_ms": 5})

    @pytest.mark.parametrize("result", ["text", "", 0, False, [1], {"a": "ü\n"}, "null", 1.5])
    def test_any_json_value_comes_back_as_it_was(self, node: TestNode, resources: Resources, result: Any) -> None:
        job_id, attempt_id = started(resources, node)
        node.report(attempt_id, result=result)
        assert job_of(resources, job_id).result == result

    def test_a_wrong_token_is_stale(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        node.held[attempt_id] = "forged"
        assert node.report(attempt_id) == "stale"
        assert job_of(resources, job_id).state == "running"

    def test_a_failure_is_tried_again_later(self, node: TestNode, resources: Resources, clock: FrozenClock) -> None:
        job_id, attempt_id = started(resources, node, retry={"max_attempts": 2, "base_seconds": 8, "cap_seconds": 8})
        node.report(attempt_id, "failed", reason_code="exit_nonzero", **FAILED)
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code, view.attempts[0]["exit_code"]) == ("queued", "exit_nonzero", 3)
        clock.advance(8)
        (ticket,) = place_all(resources).tickets
        assert ticket.number == 2
        node.claim(ticket)
        node.report(ticket.attempt_id, "failed", reason_code="exit_nonzero", **FAILED)
        view = job_of(resources, job_id)
        assert (view.state, view.error and view.error["code"]) == ("dead", "EXIT_NONZERO")

    def test_an_error_that_no_retry_can_help_is_final_at_once(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        node.report(attempt_id, "failed", error={"code": "ISOLATION_TOO_WEAK", "message": "no", "retryable": False})
        assert job_of(resources, job_id).state == "dead"

    def test_a_loss_is_not_charged_to_the_job(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node, retry={"max_attempts": 1})
        node.report(attempt_id, "lost", reason_code="computer_lost")
        assert job_of(resources, job_id).state == "queued"
        (ticket,) = place_all(resources).tickets
        node.claim(ticket)
        node.report(ticket.attempt_id)
        view = job_of(resources, job_id)
        assert (view.state, [item["state"] for item in view.attempts]) == ("succeeded", ["lost", "succeeded"])

    def test_what_a_draining_node_hands_back_counts_against_nothing(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node, retry={"max_attempts": 1})
        node.report(attempt_id, "returned")
        assert job_of(resources, job_id).state == "queued"
        assert len(place_all(resources).tickets) == 1

    def test_a_stop_that_nobody_asked_for_is_a_loss(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        node.report(attempt_id, "cancelled")
        view = job_of(resources, job_id)
        assert (view.state, view.attempts[0]["state"]) == ("queued", "lost")


class TestCancel:
    def cancel(self, resources: Resources, job_id: str) -> queue.JobView:
        with resources.database.write() as tx:
            return queue.cancel(tx, resources, job_id, by="alice")

    def test_waiting_work_ends_at_once(self, resources: Resources, database: Any) -> None:
        (job_id,) = submit(resources, new_job())
        assert self.cancel(resources, job_id).state == "cancelled"
        assert self.cancel(resources, job_id).state == "cancelled"

    def test_work_on_its_way_ends_at_once_and_its_claim_is_refused(self, node: TestNode, resources: Resources) -> None:
        (job_id,) = submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        assert self.cancel(resources, job_id).state == "cancelled"
        assert node.claim(ticket)["refused"] == "stale_attempt"

    def test_running_work_is_cancelled_when_its_node_says_so(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        assert self.cancel(resources, job_id).state == "cancelling"
        assert node.beat()["attempts"] == {attempt_id: "stop"}
        assert node.report(attempt_id, "cancelled") == "accepted"
        assert job_of(resources, job_id).state == "cancelled"

    def test_a_success_that_crosses_the_cancel_does_not_count(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        self.cancel(resources, job_id)
        assert node.report(attempt_id, "succeeded", result="late") == "accepted"
        view = job_of(resources, job_id)
        assert (view.state, view.result) == ("cancelled", None)

    def test_finished_work_cannot_be_cancelled(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        node.report(attempt_id)
        with pytest.raises(StateConflict):
            self.cancel(resources, job_id)


class TestRepair:
    def test_a_lease_that_runs_out_loses_the_attempt_and_a_late_result_is_stale(
        self, client: FlaskClient, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        job_id, attempt_id = started(resources, node)
        led_since = clock.now() - timedelta(hours=1)
        clock.advance(resources.settings.lease_seconds + 1)
        with resources.database.write() as tx:
            assert lose_expired(tx, resources, leading_since=led_since) == 1
        assert node.report(attempt_id, result="late") == "stale"
        assert node.beat()["attempts"] == {attempt_id: "kill"}
        assert job_of(resources, job_id).state == "queued"

    def test_a_heartbeat_keeps_the_lease(self, node: TestNode, resources: Resources, clock: FrozenClock) -> None:
        _, attempt_id = started(resources, node)
        led_since = clock.now() - timedelta(hours=1)
        for _ in range(3):
            clock.advance(resources.settings.lease_seconds * 0.7)
            assert node.beat()["attempts"] == {attempt_id: "keep"}
        with resources.database.write() as tx:
            assert lose_expired(tx, resources, leading_since=led_since) == 0

    def test_a_new_leader_waits_before_it_judges_leases(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        started(resources, node)
        clock.advance(resources.settings.lease_seconds + 1)
        with resources.database.write() as tx:
            assert lose_expired(tx, resources, leading_since=clock.now() - timedelta(seconds=1)) == 0

    def test_a_cancelled_job_of_a_silent_node_says_that_nobody_saw_it_stop(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        job_id, _ = started(resources, node)
        with resources.database.write() as tx:
            queue.cancel(tx, resources, job_id, by="alice")
        clock.advance(resources.settings.lease_seconds + 1)
        with resources.database.write() as tx:
            lose_expired(tx, resources, leading_since=clock.now() - timedelta(hours=1))
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("cancelled", "cancelled_unconfirmed")

    def test_what_was_sent_to_a_node_that_left_is_placed_anew(
        self, client: FlaskClient, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        from coordinator.domains.fleet import service as fleet

        (job_id,) = submit(resources, new_job())
        place_all(resources)
        clock.advance(resources.settings.lost_after_seconds + 1)
        with resources.database.write() as tx:
            fleet.miss(tx, resources)
            assert expire_unclaimed(tx, resources) == 1
        assert job_of(resources, job_id).attempts[0]["state"] == "expired"
        other = TestNode(client, resources).approve()
        assert [ticket.node_id for ticket in place_all(resources).tickets] == [other.id]

    def test_a_restarted_daemon_loses_what_the_old_one_ran(self, node: TestNode, resources: Resources) -> None:
        job_id, _ = started(resources, node)
        node.held.clear()
        node.epoch = "a-new-daemon"
        node.beat()
        view = job_of(resources, job_id)
        assert (view.state, view.attempts[0]["reason_code"]) == ("queued", "node_restarted")

    def test_a_deadline_ends_waiting_work_with_a_reason(self, resources: Resources, clock: FrozenClock) -> None:
        (job_id,) = submit(resources, new_job(deadline_at=clock.now() + timedelta(seconds=5)))
        clock.advance(6)
        with resources.database.write() as tx:
            assert expire_overdue(tx, resources) == 1
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "deadline_exceeded")

    def test_a_deadline_stops_running_work(self, node: TestNode, resources: Resources, clock: FrozenClock) -> None:
        job_id, attempt_id = started(resources, node, deadline_at=clock.now() + timedelta(seconds=5))
        clock.advance(6)
        with resources.database.write() as tx:
            expire_overdue(tx, resources)
        assert node.beat()["attempts"] == {attempt_id: "stop"}
        node.report(attempt_id, "cancelled")
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "deadline_exceeded")


class TestTimeline:
    def test_every_move_leaves_a_line_in_order(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)
        node.report(attempt_id)
        with resources.database.read() as tx:
            lines = queue.events_after(tx, job_id, 0, 100)
        assert [line.type for line in lines] == ["job.queued", "job.dispatched", "job.running", "job.succeeded"]
        assert [line.id for line in lines] == sorted(line.id for line in lines)

    def test_log_lines_are_stored_once_and_only_from_the_holder(self, node: TestNode, resources: Resources) -> None:
        job_id, attempt_id = started(resources, node)

        def line(offset: int, **facts: Any) -> dict[str, Any]:
            told = {"attempt_id": attempt_id, "token": node.held[attempt_id], "offset": offset}
            return told | {"stream": "stdout", "level": "info", "message": f"line {offset}"} | facts

        assert node.post("logs", {"lines": [line(0), line(1)]}).get_json() == {"stored": 2, "stale": []}
        assert node.post("logs", {"lines": [line(1), line(2)]}).get_json() == {"stored": 1, "stale": []}
        forged = node.post("logs", {"lines": [line(3, token="forged")]})
        assert forged.get_json() == {"stored": 0, "stale": [attempt_id]}
        with resources.database.read() as tx:
            logged = queue.events_after(tx, job_id, 0, 100, event_type="log")
        assert [item.message for item in logged] == ["line 0", "line 1", "line 2"]
