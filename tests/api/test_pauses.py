"""Pauses at every level: what runs goes on, nothing new starts, and those who wait are told who and why."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.resources import Resources
from coordinator.upkeep.assign_agents import assign_waiting
from shared.clock import FrozenClock, rfc3339
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.work import Person, refused, start_one, told


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, name="rack-1", group="racks/left", slots=2, light_slots=4).approve()


@pytest.fixture
def admin(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources, Role.ADMIN)


def why(resources: Resources, job_id: str) -> str | None:
    place_all(resources)
    return job_of(resources, job_id).hold_reason


class TestTheFleet:
    def test_what_waits_tells_who_paused_it_and_why(
        self, admin: Person, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (job_id,) = submit(resources, new_job())
        answer = told(admin.post("/workers/pause", {"reason": "new racks come"}))
        assert (answer["scope"], answer["subject"], answer["is_paused"], answer["workers"]) == ("fleet", None, True, 1)
        since = rfc3339(clock.now())
        expected = f"paused: the fleet was paused by {admin.name} at {since}: new racks come"
        assert why(resources, job_id) == expected

    def test_what_waits_starts_once_it_is_resumed(self, admin: Person, node: TestNode, resources: Resources) -> None:
        (job_id,) = submit(resources, new_job())
        admin.post("/workers/pause")
        assert not place_all(resources).tickets
        assert told(admin.post("/workers/resume"))["is_paused"] is False
        assert [ticket.job_id for ticket in place_all(resources).tickets] == [job_id]

    def test_what_runs_goes_on_and_its_node_beats_on(self, admin: Person, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        ticket = start_one(resources, node)
        admin.post("/workers/pause")
        assert node.beat()["attempts"] == {ticket.attempt_id: "keep"}
        assert node.report(ticket.attempt_id) == "accepted"
        shown = told(admin.get(f"/workers/{node.id}"))
        assert (shown["status"], shown["is_paused"]) == ("online", True)

    def test_pausing_twice_keeps_the_first_moment_and_takes_the_new_reason(
        self, admin: Person, node: TestNode, clock: FrozenClock
    ) -> None:
        first = told(admin.post("/workers/pause", {"reason": "one"}))
        clock.advance(60)
        assert told(admin.post("/workers/pause"))["reason"] == "one"
        again = told(admin.post("/workers/pause", {"reason": "two"}))
        assert (again["paused_at"], again["reason"]) == (first["paused_at"], "two")

    def test_resuming_what_is_not_paused_is_fine(self, admin: Person, node: TestNode) -> None:
        assert told(admin.post("/workers/resume"))["is_paused"] is False
        assert told(admin.post("/workers/groups/nowhere/resume"))["workers"] == 0

    def test_a_task_without_an_agent_is_told_too(self, admin: Person, node: TestNode, resources: Resources) -> None:
        admin.agent()
        admin.post("/workers/pause", {"reason": "a move"})
        task = admin.task()
        with resources.database.write() as tx:
            assert assign_waiting(tx, resources, 10).count == 0
        reason = told(admin.get(f"/tasks/{task['id']}"))["hold_reason"]
        assert reason.startswith("paused: the fleet was paused by ")


class TestAGroup:
    def test_others_go_on_and_those_inside_wait(
        self, admin: Person, node: TestNode, client: FlaskClient, resources: Resources
    ) -> None:
        other = TestNode(client, resources, group="other").approve()
        told(admin.post("/workers/groups/racks/left/pause", {"reason": "power"}))
        inside, anywhere = submit(resources, new_job(needs={"group": "racks/left"}), new_job())
        (ticket,) = place_all(resources).tickets
        assert (ticket.job_id, ticket.node_id) == (anywhere, other.id)
        reason = job_of(resources, inside).hold_reason or ""
        assert reason.startswith(f"paused: group racks/left was paused by {admin.name} at ")
        assert reason.endswith(": power")

    def test_a_node_that_joins_later_is_paused_as_well(
        self, admin: Person, client: FlaskClient, resources: Resources
    ) -> None:
        admin.post("/workers/groups/late/pause")
        TestNode(client, resources, group="late").approve()
        submit(resources, new_job())
        assert not place_all(resources).tickets


class TestANode:
    def test_it_takes_nothing_new_until_it_is_resumed(
        self, admin: Person, node: TestNode, resources: Resources
    ) -> None:
        (job_id,) = submit(resources, new_job())
        shown = told(admin.post(f"/workers/{node.id}/pause", {"reason": "disk"}))
        assert (shown["is_paused"], shown["pauses"][0]["scope"]) == (True, "node")
        assert (why(resources, job_id) or "").startswith("paused: node rack-1 was paused by ")
        assert told(admin.post(f"/workers/{node.id}/resume"))["is_paused"] is False
        assert len(place_all(resources).tickets) == 1

    def test_a_job_pinned_to_it_is_told(self, admin: Person, node: TestNode, resources: Resources) -> None:
        told(admin.post(f"/workers/{node.id}/pause"))
        (job_id,) = submit(resources, new_job(needs={"worker_id": node.id}))
        assert (why(resources, job_id) or "").startswith("paused: node rack-1 was paused by ")

    def test_resuming_ends_a_drain_and_a_pause_alike(self, admin: Person, node: TestNode) -> None:
        admin.post(f"/workers/{node.id}/pause")
        admin.post(f"/workers/{node.id}/drain")
        shown = told(admin.post(f"/workers/{node.id}/resume"))
        assert (shown["is_paused"], shown["is_draining"], shown["status"]) == (False, False, "online")

    def test_a_paused_node_still_drains(self, admin: Person, node: TestNode) -> None:
        admin.post(f"/workers/{node.id}/pause")
        shown = told(admin.post(f"/workers/{node.id}/drain"))
        assert (shown["is_paused"], shown["is_draining"]) == (True, True)

    def test_a_node_cannot_lift_what_an_admin_ordered(self, admin: Person, node: TestNode) -> None:
        admin.post(f"/workers/{node.id}/pause")
        assert node.post("resume", {}).get_json()["is_paused"] is True
        assert node.post("pause", {}).status_code == 403

    def test_one_that_is_not_there_is_404(self, admin: Person, node: TestNode) -> None:
        admin.delete(f"/admin/workers/{node.id}")
        refused(admin.post(f"/workers/{node.id}/pause"), 404)


class TestTheList:
    def test_it_tells_all_of_them_with_their_authors(self, admin: Person, node: TestNode) -> None:
        admin.post("/workers/pause", {"reason": "all"})
        admin.post("/workers/groups/racks/left/pause")
        admin.post(f"/workers/{node.id}/pause")
        answer = told(admin.get("/workers/pauses"))
        scopes = [(each["scope"], each["subject"], each["paused_by_name"]) for each in answer["pauses"]]
        expected = [("fleet", None), ("group", "racks/left"), ("node", node.id)]
        assert scopes == [(scope, subject, admin.name) for scope, subject in expected]
        assert answer["pagination"]["total"] == 3
        shown = told(admin.get(f"/workers/{node.id}"))
        assert [each["scope"] for each in shown["pauses"]] == ["fleet", "group", "node"]

    @pytest.mark.parametrize("path", ["/workers/pause", "/workers/resume", "/workers/groups/one/pause"])
    def test_only_an_admin_may(self, app: Flask, resources: Resources, path: str) -> None:
        refused(Person.make(app, resources, Role.OPERATOR).post(path), 403)


class TestAnAgent:
    def test_its_work_waits_until_it_is_resumed(self, admin: Person, node: TestNode, resources: Resources) -> None:
        agent = admin.agent(name="digger")
        task = admin.task(agent_id=agent["id"])
        assert told(admin.post(f"/agents/{agent['id']}/pause"))["status"] == "paused"
        assert told(admin.post(f"/agents/{agent['id']}/pause"))["status"] == "paused"
        assert not place_all(resources).tickets
        held = told(admin.get(f"/tasks/{task['id']}"))["hold_reason"]
        assert held == "agent_paused: agent digger is paused; resume it to run its work"
        assert told(admin.post(f"/agents/{agent['id']}/resume"))["status"] == "idle"
        assert len(place_all(resources).tickets) == 1

    def test_resuming_one_that_was_stopped_does_not_start_it(self, admin: Person, resources: Resources) -> None:
        agent = admin.agent()
        admin.post(f"/agents/{agent['id']}/stop")
        assert told(admin.post(f"/agents/{agent['id']}/resume"))["status"] == "offline"
        told_why: dict[str, Any] = refused(admin.post(f"/agents/{agent['id']}/pause"), 409)
        assert told_why["status"] == "offline"
