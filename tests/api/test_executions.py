"""Agents are run on inputs; executions are read, listed, followed and cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.resources import Resources
from shared.ids import new_id
from tests.factories.fleet import TestNode, job_of
from tests.factories.work import Person, refused, run_one, start_one, told

FAILURE: dict[str, Any] = {"error": {"code": "EXIT_NONZERO", "message": "exit 3", "retryable": False}, "exit_code": 3}


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=8).approve()


@pytest.fixture
def agent(operator: Person) -> dict[str, Any]:
    return operator.agent(name="runner")


class TestExecute:
    def test_it_is_accepted_under_both_names(self, operator: Person, agent: dict[str, Any]) -> None:
        answer = operator.post(f"/agents/{agent['id']}/execute", {"input": {"command": "echo hi"}})
        accepted = told(answer, 202)
        assert accepted["execution_id"] == accepted["id"]
        assert (accepted["status"], accepted["agent_id"]) == ("pending", agent["id"])
        assert answer.headers["Location"] == f"/api/v1/executions/{accepted['id']}"

    @pytest.mark.parametrize(
        ("runtime", "given", "script", "rest"),
        [
            ("command", {"command": "echo hi"}, "echo hi", None),
            ("command", {"command": "echo hi", "n": 1}, "echo hi", {"n": 1}),
            ("python", {"code": "print(1)"}, "print(1)", None),
            ("python", {"script": "print(1)"}, "print(1)", None),
            ("echo", {"a": [1, 2]}, None, {"a": [1, 2]}),
            ("echo", "text", None, "text"),
        ],
    )
    def test_each_runtime_finds_its_script(
        self, operator: Person, resources: Resources, runtime: str, given: Any, script: str | None, rest: Any
    ) -> None:
        made = operator.agent(runtime=runtime)
        execution = operator.execution(made["id"], input=given)
        spec = job_of(resources, execution["id"]).spec
        assert (spec["runtime"], spec["script"], spec["input"]) == (runtime, script, rest)
        assert told(operator.get(f"/executions/{execution['id']}"))["input"] == given

    def test_the_other_spelling_of_input_is_read(self, operator: Person, resources: Resources) -> None:
        made = operator.agent(runtime="echo")
        answer = operator.post(f"/agents/{made['id']}/execute", {"input_data": {"n": 1}})
        assert job_of(resources, told(answer, 202)["id"]).spec["input"] == {"n": 1}

    @pytest.mark.parametrize(("asked", "timeout"), [(30_000, 30.0), (1_500, 1.5), (3_600_000, 60.0)])
    def test_its_timeout_shortens_the_agents_and_never_lengthens_it(
        self, operator: Person, resources: Resources, asked: int, timeout: float
    ) -> None:
        made = operator.agent(computer={"timeout_seconds": 60})
        execution = operator.execution(made["id"], options={"timeout": asked, "max_tokens": 5})
        assert job_of(resources, execution["id"]).spec["timeout_seconds"] == timeout
        shown = told(operator.get(f"/executions/{execution['id']}"))
        assert shown["options"] == {"timeout": asked, "max_tokens": 5}

    def test_the_computer_is_told_whole(self, operator: Person, resources: Resources) -> None:
        made = operator.agent(computer={"memory_mb": 64, "driver": "process", "min_isolation": "bwrap"})
        spec = job_of(resources, operator.execution(made["id"])["id"]).spec
        assert spec["computer"] == {
            "driver": "process",
            "min_isolation": "bwrap",
            "cpus": 1.0,
            "memory_mb": 64,
            "pids": 256,
            "disk_mb": 1024,
            "network": "none",
        }

    @pytest.mark.parametrize(
        ("runtime", "body", "field"),
        [
            ("command", {}, "input.command"),
            ("command", {"input": {"command": " "}}, "input.command"),
            ("command", {"input": ["ls"]}, "input.command"),
            ("python", {"input": {"command": "x"}}, "input.code"),
            ("llm", {"input": {"command": "x"}}, "agent_id"),
            ("flow", {"input": {}}, "agent_id"),
            ("echo", {"options": {"timeout": 0}}, "options.timeout"),
            ("echo", {"input_files": [new_id()]}, "input_files[0]"),
            ("echo", {"priority": "now"}, "priority"),
            ("echo", {"inptu": 1}, "inptu"),
        ],
    )
    def test_a_fault_is_told_with_its_path(
        self, operator: Person, runtime: str, body: dict[str, Any], field: str
    ) -> None:
        made = operator.agent(runtime=runtime)
        assert refused(operator.post(f"/agents/{made['id']}/execute", body), 422)["field"] == field

    def test_an_unknown_agent_is_not_found(self, operator: Person) -> None:
        assert operator.post(f"/agents/{new_id()}/execute", {"input": {}}).status_code == 404

    def test_the_same_key_runs_once(self, operator: Person, agent: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": "run-1"}
        body = {"input": {"command": "true"}}
        ids = [
            told(operator.post(f"/agents/{agent['id']}/execute", body, headers=headers), 202)["id"] for _ in range(2)
        ]
        assert ids[0] == ids[1]
        assert told(operator.get("/executions"))["pagination"]["total"] == 1

    def test_a_viewer_may_not(self, app: Flask, resources: Resources, agent: dict[str, Any]) -> None:
        viewer = Person.make(app, resources, Role.VIEWER)
        assert viewer.post(f"/agents/{agent['id']}/execute", {"input": {"command": "true"}}).status_code == 403


class TestGetExecution:
    def test_a_finished_one_has_the_published_shape(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        execution = operator.execution(agent["id"])
        before = told(operator.get(f"/executions/{execution['id']}"))
        assert (before["status"], before["result"], before["duration_ms"]) == ("pending", None, None)
        ticket = start_one(resources, node)
        assert told(operator.get(f"/executions/{execution['id']}"))["status"] == "running"
        line = {"attempt_id": ticket.attempt_id, "token": node.held[ticket.attempt_id], "offset": 0}
        node.post("logs", {"lines": [line | {"stream": "stdout", "level": "info", "message": "hello"}]})
        node.report(ticket.attempt_id, result="hello", exit_code=0, usage={"wall_ms": 5})
        shown = told(operator.get(f"/executions/{execution['id']}"))
        assert shown["status"] == "completed"
        assert shown["result"] == {"output": "hello", "tokens_used": 0, "cost": 0.0}
        assert isinstance(shown["duration_ms"], int)
        assert shown["started_at"] is not None
        assert shown["completed_at"] is not None
        (log,) = shown["logs"]
        assert {"timestamp", "level", "message", "node_id", "stream"} <= log.keys()
        assert (log["message"], log["node_id"]) == ("hello", node.id)
        assert shown["logs_truncated"] is False

    def test_a_failed_one_tells_why(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        execution = operator.execution(agent["id"])
        run_one(resources, node, outcome="failed", **FAILURE)
        shown = told(operator.get(f"/executions/{execution['id']}"))
        assert (shown["status"], shown["result"]) == ("failed", None)
        assert shown["error"] == {"code": "EXIT_NONZERO", "message": "exit 3", "retryable": False}
        assert shown["attempts"][0]["exit_code"] == 3

    def test_what_is_not_there_is_not_found(self, operator: Person) -> None:
        assert operator.get(f"/executions/{new_id()}").status_code == 404
        assert operator.get("/executions/not-an-id").status_code == 404


class TestListExecutions:
    def test_filters_narrow(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        done = operator.execution(agent["id"])
        run_one(resources, node)
        other = operator.agent(name="other", runtime="echo")
        waiting = operator.execution(other["id"], input=1)
        operator.task(agent_id=agent["id"])

        def ids(query: str) -> list[str]:
            return [item["id"] for item in told(operator.get(f"/executions{query}"))["executions"]]

        assert ids("") == [waiting["id"], done["id"]]
        assert ids("?status=completed") == [done["id"]]
        assert ids("?status=pending") == [waiting["id"]]
        assert ids(f"?agent_id={agent['id']}") == [done["id"]]
        assert ids(f"?agent_id={agent['id']}&status=failed") == []
        assert refused(operator.get("/executions?status=late"), 422)["field"] == "status"


class TestCancelExecution:
    def test_a_waiting_one_is_cancelled_at_once_and_again(self, operator: Person, agent: dict[str, Any]) -> None:
        execution = operator.execution(agent["id"])
        for _ in range(2):
            assert told(operator.post(f"/executions/{execution['id']}/cancel"))["status"] == "cancelled"

    def test_a_finished_one_is_a_conflict(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        execution = operator.execution(agent["id"])
        run_one(resources, node)
        assert operator.post(f"/executions/{execution['id']}/cancel").status_code == 409

    def test_a_task_is_no_execution(self, operator: Person) -> None:
        assert operator.post(f"/executions/{operator.task()['id']}/cancel").status_code == 404


class TestEvents:
    def test_steps_and_log_lines_are_one_timeline(
        self, operator: Person, agent: dict[str, Any], node: TestNode, resources: Resources
    ) -> None:
        execution = operator.execution(agent["id"])
        ticket = start_one(resources, node)
        line = {"attempt_id": ticket.attempt_id, "token": node.held[ticket.attempt_id], "stream": "stdout"}
        lines = [line | {"offset": number, "level": "info", "message": f"line {number}"} for number in range(3)]
        node.post("logs", {"lines": lines})
        node.report(ticket.attempt_id, result=1)
        found = told(operator.get(f"/executions/{execution['id']}/events?limit=4"))
        assert [event["type"] for event in found["events"]] == ["job.queued", "job.dispatched", "job.running", "log"]
        assert found["done"] is False
        rest = told(operator.get(f"/executions/{execution['id']}/events?after={found['next_after']}"))
        assert [event["message"] for event in rest["events"][:2]] == ["line 1", "line 2"]
        assert (rest["events"][-1]["type"], rest["done"]) == ("job.succeeded", True)
        assert rest["events"][0]["stream"] == "stdout"
        assert rest["events"][0]["attempt"] == 1
