"""The dead letter queue as an admin meets it: what is in it, why, and what can be done about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.letters import LetterFilter, list_letters
from coordinator.domains.queue.redriving import Principal
from coordinator.domains.tasks.service import dead_letters as service
from coordinator.resources import Resources
from coordinator.store.paging import PageRequest
from coordinator.upkeep.deadlines import expire_overdue
from coordinator.upkeep.forgetting import forget
from shared.clock import FrozenClock, rfc3339
from shared.ids import new_id
from tests.factories.fleet import TestNode, job_of, new_job, place_all
from tests.factories.work import Person, refused, run_one, start_one, told

FATAL: dict[str, Any] = {
    "error": {"code": "EXIT_NONZERO", "message": "exit code 3", "retryable": False},
    "reason_code": "exit_nonzero",
    "exit_code": 3,
}
BY = Principal(new_id(), "the admin")


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources).approve()


@pytest.fixture
def admin(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources, Role.ADMIN)


@pytest.fixture
def agent(admin: Person) -> dict[str, Any]:
    return admin.agent(runtime="echo")


def dead_task(admin: Person, agent: dict[str, Any], resources: Resources, node: TestNode, **fields: Any) -> str:
    task = admin.task(agent_id=agent["id"], **fields)
    run_one(resources, node, outcome="failed", **FATAL)
    return str(task["id"])


def entries(admin: Person, query: str = "") -> list[str]:
    return [entry["id"] for entry in told(admin.get(f"/dead-letter{query}"))["dead_letters"]]


def kill(resources: Resources, count: int, **facts: Any) -> list[str]:
    """So many dead jobs without agents of their own, made as quickly as can be."""
    made = [new_job(agent_id=None, retry={"max_attempts": 1}, **facts) for _ in range(count)]
    with resources.database.write() as tx:
        queue.submit(tx, resources, made)
        for job in made:
            queue.resolve(tx, job.id, succeeded=False, by="somebody", error={"code": "X", "message": "it broke"})
    return [job.id for job in made]


class TestEntries:
    def test_what_failed_for_good_is_there_with_all_that_is_known(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        task_id = dead_task(admin, agent, resources, node, title="count", priority="high", metadata={"customer": 7})
        (entry,) = told(admin.get("/dead-letter"))["dead_letters"]
        assert entry == told(admin.get(f"/dead-letter/{task_id}"))
        assert (entry["id"], entry["kind"], entry["title"], entry["status"]) == (task_id, "task", "count", "failed")
        assert (entry["reason_code"], entry["error"]) == ("exit_nonzero", "exit code 3")
        assert (entry["retry_count"], entry["max_retries"]) == (0, 3)
        assert (entry["agent_id"], entry["priority"], entry["metadata"]) == (agent["id"], "high", {"customer": 7})
        assert (entry["dead_since"], entry["note"]) == (rfc3339(clock.now()), None)
        (attempt,) = entry["attempts"]
        assert (attempt["node_id"], attempt["exit_code"], attempt["ended_at"]) == (node.id, 3, rfc3339(clock.now()))

    def test_an_execution_is_there_by_the_name_of_its_agent(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        execution = admin.execution(agent["id"])
        run_one(resources, node, outcome="failed", **FATAL)
        (entry,) = told(admin.get("/dead-letter"))["dead_letters"]
        assert (entry["id"], entry["kind"], entry["title"]) == (execution["id"], "execution", agent["name"])

    def test_what_is_tried_again_succeeds_or_is_cancelled_is_not(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        admin.task(agent_id=agent["id"])
        run_one(resources, node)
        cancelled = admin.task(agent_id=agent["id"])
        admin.post(f"/tasks/{cancelled['id']}/cancel")
        admin.task(agent_id=agent["id"], retry={"base_seconds": 60})
        run_one(resources, node, outcome="failed", reason_code="timeout", error={"code": "T", "message": "t"})
        assert entries(admin) == []

    def test_the_trace_is_what_the_error_brought_along(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        admin.task(agent_id=agent["id"])
        error = FATAL["error"] | {"traceback": "Traceback (most recent call last): …"}
        run_one(resources, node, outcome="failed", **FATAL | {"error": error})
        assert told(admin.get("/dead-letter"))["dead_letters"][0]["trace"] == error["traceback"]

    def test_without_one_it_is_the_end_of_stderr(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        admin.task(agent_id=agent["id"])
        ticket = start_one(resources, node)
        token = node.held[ticket.attempt_id]
        said = [("stdout", "working"), ("stderr", "no such file"), ("stderr", "giving up")]
        lines = [
            {"attempt_id": ticket.attempt_id, "token": token, "offset": n, "stream": s, "level": "info", "message": m}
            for n, (s, m) in enumerate(said)
        ]
        node.post("logs", {"lines": lines})
        node.report(ticket.attempt_id, "failed", **FATAL)
        quiet = kill(resources, 1)
        traces = {entry["id"]: entry["trace"] for entry in told(admin.get("/dead-letter"))["dead_letters"]}
        assert sorted(traces.values(), key=str) == [None, "no such file\ngiving up"]
        assert traces[quiet[0]] is None

    def test_the_newest_come_first_page_by_page(self, admin: Person, resources: Resources) -> None:
        dead = kill(resources, 5)
        assert entries(admin) == dead[::-1]
        assert entries(admin, "?limit=2&page=2") == dead[::-1][2:4]
        assert told(admin.get("/dead-letter?limit=1"))["pagination"]["total"] == 5

    def test_it_is_narrowed_by_reason_agent_kind_priority_and_age(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (old,) = kill(resources, 1, priority=3, kind="execution")
        clock.advance(100)
        new = dead_task(admin, agent, resources, node)
        for query, found in {
            "reason=exit_nonzero": new,
            "reason=resolved_by_hand": old,
            f"agent_id={agent['id']}": new,
            "kind=execution": old,
            "kind=task": new,
            "priority=critical": old,
            "older_than_seconds=99": old,
            "newer_than_seconds=99": new,
        }.items():
            assert (query, entries(admin, f"?{query}")) == (query, [found])
        assert entries(admin, "?reason=exit_nonzero&kind=execution") == []

    @pytest.mark.parametrize("query", ["kind=build", "priority=urgent", "older_than_seconds=-1", "agent_id=x"])
    def test_filters_that_mean_nothing_are_refused(self, admin: Person, query: str) -> None:
        assert refused(admin.get(f"/dead-letter?{query}"), 422)["field"] == query.partition("=")[0]

    def test_only_admins_may_look(self, app: Flask, resources: Resources, node: TestNode) -> None:
        operator = Person.make(app, resources)
        (job_id,) = kill(resources, 1)
        for path in ("/dead-letter", "/dead-letter/stats", f"/dead-letter/{job_id}"):
            refused(operator.get(path), 403)
        for path in ("/dead-letter", "/dead-letter/retry-all", f"/dead-letter/{job_id}/retry"):
            refused(operator.post(path, {}), 403)
        refused(operator.delete(f"/dead-letter/{job_id}"), 403)


class TestStats:
    def test_they_count_by_priority_reason_and_agent(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        began = rfc3339(clock.now())
        kill(resources, 2, priority=3)
        clock.advance(5)
        dead_task(admin, agent, resources, node)
        admin.delete(f"/agents/{agent['id']}")
        stats = told(admin.get("/dead-letter/stats"))
        assert (stats["total"], stats["retryable"], stats["oldest_entry"]) == (3, 2, began)
        assert stats["by_priority"] == {"critical": 2, "high": 0, "medium": 1, "low": 0}
        assert stats["by_reason"] == {"resolved_by_hand": 2, "exit_nonzero": 1}
        assert stats["by_agent"] == {"unassigned": 2, agent["id"]: 1}

    def test_an_empty_queue_has_no_oldest(self, admin: Person, database: Any) -> None:
        stats = told(admin.get("/dead-letter/stats"))
        assert (stats["total"], stats["retryable"], stats["oldest_entry"]) == (0, 0, None)

    def test_the_metrics_page_tells_how_many_wait_for_a_decision(self, admin: Person, resources: Resources) -> None:
        kill(resources, 3)
        page = admin.client.get("/metrics", headers=admin.headers).get_data(as_text=True)
        assert "longshore_dead_letters 3.0" in page


class TestRetry:
    def test_it_waits_again_with_all_its_tries(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task_id = dead_task(admin, agent, resources, node)
        entry = told(admin.post(f"/dead-letter/{task_id}/retry"))
        assert (entry["status"], entry["error"], entry["retry_count"]) == ("assigned", None, 0)
        assert (entry["generation"], entry["dead_since"]) == (2, None)
        task = told(admin.get(f"/tasks/{task_id}"))
        assert (task["error"], task["started_at"], task["completed_at"], task["result"]) == (None, None, None, None)
        assert entries(admin) == []
        ticket = run_one(resources, node, result="well")
        task = told(admin.get(f"/tasks/{task_id}"))
        assert (task["status"], task["result"], ticket.number) == ("completed", "well", 2)
        assert [attempt["generation"] for attempt in task["attempts"]] == [1, 2]

    def test_its_timeline_and_its_followers_hear_of_it(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task_id = dead_task(admin, agent, resources, node)
        told(admin.post(f"/dead-letter/{task_id}/retry"))
        last = told(admin.get(f"/tasks/{task_id}/events"))["events"][-1]
        assert (last["type"], last["message"]) == ("job.queued", f"sent round again by {admin.name}")
        with resources.database.read() as tx:
            event = queue.events_beyond(tx, 0, 1000)[-1]
        assert (event.type, event.subject_id, event.data["state"]) == ("task.updated", task_id, "queued")

    def test_what_was_closed_by_hand_with_a_result_can_succeed_later(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = admin.task(agent_id=agent["id"])
        body = {"status": "failed", "error": "no", "result": {"half": True}}
        told(admin.patch(f"/tasks/{task['id']}", body))
        told(admin.post(f"/dead-letter/{task['id']}/retry"))
        run_one(resources, node, result={"whole": True})
        assert told(admin.get(f"/tasks/{task['id']}"))["result"] == {"whole": True}

    def test_a_deadline_that_passed_does_not_end_it_again(
        self, admin: Person, agent: dict[str, Any], resources: Resources, clock: FrozenClock
    ) -> None:
        task = admin.task(agent_id=agent["id"], deadline=rfc3339(clock.now() + timedelta(seconds=5)))
        clock.advance(6)
        with resources.database.write() as tx:
            expire_overdue(tx, resources)
        assert told(admin.get(f"/dead-letter/{task['id']}"))["reason_code"] == "deadline_exceeded"
        told(admin.post(f"/dead-letter/{task['id']}/retry"))
        with resources.database.write() as tx:
            assert expire_overdue(tx, resources) == 0
        assert told(admin.get(f"/tasks/{task['id']}"))["deadline"] is None

    def test_it_may_die_again_and_gets_another_letter(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task_id = dead_task(admin, agent, resources, node)
        told(admin.post(f"/dead-letter/{task_id}/retry"))
        run_one(resources, node, outcome="failed", **FATAL)
        assert entries(admin) == [task_id]
        assert told(admin.get(f"/dead-letter/{task_id}"))["generation"] == 2

    def test_what_is_not_in_the_queue_is_a_conflict(self, admin: Person, agent: dict[str, Any]) -> None:
        task = admin.task(agent_id=agent["id"])
        refused(admin.post(f"/dead-letter/{task['id']}/retry"), 409)
        refused(admin.post(f"/dead-letter/{new_id()}/retry"), 404)

    def test_twice_is_a_conflict_the_second_time(self, admin: Person, resources: Resources) -> None:
        (job_id,) = kill(resources, 1)
        told(admin.post(f"/dead-letter/{job_id}/retry"))
        refused(admin.post(f"/dead-letter/{job_id}/retry"), 409)

    def test_work_whose_agent_is_gone_stays(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task_id = dead_task(admin, agent, resources, node)
        admin.delete(f"/agents/{agent['id']}")
        assert "agent was deleted" in refused(admin.post(f"/dead-letter/{task_id}/retry"), 409)["message"]
        assert told(admin.post("/dead-letter/retry-all", {}))["retried_count"] == 0
        assert entries(admin) == [task_id]


class TestRetryAll:
    def test_all_go_round_again_at_a_limited_rate_oldest_first(
        self, admin: Person, resources: Resources, clock: FrozenClock
    ) -> None:
        dead = kill(resources, 120)
        assert told(admin.post("/dead-letter/retry-all", {})) == {
            "retried_count": 120,
            "message": "120 go round again.",
        }
        waits = [job_of(resources, job_id).not_before for job_id in dead]
        assert waits == [clock.now() + timedelta(seconds=number // 50) for number in range(120)]
        assert entries(admin) == []

    def test_a_second_call_waits_behind_what_the_first_released(
        self, admin: Person, resources: Resources, clock: FrozenClock
    ) -> None:
        kill(resources, 60)
        told(admin.post("/dead-letter/retry-all", {}))
        (late,) = kill(resources, 1)
        told(admin.post("/dead-letter/retry-all", {}))
        assert job_of(resources, late).not_before == clock.now() + timedelta(seconds=2)

    def test_only_what_the_filters_mean(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        old = kill(resources, 2)
        clock.advance(1000)
        kept = dead_task(admin, agent, resources, node)
        body = {"reason": "resolved_by_hand", "older_than_seconds": 500}
        assert told(admin.post("/dead-letter/retry-all", body))["retried_count"] == 2
        assert entries(admin) == [kept]
        assert {job_of(resources, job_id).state for job_id in old} == {queue.JobState.queued}

    def test_an_empty_queue_is_fine_and_so_is_no_body(self, admin: Person, database: Any) -> None:
        empty = {"retried_count": 0, "message": "There was nothing to retry."}
        assert told(admin.post("/dead-letter/retry-all", {})) == empty
        assert told(admin.post("/dead-letter/retry-all")) == empty

    def test_the_same_key_gets_the_same_answer(self, admin: Person, resources: Resources) -> None:
        kill(resources, 2)
        key = {"Idempotency-Key": "press-once"}
        first = told(admin.post("/dead-letter/retry-all", {}, headers=key))
        kill(resources, 1)
        assert told(admin.post("/dead-letter/retry-all", {}, headers=key)) == first
        assert len(entries(admin)) == 1

    def test_it_takes_as_many_transactions_as_it_needs(
        self, admin: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "RETRY_BATCH", 7)
        dead = kill(resources, 30)
        assert told(admin.post("/dead-letter/retry-all", {}))["retried_count"] == 30
        assert {job_of(resources, job_id).generation for job_id in dead} == {2}

    def test_when_the_time_is_up_it_says_that_there_is_more(
        self, admin: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "RETRY_BATCH", 7)
        monkeypatch.setattr(service, "RETRY_ALL_SECONDS", 0.0)
        kill(resources, 10)
        answer = told(admin.post("/dead-letter/retry-all", {}))
        assert answer == {"retried_count": 7, "message": "7 go round again. There are more: call again."}
        assert told(admin.post("/dead-letter/retry-all", {}))["retried_count"] == 3

    def test_ten_at_once_send_each_round_once(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "RETRY_BATCH", 20)
        dead = kill(resources, 200)
        together = Barrier(10)

        def press(_: int) -> int:
            together.wait(30)
            return service.retry_all(
                resources.database.write, resources, "default", LetterFilter(), by=BY, seconds=60
            ).count

        with ThreadPoolExecutor(10) as people:
            counts = list(people.map(press, range(10)))
        assert sum(counts) == 200
        views = [job_of(resources, job_id) for job_id in dead]
        assert {(view.state, view.generation) for view in views} == {(queue.JobState.queued, 2)}
        with resources.database.read() as tx:
            redriven = [line for job_id in dead for line in queue.events_after(tx, job_id, 0, 100)]
        assert sum(line.message == "sent round again by the admin" for line in redriven) == 200

    def test_cut_short_between_two_transactions_each_is_redriven_or_still_there(
        self, admin: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "RETRY_BATCH", 4)
        dead = kill(resources, 10)
        begun = 0

        def dying() -> Any:
            nonlocal begun
            begun += 1
            if begun > 3:
                raise InterruptedError("the process was killed here")
            return resources.database.write()

        with pytest.raises(InterruptedError):
            service.retry_all(dying, resources, "default", LetterFilter(), by=BY, seconds=60)
        assert entries(admin) == dead[:7:-1]
        assert told(admin.post("/dead-letter/retry-all", {}))["retried_count"] == 2
        assert {job_of(resources, job_id).generation for job_id in dead} == {2}

    def test_undone_in_the_middle_of_a_transaction_nothing_has_happened(
        self, admin: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dead = kill(resources, 3)

        def broken(*_: Any, **__: Any) -> None:
            raise InterruptedError("the process was killed here")

        monkeypatch.setattr("coordinator.domains.queue.redriving._close", broken)
        with pytest.raises(InterruptedError):
            service.retry_all(resources.database.write, resources, "default", LetterFilter(), by=BY, seconds=60)
        assert entries(admin) == dead[::-1]
        assert {job_of(resources, job_id).state for job_id in dead} == {queue.JobState.dead}


class TestByHand:
    def test_what_waits_dies_at_once_with_the_reason_given(
        self, admin: Person, agent: dict[str, Any], resources: Resources
    ) -> None:
        task = admin.task(agent_id=agent["id"])
        answer = admin.post("/dead-letter", {"task_id": task["id"], "reason": "the input is wrong"})
        entry = told(answer, 201)
        assert answer.headers["Location"] == f"/api/v1/dead-letter/{task['id']}"
        assert (entry["status"], entry["reason_code"]) == ("failed", "dead_lettered_by_hand")
        assert (entry["error"], entry["added_by"]) == ("the input is wrong", admin.id)
        assert entries(admin) == [task["id"]]

    def test_what_is_on_its_way_dies_at_once_and_is_not_begun(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = admin.task(agent_id=agent["id"])
        (ticket,) = place_all(resources).tickets
        told(admin.post("/dead-letter", {"task_id": task["id"]}), 201)
        assert node.claim(ticket)["refused"] == "stale_attempt"

    @pytest.mark.parametrize("word", ["cancelled", "succeeded"])
    def test_what_runs_is_stopped_first(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources, word: str
    ) -> None:
        execution = admin.execution(agent["id"])
        ticket = start_one(resources, node)
        body = {"execution_id": execution["id"], "error": "it burns money"}
        entry = told(admin.post("/dead-letter", body), 202)
        assert (entry["status"], entry["dead_since"]) == ("running", None)
        assert node.beat()["attempts"] == {ticket.attempt_id: "stop"}
        told(admin.post("/dead-letter", body), 202)
        assert node.report(ticket.attempt_id, word) == "accepted"
        entry = told(admin.get(f"/dead-letter/{execution['id']}"))
        assert (entry["reason_code"], entry["error"]) == ("dead_lettered_by_hand", "it burns money")

    def test_what_was_taken_out_can_be_put_back(self, admin: Person, resources: Resources, clock: FrozenClock) -> None:
        (job_id,) = kill(resources, 1)
        assert admin.delete(f"/dead-letter/{job_id}").status_code == 204
        clock.advance(60)
        entry = told(admin.post("/dead-letter", {"task_id": job_id, "reason": "try it after all"}), 201)
        assert (entry["reason_code"], entry["note"]) == ("resolved_by_hand", "try it after all")
        assert entry["dead_since"] == rfc3339(clock.now())
        told(admin.post(f"/dead-letter/{job_id}/retry"))

    def test_what_is_there_already_stays_as_it_is(self, admin: Person, resources: Resources) -> None:
        (job_id,) = kill(resources, 1)
        assert told(admin.post("/dead-letter", {"task_id": job_id, "reason": "again"}), 201)["note"] is None

    def test_what_succeeded_or_was_cancelled_is_a_conflict(
        self, admin: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        done = admin.task(agent_id=agent["id"])
        run_one(resources, node)
        cancelled = admin.task(agent_id=agent["id"])
        admin.post(f"/tasks/{cancelled['id']}/cancel")
        for task in (done, cancelled):
            assert "this is" in refused(admin.post("/dead-letter", {"task_id": task["id"]}), 409)["message"]

    @pytest.mark.parametrize("body", [{}, {"task_id": new_id(), "execution_id": new_id()}])
    def test_exactly_one_id_is_needed(self, admin: Person, database: Any, body: dict[str, Any]) -> None:
        assert refused(admin.post("/dead-letter", body), 422)["field"] == "task_id"

    def test_an_unknown_one_is_not_found(self, admin: Person, database: Any) -> None:
        refused(admin.post("/dead-letter", {"task_id": new_id()}), 404)


class TestRemove:
    def test_it_stays_failed_and_is_no_longer_offered(self, admin: Person, resources: Resources) -> None:
        (job_id,) = kill(resources, 1)
        assert admin.delete(f"/dead-letter/{job_id}").status_code == 204
        assert entries(admin) == []
        assert job_of(resources, job_id).state == "dead"
        refused(admin.get(f"/dead-letter/{job_id}"), 404)
        refused(admin.delete(f"/dead-letter/{job_id}"), 404)
        refused(admin.post(f"/dead-letter/{job_id}/retry"), 409)
        assert told(admin.post("/dead-letter/retry-all", {}))["retried_count"] == 0

    def test_its_timeline_says_who(self, admin: Person, resources: Resources) -> None:
        (job_id,) = kill(resources, 1)
        admin.delete(f"/dead-letter/{job_id}")
        with resources.database.read() as tx:
            last = queue.events_after(tx, job_id, 0, 100)[-1]
        assert (last.type, last.message) == ("letter.dismissed", f"taken out of the dead letter queue by {admin.name}")


class TestAge:
    def offered(self, resources: Resources) -> list[str]:
        with resources.database.read() as tx:
            return [one.job_id for one in list_letters(tx, "default", LetterFilter(), PageRequest()).items]

    def forget(self, resources: Resources, *, days: float) -> None:
        settings = resources.settings.model_copy(update={"dead_letter_days": days})
        with resources.database.write() as tx:
            forget(tx, replace(resources, settings=settings))

    def test_they_are_kept_for_ever_unless_a_setting_says_otherwise(
        self, resources: Resources, clock: FrozenClock
    ) -> None:
        dead = kill(resources, 1)
        clock.advance(5 * 365 * 86400)
        self.forget(resources, days=0)
        assert self.offered(resources) == dead

    def test_a_setting_lets_the_old_ones_go(self, resources: Resources, clock: FrozenClock) -> None:
        (old,) = kill(resources, 1)
        clock.advance(3 * 86400)
        (new,) = kill(resources, 1)
        self.forget(resources, days=2)
        assert self.offered(resources) == [new]
        assert job_of(resources, old).state == "dead"
        with resources.database.read() as tx:
            assert queue.events_after(tx, old, 0, 100)[-1].type == "letter.pruned"
