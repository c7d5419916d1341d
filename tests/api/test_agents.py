"""Agents are made, listed, changed, started, stopped and deleted."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.domains.identity.rights import Role
from coordinator.domains.tasks.service import tasks
from coordinator.resources import Resources
from shared.ids import new_id
from tests.factories.fleet import TestNode, job_of, place_all
from tests.factories.work import Person, refused, run_one, start_one, told


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=4).approve()


def names(body: dict[str, Any]) -> list[str]:
    return [agent["name"] for agent in body["agents"]]


class TestCreateAgent:
    def test_a_name_is_enough_and_the_agent_is_ready(self, operator: Person) -> None:
        answer = operator.post("/agents", {"name": "reporter"})
        agent = told(answer, 201)
        assert answer.headers["Location"] == f"/api/v1/agents/{agent['id']}"
        assert answer.headers["ETag"] == '"1"'
        assert (agent["status"], agent["state"], agent["is_active"]) == ("idle", "active", True)
        assert (agent["runtime"], agent["role"], agent["max_concurrent_tasks"]) == ("command", "general", None)
        assert (agent["execution_count"], agent["success_rate"]) == (0, None)
        assert agent["metadata"] == {"version": "1.0.0", "author": operator.name, "tags": []}
        assert agent["computer"]["memory_mb"] == 512
        assert agent["retry"]["max_attempts"] == 4

    @pytest.mark.parametrize(
        ("fields", "runtime"),
        [
            ({"flow": {"nodes": [{"id": "a", "type": "llm"}], "edges": []}}, "flow"),
            ({"llm_provider": "anthropic", "llm_model": "m"}, "llm"),
            ({"system_prompt": "be brief"}, "llm"),
            ({"llm_provider": None}, "command"),
            ({"runtime": "python", "llm_model": "m"}, "python"),
        ],
    )
    def test_clients_that_know_no_runtimes_get_the_one_they_mean(
        self, operator: Person, fields: dict[str, Any], runtime: str
    ) -> None:
        assert operator.agent(**fields)["runtime"] == runtime

    def test_everything_that_is_given_comes_back(self, operator: Person) -> None:
        given = {
            "description": "writes",
            "role": "writer",
            "llm_provider": "anthropic",
            "llm_model": "some-model",
            "system_prompt": "be brief",
            "temperature": 0.2,
            "max_tokens": 100,
            "enabled_tools": {"browser": True, "mail": False},
            "tags": ["a", "b"],
            "flow": {"nodes": [{"id": "n", "type": "llm", "config": {"x": 1}, "position": [1, 2]}], "edges": []},
            "max_concurrent_tasks": 3,
        }
        made = operator.agent(**given)
        read = told(operator.get(f"/agents/{made['id']}"))
        assert {name: read[name] for name in given} == given

    def test_tools_and_labels_may_be_lists(self, operator: Person) -> None:
        agent = operator.agent(enabled_tools=["browser"], placement={"labels": ["gpu", "zone=eu"]})
        assert agent["enabled_tools"] == {"browser": True}
        assert agent["placement"]["labels"] == {"gpu": None, "zone": "eu"}

    def test_worker_id_is_the_placements(self, operator: Person) -> None:
        worker = new_id()
        assert operator.agent(worker_id=worker)["placement"]["worker_id"] == worker
        assert operator.agent(placement={"worker_id": worker})["worker_id"] == worker
        body = {"name": "x", "worker_id": worker, "placement": {"worker_id": new_id()}}
        assert refused(operator.post("/agents", body), 422)["field"] == "worker_id"

    def test_metadata_may_carry_the_tags_and_more(self, operator: Person) -> None:
        agent = operator.agent(metadata={"version": "2.0", "tags": ["x", "x"], "team": "blue"})
        assert agent["tags"] == ["x"]
        assert agent["metadata"] == {"version": "2.0", "author": operator.name, "tags": ["x"], "team": "blue"}

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "n" * 256}, "name"),
            ({"computer": {"memory_mb": 1}}, "computer.memory_mb"),
            ({"computer": {"cpus": 1000}}, "computer.cpus"),
            ({"computer": {"network": "bridge"}}, "computer.network"),
            ({"computer": {"image": "-rm"}}, "computer.image"),
            ({"computer": {"timeout_seconds": 604801}}, "computer.timeout_seconds"),
            ({"computer": {"gpus": 1}}, "computer.gpus"),
            ({"placement": {"worker_id": "w1"}}, "placement.worker_id"),
            ({"placement": {"labels": [1]}}, "placement.labels"),
            ({"retry": {"max_attempts": 0}}, "retry.max_attempts"),
            ({"runtime": "java"}, "runtime"),
            ({"max_concurrent_tasks": 0}, "max_concurrent_tasks"),
            ({"flow": {"nodes": [{"id": "a"}]}}, "flow.nodes[0].type"),
            ({"enabled_tools": "browser"}, "enabled_tools"),
            ({"nmae": "x"}, "nmae"),
        ],
    )
    def test_a_fault_is_told_with_its_path(self, operator: Person, fields: dict[str, Any], field: str) -> None:
        assert refused(operator.post("/agents", {"name": "x", **fields}), 422)["field"] == field

    def test_a_viewer_may_not(self, app: Flask, resources: Resources) -> None:
        viewer = Person.make(app, resources, Role.VIEWER)
        assert viewer.post("/agents", {"name": "x"}).status_code == 403

    def test_the_same_key_makes_one_agent(self, operator: Person) -> None:
        first, second = (
            operator.post("/agents", {"name": "once"}, headers={"Idempotency-Key": "k1"}) for _ in range(2)
        )
        assert told(first, 201)["id"] == told(second, 201)["id"]
        assert told(operator.get("/agents"))["pagination"]["total"] == 1


class TestListAgents:
    def test_the_newest_come_first_in_pages(self, operator: Person) -> None:
        for number in range(3):
            operator.agent(name=f"a{number}")
        first = told(operator.get("/agents?page=1&limit=2"))
        assert names(first) == ["a2", "a1"]
        assert first["pagination"] == {"page": 1, "limit": 2, "offset": 0, "total": 3, "pages": 2}
        assert names(told(operator.get("/agents?offset=2&limit=2"))) == ["a0"]

    def test_both_vocabularies_filter(self, operator: Person) -> None:
        operator.agent(name="ready")
        for status in ("offline", "paused", "maintenance"):
            made = operator.agent(name=status)
            told(operator.patch(f"/agents/{made['id']}", {"status": status}))
        assert names(told(operator.get("/agents?status=active"))) == ["ready"]
        assert names(told(operator.get("/agents?status_filter=idle"))) == ["ready"]
        assert names(told(operator.get("/agents?status=inactive"))) == ["maintenance", "paused", "offline"]
        assert names(told(operator.get("/agents?status_filter=paused"))) == ["paused"]
        assert names(told(operator.get("/agents?status=error"))) == []
        assert refused(operator.get("/agents?status=sleeping"), 422)["field"] == "status"

    def test_busy_and_idle_are_told_apart_by_running_work(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        busy, _ = operator.agent(name="busy", runtime="echo"), operator.agent(name="idle")
        operator.execution(busy["id"], input={"n": 1})
        ticket = start_one(resources, node)
        assert names(told(operator.get("/agents?status=busy"))) == ["busy"]
        assert names(told(operator.get("/agents?status=idle"))) == ["idle"]
        assert names(told(operator.get("/agents?status=active"))) == ["idle", "busy"]
        shown = told(operator.get(f"/agents/{busy['id']}"))
        assert (shown["status"], shown["state"], shown["tasks_active"]) == ("busy", "active", 1)
        assert node.report(ticket.attempt_id) == "accepted"
        assert told(operator.get("/agents?status=busy"))["agents"] == []

    def test_search_looks_into_name_and_description_literally(self, operator: Person) -> None:
        operator.agent(name="Alpha", description="counts 100% of words")
        operator.agent(name="Beta", description="nothing")
        assert names(told(operator.get("/agents?search=ALPHA"))) == ["Alpha"]
        assert names(told(operator.get("/agents?search=0%25 of"))) == ["Alpha"]
        assert names(told(operator.get("/agents?search=_"))) == []

    def test_role_filters(self, operator: Person) -> None:
        operator.agent(name="a", role="writer")
        operator.agent(name="b")
        assert names(told(operator.get("/agents?role=writer"))) == ["a"]

    def test_success_is_a_fraction_of_what_ended(self, operator: Person, node: TestNode, resources: Resources) -> None:
        agent = operator.agent(runtime="echo", retry={"max_attempts": 1})
        failure = {"error": {"code": "EXIT_NONZERO", "message": "exit 3", "retryable": True}, "exit_code": 3}
        for outcome, facts in (("succeeded", {}), ("failed", failure), ("succeeded", {})):
            operator.execution(agent["id"], input=1)
            run_one(resources, node, outcome=outcome, **facts)
        (shown,) = told(operator.get("/agents"))["agents"]
        assert (shown["execution_count"], shown["success_rate"]) == (3, 0.6667)
        assert (shown["tasks_completed"], shown["tasks_failed"]) == (2, 1)


class TestUpdateAgent:
    def test_what_is_left_out_stays_and_null_clears(self, operator: Person) -> None:
        agent = operator.agent(computer={"memory_mb": 1024, "cpus": 2}, llm_model="m", tags=["x"])
        changed = told(operator.patch(f"/agents/{agent['id']}", {"computer": {"cpus": None}, "llm_model": None}))
        assert (changed["computer"]["memory_mb"], changed["computer"]["cpus"]) == (1024, 1.0)
        assert (changed["llm_model"], changed["tags"]) == (None, ["x"])
        assert changed["version"] == agent["version"] + 1

    def test_nothing_changed_keeps_the_version(self, operator: Person) -> None:
        agent = operator.agent(tags=["x"])
        assert told(operator.patch(f"/agents/{agent['id']}", {"tags": ["x"]}))["version"] == agent["version"]

    def test_another_version_is_refused(self, operator: Person) -> None:
        agent = operator.agent()
        headers = {"If-Match": '"7"'}
        assert operator.patch(f"/agents/{agent['id']}", {"role": "x"}, headers=headers).status_code == 412
        headers = {"If-Match": '"1"'}
        assert operator.patch(f"/agents/{agent['id']}", {"role": "x"}, headers=headers).status_code == 200

    def test_busy_cannot_be_set(self, operator: Person) -> None:
        agent = operator.agent()
        assert refused(operator.patch(f"/agents/{agent['id']}", {"status": "busy"}), 422)["field"] == "status"

    def test_is_active_starts_and_stops(self, operator: Person) -> None:
        agent = operator.agent()
        assert told(operator.patch(f"/agents/{agent['id']}", {"is_active": False}))["status"] == "offline"
        assert told(operator.patch(f"/agents/{agent['id']}", {"is_active": True}))["status"] == "idle"

    def test_accepted_work_keeps_what_it_was_accepted_with(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(computer={"memory_mb": 1024})
        task = operator.task(agent_id=agent["id"])
        told(operator.patch(f"/agents/{agent['id']}", {"computer": {"memory_mb": 64}}))
        assert job_of(resources, task["id"]).spec["computer"]["memory_mb"] == 1024


class TestStartAndStop:
    def test_work_of_a_stopped_agent_waits_with_a_reason_until_it_is_started(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(name="sleeper", runtime="echo")
        assert told(operator.post(f"/agents/{agent['id']}/stop"))["status"] == "offline"
        task = operator.task(agent_id=agent["id"])
        assert not place_all(resources).tickets
        held = told(operator.get(f"/tasks/{task['id']}"))
        assert held["status"] == "assigned"
        assert held["hold_reason"] == "agent_offline: agent sleeper is stopped; start it to run its work"
        assert told(operator.post(f"/agents/{agent['id']}/start"))["is_active"] is True
        run_one(resources, node)
        assert told(operator.get(f"/tasks/{task['id']}"))["status"] == "completed"

    def test_doing_it_again_changes_nothing(self, operator: Person) -> None:
        agent = operator.agent()
        first, second = (told(operator.post(f"/agents/{agent['id']}/stop")) for _ in range(2))
        assert first["version"] == second["version"]

    def test_no_more_runs_at_a_time_than_the_limit(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(runtime="echo", max_concurrent_tasks=1)
        for _ in range(2):
            operator.execution(agent["id"], input=1)
        assert len(place_all(resources).tickets) == 1
        told(operator.patch(f"/agents/{agent['id']}", {"max_concurrent_tasks": None}))
        assert len(place_all(resources).tickets) == 1


class TestDeleteAgent:
    def test_it_is_gone_and_its_history_stays(self, operator: Person, node: TestNode, resources: Resources) -> None:
        agent = operator.agent(runtime="echo")
        execution = operator.execution(agent["id"], input=1)
        run_one(resources, node, result=1)
        assert operator.delete(f"/agents/{agent['id']}").status_code == 204
        assert operator.get(f"/agents/{agent['id']}").status_code == 404
        assert told(operator.get("/agents"))["agents"] == []
        assert told(operator.get(f"/executions/{execution['id']}"))["agent_id"] == agent["id"]
        assert operator.post(f"/agents/{agent['id']}/execute", {"input": 1}).status_code == 404
        assert refused(operator.post("/tasks", {"title": "x", "agent_id": agent["id"]}), 422)["field"] == "agent_id"

    def test_unfinished_work_forbids_it(self, operator: Person) -> None:
        agent = operator.agent()
        operator.task(agent_id=agent["id"])
        assert refused(operator.delete(f"/agents/{agent['id']}"), 409)["unfinished"] == 1
        assert operator.get(f"/agents/{agent['id']}").status_code == 200

    def test_it_cannot_go_while_work_is_accepted_for_it(
        self, app: Flask, operator: Person, resources: Resources
    ) -> None:
        agent = operator.agent()
        answers: list[TestResponse] = []
        other = Person(app.test_client(), operator.headers, operator.id, operator.name)
        deleting = threading.Thread(target=lambda: answers.append(other.delete(f"/agents/{agent['id']}")))
        with resources.database.write() as tx:
            body = {"title": "t", "instructions": "true", "agent_id": agent["id"]}
            tasks.create(tx, resources, body, space="default", by=operator.id)
            deleting.start()
            deleting.join(0.3)
            assert deleting.is_alive(), "the deletion did not wait for the task to be accepted"
        deleting.join(30)
        assert refused(answers[0], 409)["unfinished"] == 1

    def test_force_cancels_that_work(self, operator: Person, node: TestNode, resources: Resources) -> None:
        agent = operator.agent(runtime="echo")
        running, waiting = operator.execution(agent["id"], input=1), operator.task(agent_id=agent["id"])
        ticket, *_ = place_all(resources, batch=1).tickets
        node.claim(ticket)
        assert operator.delete(f"/agents/{agent['id']}?force=true").status_code == 204
        assert told(operator.get(f"/tasks/{waiting['id']}"))["status"] == "cancelled"
        assert told(operator.get(f"/executions/{running['id']}"))["status"] == "running"
        assert node.report(ticket.attempt_id, "cancelled") == "accepted"
        assert told(operator.get(f"/executions/{running['id']}"))["status"] == "cancelled"

    def test_what_is_not_there_is_not_found(self, operator: Person) -> None:
        assert operator.delete(f"/agents/{new_id()}").status_code == 404
        assert operator.patch(f"/agents/{new_id()}", {}).status_code == 404
        assert operator.post(f"/agents/{new_id()}/start").status_code == 404
