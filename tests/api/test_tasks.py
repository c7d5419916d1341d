"""Tasks are accepted, listed, counted, assigned, changed, closed and cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from coordinator.domains.identity.rights import Role
from coordinator.domains.tasks.service import timeline
from coordinator.resources import Resources
from coordinator.upkeep.assign_agents import assign_waiting
from shared.clock import FrozenClock, rfc3339
from shared.ids import new_id
from tests.factories.fleet import TestNode, job_of, place_all
from tests.factories.work import Person, refused, run_one, start_one, told

FAILURE: dict[str, Any] = {"error": {"code": "EXIT_NONZERO", "message": "exit 3", "retryable": True}, "exit_code": 3}


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=8).approve()


@pytest.fixture
def agent(operator: Person) -> dict[str, Any]:
    return operator.agent(name="runner")


@contextmanager
def counted(resources: Resources) -> Iterator[list[str]]:
    """The statements that the database is given meanwhile."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engine = resources.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def assign(resources: Resources, limit: int = 100) -> int:
    with resources.database.write() as tx:
        return assign_waiting(tx, resources, limit).count


def titles(body: dict[str, Any]) -> list[str]:
    return [task["title"] for task in body["tasks"]]


class TestCreateTask:
    def test_with_an_agent_it_is_assigned(self, operator: Person, agent: dict[str, Any], resources: Resources) -> None:
        answer = operator.post("/tasks", {"title": "count", "instructions": "wc -w x", "agent_id": agent["id"]})
        task = told(answer, 201)
        assert answer.headers["Location"] == f"/api/v1/tasks/{task['id']}"
        assert (task["status"], task["priority"], task["agent_id"]) == ("assigned", "medium", agent["id"])
        assert (task["result"], task["attempts"], task["output_files"], task["logs"]) == (None, [], [], [])
        assert task["assigned_by"] == operator.id
        spec = job_of(resources, task["id"]).spec
        assert (spec["runtime"], spec["script"], spec["timeout_seconds"]) == ("command", "wc -w x", 3600)
        assert told(operator.get(f"/tasks/{task['id']}")) == task

    def test_without_an_agent_it_is_pending(self, operator: Person) -> None:
        task = operator.task()
        assert (task["status"], task["agent_id"]) == ("pending", None)

    def test_everything_that_is_given_comes_back(self, operator: Person, clock: FrozenClock) -> None:
        given = {
            "title": "t",
            "description": "d",
            "instructions": "i",
            "priority": "critical",
            "deadline": rfc3339(clock.now() + timedelta(hours=1)),
            "required_tools": ["browser"],
            "metadata": {"a": [1, {"b": None}]},
        }
        task = told(operator.post("/tasks", given), 201)
        read = told(operator.get(f"/tasks/{task['id']}"))
        assert {name: read[name] for name in given} == given

    def test_its_retry_policy_lies_over_the_agents_and_the_settings(self, operator: Person) -> None:
        agent = operator.agent(retry={"max_attempts": 9, "base_seconds": 2})
        task = operator.task(agent_id=agent["id"], retry={"base_seconds": 0.25})
        assert task["retry"] == {"max_attempts": 9, "base_seconds": 0.25, "cap_seconds": 600.0, "on": None}
        assert task["max_retries"] == 8

    def test_its_placement_lies_over_the_agents(self, operator: Person, node: TestNode, resources: Resources) -> None:
        agent = operator.agent(runtime="echo", placement={"group": "blue", "labels": ["gpu"]})
        task = operator.task(agent_id=agent["id"], placement={"worker_id": node.id, "labels": {"zone": "eu"}})
        assert task["placement"] == {"worker_id": node.id, "group": None, "labels": {"zone": "eu"}}
        place_all(resources)
        reason = told(operator.get(f"/tasks/{task['id']}"))["hold_reason"]
        assert reason == f"no_node: node {node.name} is not in group blue"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"title": ""}, "title"),
            ({"title": None}, "title"),
            ({"priority": "urgent"}, "priority"),
            ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
            ({"deadline": "tomorrow"}, "deadline"),
            ({"agent_id": "a1"}, "agent_id"),
            ({"agent_id": new_id()}, "agent_id"),
            ({"input_files": [new_id()]}, "input_files[0]"),
            ({"retry": {"base_seconds": -1}}, "retry.base_seconds"),
            ({"retry": {"on": ["timeout", "bad_luck"]}}, "retry.on[1]"),
            ({"retry": {"on": []}}, "retry.on"),
            ({"placement": {"zone": "eu"}}, "placement.zone"),
            ({"status": "completed"}, "status"),
        ],
    )
    def test_a_fault_is_told_with_its_path(self, operator: Person, fields: dict[str, Any], field: str) -> None:
        error = refused(operator.post("/tasks", {"title": "x", **fields}), 422)
        assert (error["field"], error["errors"][0]["field"]) == (field, field)

    def test_a_script_agent_needs_instructions(self, operator: Person, agent: dict[str, Any]) -> None:
        body = {"title": "x", "instructions": "  ", "agent_id": agent["id"]}
        assert refused(operator.post("/tasks", body), 422)["field"] == "instructions"

    @pytest.mark.parametrize("runtime", ["llm", "flow"])
    def test_an_agent_that_cannot_run_yet_is_named(self, operator: Person, runtime: str) -> None:
        agent = operator.agent(runtime=runtime)
        error = refused(operator.post("/tasks", {"title": "x", "agent_id": agent["id"]}), 422)
        assert error["field"] == "agent_id"
        assert runtime in error["reason"]

    def test_an_echo_agent_answers_the_instructions(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(runtime="echo")
        task = told(operator.post("/tasks", {"title": "hi", "instructions": "say", "agent_id": agent["id"]}), 201)
        assert job_of(resources, task["id"]).spec["input"] == {"title": "hi", "instructions": "say"}

    def test_two_inputs_of_one_name_are_refused(self, operator: Person) -> None:
        files = [operator.file(name="a.txt")["id"], operator.file(name="a.txt")["id"]]
        error = refused(operator.post("/tasks", {"title": "x", "input_files": files}), 422)
        assert error["field"] == "input_files[1]"

    def test_a_viewer_may_look_and_not_touch(self, app: Flask, resources: Resources, operator: Person) -> None:
        viewer = Person.make(app, resources, Role.VIEWER)
        assert viewer.post("/tasks", {"title": "x"}).status_code == 403
        assert viewer.get(f"/tasks/{operator.task()['id']}").status_code == 200


class TestBulk:
    def test_valid_ones_are_accepted_and_the_others_say_why(self, operator: Person, agent: dict[str, Any]) -> None:
        bodies = [
            {"title": "one", "instructions": "true", "agent_id": agent["id"]},
            {"title": ""},
            "not an object",
            {"title": "four", "agent_id": new_id()},
            {"title": "five", "priority": "low"},
        ]
        answer = told(operator.post("/tasks/bulk", {"tasks": bodies}))
        assert (answer["created"], answer["failed"]) == (2, 3)
        assert [item["index"] for item in answer["results"]] == [0, 1, 2, 3, 4]
        assert [item["status"] for item in answer["results"]] == ["created", "error", "error", "error", "created"]
        assert answer["results"][0]["task"]["status"] == "assigned"
        assert answer["results"][1]["error"]["code"] == "VALIDATION_ERROR"
        assert answer["results"][1]["error"]["details"]["field"] == "title"
        assert answer["results"][3]["error"]["details"]["field"] == "agent_id"
        assert titles(told(operator.get("/tasks"))) == ["five", "one"]

    def test_a_thousand_are_accepted_and_no_more(self, operator: Person, agent: dict[str, Any]) -> None:
        body = {"title": "t", "instructions": "true", "agent_id": agent["id"]}
        assert told(operator.post("/tasks/bulk", {"tasks": [body] * 1000}))["created"] == 1000
        assert told(operator.get("/tasks/stats"))["total"] == 1000
        assert refused(operator.post("/tasks/bulk", {"tasks": [body] * 1001}), 422)["field"] == "tasks"
        assert refused(operator.post("/tasks/bulk", {"tasks": []}), 422)["field"] == "tasks"
        assert refused(operator.post("/tasks/bulk", {"tasks": {}}), 422)["field"] == "tasks"

    def test_five_hundred_take_as_many_statements_as_one(
        self, operator: Person, agent: dict[str, Any], resources: Resources
    ) -> None:
        body = {"title": "t", "instructions": "true", "agent_id": agent["id"], "input_files": [operator.file()["id"]]}
        counts = []
        operator.task()  # Now it is known how many jobs wait, which is counted now and then only.
        for number in (1, 500):
            with counted(resources) as statements:
                assert told(operator.post("/tasks/bulk", {"tasks": [body] * number}))["created"] == number
            counts.append(len(statements))
        assert counts[0] == counts[1]


class TestListTasks:
    def test_filters_narrow(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        operator.task(title="running", agent_id=agent["id"], priority="critical")
        start_one(resources, node)
        operator.task(title="on its way", agent_id=agent["id"])
        place_all(resources)
        operator.task(title="assigned", agent_id=agent["id"])
        operator.task(title="pending", priority="low")
        gone = operator.task(title="cancelled")
        told(operator.post(f"/tasks/{gone['id']}/cancel"))
        for word, expected in {
            "in_progress": ["running"],
            "queued": ["on its way"],
            "assigned": ["assigned"],
            "pending": ["pending"],
            "cancelled": ["cancelled"],
            "completed": [],
            "review": [],
        }.items():
            assert titles(told(operator.get(f"/tasks?status_filter={word}"))) == expected
            assert titles(told(operator.get(f"/tasks?status={word}"))) == expected
        assert titles(told(operator.get("/tasks?priority=low"))) == ["pending"]
        assert titles(told(operator.get(f"/tasks?agent_id={agent['id']}&priority=critical"))) == ["running"]
        assert refused(operator.get("/tasks?status=late"), 422)["field"] == "status"

    def test_pages_are_newest_first(self, operator: Person) -> None:
        told(operator.post("/tasks/bulk", {"tasks": [{"title": f"t{number}"} for number in range(5)]}))
        page = told(operator.get("/tasks/?limit=2&offset=2"))
        assert titles(page) == ["t2", "t1"]
        assert page["pagination"]["total"] == 5

    def test_more_rows_take_no_more_statements(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        counts = []
        for number in (1, 40):
            for _ in range(number):
                operator.task(agent_id=agent["id"])
            with counted(resources) as statements:
                told(operator.get("/tasks?limit=200"))
            counts.append(len(statements))
        assert counts[0] == counts[1]


class TestStats:
    def test_every_word_is_counted(self, operator: Person, agent: dict[str, Any]) -> None:
        operator.task(priority="high")
        operator.task(agent_id=agent["id"])
        stats = told(operator.get("/tasks/stats"))
        assert stats["total"] == 2
        assert (stats["by_status"]["pending"], stats["by_status"]["assigned"]) == (1, 1)
        assert stats["by_status"]["review"] == 0
        assert stats["by_priority"] == {"critical": 0, "high": 1, "medium": 1, "low": 0}


class TestGetTask:
    def test_a_finished_task_tells_everything(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        ticket = start_one(resources, node)
        token = node.held[ticket.attempt_id]
        line = {"attempt_id": ticket.attempt_id, "token": token, "offset": 0, "stream": "stderr", "level": "warning"}
        assert node.post("logs", {"lines": [line | {"message": "careful"}]}).get_json()["stored"] == 1
        usage = {"wall_ms": 1200, "cpu_ms": 30, "peak_memory_bytes": 1000, "bytes_in": 1}
        node.report(ticket.attempt_id, result={"words": 3}, usage=usage, exit_code=0)
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert (shown["status"], shown["result"], shown["progress_percent"]) == ("completed", {"words": 3}, 100)
        assert shown["usage"]["wall_ms"] == 1200
        assert shown["usage"]["bytes_out"] is None
        (attempt,) = shown["attempts"]
        assert (attempt["number"], attempt["state"], attempt["exit_code"]) == (1, "succeeded", 0)
        assert (attempt["node_id"], attempt["node_name"]) == (node.id, node.name)
        (log,) = shown["logs"]
        assert (log["message"], log["level"], log["stream"], log["node_id"]) == (
            "careful",
            "warning",
            "stderr",
            node.id,
        )
        assert shown["completed_at"] is not None
        (listed,) = told(operator.get("/tasks"))["tasks"]
        assert listed["attempts"] == shown["attempts"]

    def test_a_failed_task_tells_why_and_how_often(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"], retry={"max_attempts": 2, "base_seconds": 0})
        for _ in range(2):
            run_one(resources, node, outcome="failed", reason_code="exit_nonzero", **FAILURE)
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert (shown["status"], shown["reason_code"]) == ("failed", "exit_nonzero")
        assert shown["error"]["code"] == "EXIT_NONZERO"
        assert [attempt["number"] for attempt in shown["attempts"]] == [1, 2]
        assert (shown["retry_count"], shown["max_retries"]) == (1, 1)

    def test_its_version_is_its_etag(self, operator: Person) -> None:
        task = operator.task()
        answer = operator.get(f"/tasks/{task['id']}")
        again = operator.get(f"/tasks/{task['id']}", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304

    def test_an_execution_is_no_task(self, operator: Person, agent: dict[str, Any]) -> None:
        execution = operator.execution(agent["id"])
        assert operator.get(f"/tasks/{execution['id']}").status_code == 404
        assert operator.post(f"/tasks/{execution['id']}/cancel").status_code == 404
        assert operator.get(f"/tasks/{execution['id']}/events").status_code == 404
        assert operator.get(f"/executions/{operator.task()['id']}").status_code == 404


class TestUpdateTask:
    def test_fields_of_a_waiting_task_change(
        self, operator: Person, agent: dict[str, Any], resources: Resources, clock: FrozenClock
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        deadline = rfc3339(clock.now() + timedelta(hours=1))
        changes = {
            "title": "new",
            "description": "d",
            "instructions": "echo new",
            "priority": "high",
            "deadline": deadline,
            "required_tools": ["x"],
            "progress_percent": 40,
            "metadata": {"k": 1},
        }
        changed = told(operator.patch(f"/tasks/{task['id']}", changes))
        assert {name: changed[name] for name in changes} == changes
        job = job_of(resources, task["id"])
        assert (job.spec["script"], job.priority) == ("echo new", 2)
        cleared = told(operator.patch(f"/tasks/{task['id']}", {"deadline": None}))
        assert cleared["deadline"] is None
        assert cleared["version"] > changed["version"] > task["version"]

    def test_another_agent_may_be_named_and_taken_away(self, operator: Person, agent: dict[str, Any]) -> None:
        task = operator.task()
        given = told(operator.patch(f"/tasks/{task['id']}", {"agent_id": agent["id"]}))
        assert given["status"] == "assigned"
        other = operator.agent(name="other", runtime="python")
        moved = told(operator.patch(f"/tasks/{task['id']}", {"agent_id": other["id"]}))
        assert moved["agent_id"] == other["id"]
        assert told(operator.patch(f"/tasks/{task['id']}", {"agent_id": None}))["status"] == "pending"

    def test_retry_and_placement_change_while_it_waits(self, operator: Person, agent: dict[str, Any]) -> None:
        task = operator.task(agent_id=agent["id"])
        body = {"retry": {"max_attempts": 7}, "placement": {"group": "blue"}}
        changed = told(operator.patch(f"/tasks/{task['id']}", body))
        assert (changed["retry"]["max_attempts"], changed["placement"]["group"]) == (7, "blue")
        cleared = told(operator.patch(f"/tasks/{task['id']}", {"retry": None, "placement": None}))
        assert (cleared["retry"]["max_attempts"], cleared["placement"]["group"]) == (4, None)

    def test_new_words_keep_the_computer_it_was_accepted_with(self, operator: Person, resources: Resources) -> None:
        agent = operator.agent(computer={"memory_mb": 1024})
        task = operator.task(agent_id=agent["id"])
        told(operator.patch(f"/agents/{agent['id']}", {"computer": {"memory_mb": 64}}))
        told(operator.patch(f"/tasks/{task['id']}", {"title": "t", "instructions": "echo 2"}))
        spec = job_of(resources, task["id"]).spec
        assert (spec["script"], spec["computer"]["memory_mb"]) == ("echo 2", 1024)

    def test_what_runs_keeps_its_instructions(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        start_one(resources, node)
        for late in ({"instructions": "x"}, {"priority": "low"}, {"agent_id": None}, {"required_tools": ["x"]}):
            assert refused(operator.patch(f"/tasks/{task['id']}", late), 409)["code"] == "CONFLICT"
        fine = told(operator.patch(f"/tasks/{task['id']}", {"title": "t2", "progress_percent": 50}))
        assert (fine["title"], fine["progress_percent"], fine["status"]) == ("t2", 50, "in_progress")

    def test_a_waiting_task_is_closed_by_hand(self, operator: Person) -> None:
        done, failed, text = operator.task(), operator.task(), operator.task()
        changed = told(operator.patch(f"/tasks/{done['id']}", {"status": "completed", "result": {"ok": 1}}))
        assert (changed["status"], changed["result"]) == ("completed", {"ok": 1})
        body = {"status": "failed", "error": {"code": "NO_GO", "message": "no"}}
        changed = told(operator.patch(f"/tasks/{failed['id']}", body))
        assert (changed["status"], changed["error"]["code"]) == ("failed", "NO_GO")
        changed = told(operator.patch(f"/tasks/{text['id']}", {"status": "failed", "error": "broken"}))
        assert changed["error"] == {"code": "FAILED_BY_HAND", "message": "broken", "retryable": False}
        assert operator.patch(f"/tasks/{done['id']}", {"status": "failed"}).status_code == 409

    def test_what_runs_is_not_closed_by_hand(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        start_one(resources, node)
        assert operator.patch(f"/tasks/{task['id']}", {"status": "completed"}).status_code == 409
        assert told(operator.patch(f"/tasks/{task['id']}", {"status": "cancelled"}))["status"] == "in_progress"

    def test_statuses_that_follow_from_what_happens_cannot_be_set(self, operator: Person) -> None:
        task = operator.task()
        assert refused(operator.patch(f"/tasks/{task['id']}", {"status": "in_progress"}), 422)["field"] == "status"
        assert refused(operator.patch(f"/tasks/{task['id']}", {"result": 1}), 422)["field"] == "status"

    def test_another_version_is_refused(self, operator: Person) -> None:
        task = operator.task()
        answer = operator.patch(f"/tasks/{task['id']}", {"title": "x"}, headers={"If-Match": '"99"'})
        assert answer.status_code == 412

    def test_a_refused_change_changes_nothing(self, operator: Person, agent: dict[str, Any]) -> None:
        task = operator.task(agent_id=agent["id"])
        assert operator.patch(f"/tasks/{task['id']}", {"title": "new", "instructions": ""}).status_code == 422
        assert told(operator.get(f"/tasks/{task['id']}"))["title"] == "a task"


class TestCancelTask:
    def test_a_waiting_task_is_cancelled_at_once_and_again(self, operator: Person) -> None:
        task = operator.task()
        for _ in range(2):
            assert told(operator.post(f"/tasks/{task['id']}/cancel"))["status"] == "cancelled"

    def test_a_running_task_is_in_progress_until_its_computer_is_gone(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        ticket = start_one(resources, node)
        assert told(operator.post(f"/tasks/{task['id']}/cancel"))["status"] == "in_progress"
        assert node.beat()["attempts"][ticket.attempt_id] == "stop"
        node.report(ticket.attempt_id, "cancelled")
        assert told(operator.get(f"/tasks/{task['id']}"))["status"] == "cancelled"

    def test_a_finished_task_is_a_conflict(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        run_one(resources, node)
        assert operator.post(f"/tasks/{task['id']}/cancel").status_code == 409


class TestEvents:
    def test_they_tell_what_happened_in_order_and_end(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(agent_id=agent["id"])
        first = told(operator.get(f"/tasks/{task['id']}/events"))
        assert [event["type"] for event in first["events"]] == ["job.queued"]
        assert first["done"] is False
        run_one(resources, node)
        rest = told(operator.get(f"/tasks/{task['id']}/events?after={first['next_after']}"))
        assert [event["type"] for event in rest["events"]] == ["job.dispatched", "job.running", "job.succeeded"]
        assert rest["done"] is True
        seqs = [event["seq"] for event in first["events"] + rest["events"]]
        assert seqs == sorted(seqs)
        end = told(operator.get(f"/tasks/{task['id']}/events?after={rest['next_after']}"))
        assert (end["events"], end["next_after"], end["done"]) == ([], rest["next_after"], True)

    def test_waiting_ends_with_news(
        self, operator: Person, monkeypatch: pytest.MonkeyPatch, resources: Resources
    ) -> None:
        task = operator.task()
        seen = told(operator.get(f"/tasks/{task['id']}/events"))["next_after"]
        waited: list[float] = []

        def cancels_meanwhile(_resources: Resources, job_id: str, _after: int, seconds: float) -> float:
            waited.append(seconds)
            if len(waited) == 2:
                told(operator.post(f"/tasks/{job_id}/cancel"))
            return 1.0

        monkeypatch.setattr(timeline, "_waiter", cancels_meanwhile)
        news = told(operator.get(f"/tasks/{task['id']}/events?after={seen}&wait=10"))
        assert [event["type"] for event in news["events"]] == ["job.cancelled"]
        assert waited == [10.0, 9.0]

    def test_waiting_ends_with_the_time(self, operator: Person, monkeypatch: pytest.MonkeyPatch) -> None:
        task = operator.task()
        seen = told(operator.get(f"/tasks/{task['id']}/events"))["next_after"]
        monkeypatch.setattr(timeline, "_waiter", lambda *_: 6.0)
        found = told(operator.get(f"/tasks/{task['id']}/events?after={seen}&wait=10"))
        assert (found["events"], found["done"]) == ([], False)

    def test_the_wait_has_a_limit(self, operator: Person) -> None:
        task = operator.task()
        assert refused(operator.get(f"/tasks/{task['id']}/events?wait=31"), 422)["field"] == "wait"


class TestAssignment:
    def test_a_task_that_names_no_agent_gets_one(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(retry={"max_attempts": 2})
        assert assign(resources) == 1
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert (shown["status"], shown["agent_id"], shown["hold_reason"]) == ("assigned", agent["id"], None)
        assert shown["retry"]["max_attempts"] == 2
        run_one(resources, node)
        assert told(operator.get(f"/tasks/{task['id']}"))["status"] == "completed"

    def test_tools_decide_and_a_missing_one_is_named(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        task = operator.task(required_tools=["browser"])
        assert assign(resources) == 0
        reason = told(operator.get(f"/tasks/{task['id']}"))["hold_reason"]
        assert reason == "no_agent: no active agent has the tools: browser"
        able = operator.agent(name="able", enabled_tools=["browser"])
        assert assign(resources) == 1
        assert told(operator.get(f"/tasks/{task['id']}"))["agent_id"] == able["id"]

    def test_agents_that_are_stopped_cannot_run_or_are_full_are_left_out(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        operator.agent(name="model", runtime="llm")
        stopped = operator.agent(name="stopped")
        told(operator.post(f"/agents/{stopped['id']}/stop"))
        task = operator.task()
        assert assign(resources) == 0
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert shown["hold_reason"] == "no_agent: there is no active agent that can run tasks"
        full = operator.agent(name="full", max_concurrent_tasks=1)
        operator.task(agent_id=full["id"])
        assert assign(resources) == 0
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert shown["hold_reason"] == "agents_busy: every agent that fits is at its limit (full)"

    def test_without_a_node_the_reason_is_the_nodes(
        self, operator: Person, agent: dict[str, Any], resources: Resources
    ) -> None:
        task = operator.task()
        assert assign(resources) == 0
        assert told(operator.get(f"/tasks/{task['id']}"))["hold_reason"] == "no_agent: no node is approved yet"

    def test_the_urgent_are_served_first(self, operator: Person, node: TestNode, resources: Resources) -> None:
        operator.agent(name="one", max_concurrent_tasks=1)
        late, urgent = operator.task(priority="low"), operator.task(priority="critical")
        assert assign(resources) == 1
        assert told(operator.get(f"/tasks/{urgent['id']}"))["status"] == "assigned"
        assert told(operator.get(f"/tasks/{late['id']}"))["status"] == "pending"

    def test_tasks_that_nobody_can_take_do_not_hide_those_behind_them(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        for _ in range(5):
            operator.task(priority="critical", required_tools=["nobody has this"])
        task = operator.task(priority="low")
        assert assign(resources, limit=2) == 1
        assert told(operator.get(f"/tasks/{task['id']}"))["status"] == "assigned"

    def test_work_is_shared_between_agents(self, operator: Person, node: TestNode, resources: Resources) -> None:
        for name in ("a", "b"):
            operator.agent(name=name)
        told(operator.post("/tasks/bulk", {"tasks": [{"title": "t", "instructions": "true"}] * 10}))
        assert assign(resources) == 10
        waiting = [shown["tasks_waiting"] for shown in told(operator.get("/agents"))["agents"]]
        assert waiting == [5, 5]
