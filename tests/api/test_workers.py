"""Nodes enrol, wait for approval, live and are cut off."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.fleet import service as fleet
from coordinator.domains.identity.rights import Role
from coordinator.resources import Resources
from shared.clock import FrozenClock
from shared.queue.broker import parse_broker
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.people import credentials_of, make_person

FACTS = {"name": "rack-1", "hostname": "rack-1.local", "ip_address": "10.0.0.11", "cpu_cores": 8}


@pytest.fixture
def admin(app: Flask, resources: Resources) -> dict[str, str]:
    return credentials_of(app, make_person(resources.database, role=Role.ADMIN))


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources)


def enrolment_token(client: FlaskClient, admin: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/admin/enrolment-tokens", json=body, headers=admin)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.get_json()
    return made


class TestEnrolment:
    def test_a_token_enrols_one_pending_node_and_no_second(self, client: FlaskClient, admin: dict[str, str]) -> None:
        token = enrolment_token(client, admin, group="blue")["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        first = client.post("/api/v1/workers/register", json=FACTS, headers=bearer)
        assert first.status_code == 201
        assert first.get_json()["status"] == "pending"
        assert first.get_json()["is_approved"] is False
        assert first.get_json()["credential"].startswith("lsn_")
        assert client.post("/api/v1/workers/register", json=FACTS, headers=bearer).status_code == 401
        shown = client.get(f"/api/v1/workers/{first.get_json()['id']}", headers=admin).get_json()
        assert shown["group"] == "blue"
        assert "credential" not in shown

    def test_an_expired_token_enrols_nobody(
        self, client: FlaskClient, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        token = enrolment_token(client, admin, expires_in_seconds=60)["token"]
        clock.advance(61)
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.post("/api/v1/workers/register", json=FACTS, headers=bearer).status_code == 401

    def test_a_revoked_token_enrols_nobody(self, client: FlaskClient, admin: dict[str, str]) -> None:
        made = enrolment_token(client, admin)
        assert client.delete(f"/api/v1/admin/enrolment-tokens/{made['id']}", headers=admin).status_code == 204
        bearer = {"Authorization": f"Bearer {made['token']}"}
        assert client.post("/api/v1/workers/register", json=FACTS, headers=bearer).status_code == 401

    def test_the_token_is_shown_once(self, client: FlaskClient, admin: dict[str, str]) -> None:
        enrolment_token(client, admin, note="rack")
        listed = client.get("/api/v1/admin/enrolment-tokens", headers=admin).get_json()["enrolment_tokens"]
        assert [item["note"] for item in listed] == ["rack"]
        assert "token" not in listed[0]

    def test_a_name_is_a_label_and_takes_nothing_over(self, client: FlaskClient, admin: dict[str, str]) -> None:
        ids = [client.post("/api/v1/workers/register", json=FACTS, headers=admin).get_json()["id"] for _ in range(2)]
        assert len(set(ids)) == 2

    @pytest.mark.parametrize("missing", ["name", "hostname", "ip_address"])
    def test_a_missing_field_is_named(self, client: FlaskClient, admin: dict[str, str], missing: str) -> None:
        body = {key: value for key, value in FACTS.items() if key != missing}
        answer = client.post("/api/v1/workers/register", json=body, headers=admin)
        assert answer.status_code == 422
        assert answer.get_json()["error"]["details"]["field"] == missing

    def test_labels_may_be_a_list(self, client: FlaskClient, admin: dict[str, str]) -> None:
        body = FACTS | {"labels": ["gpu", "zone=eu"]}
        made = client.post("/api/v1/workers/register", json=body, headers=admin).get_json()
        shown = client.get(f"/api/v1/workers/{made['id']}", headers=admin).get_json()
        assert shown["labels"] == {"gpu": "true", "zone": "eu"}


class TestHeartbeat:
    def test_the_published_three_percentages_are_enough(self, node: TestNode) -> None:
        body = {"cpu_usage_percent": 12.5, "memory_usage_percent": 40, "disk_usage_percent": 61}
        answer = node.post("heartbeat", body)
        assert answer.status_code == 200
        assert answer.get_json()["status"] == "pending"

    def test_until_it_is_approved_a_node_gets_no_broker_and_no_queue(self, node: TestNode) -> None:
        reply = node.beat()
        assert (reply["broker"], reply["queue"], reply["is_approved"]) == (None, None, False)

    def test_once_approved_it_gets_both(self, node: TestNode, resources: Resources) -> None:
        reply = node.approve().beat()
        assert reply["status"] == "online"
        assert parse_broker(reply["broker"]).hosts == parse_broker(resources.settings.redis_url).hosts
        assert reply["queue"] == f"node.{node.id}"

    def test_another_nodes_credential_is_refused(
        self, client: FlaskClient, node: TestNode, resources: Resources
    ) -> None:
        other = TestNode(client, resources)
        answer = client.post(f"/api/v1/workers/{node.id}/heartbeat", json={}, headers=other.headers)
        assert answer.status_code == 403

    def test_a_percentage_beyond_a_hundred_is_refused(self, node: TestNode) -> None:
        answer = node.post("heartbeat", {"cpu_usage_percent": 101})
        assert answer.status_code == 422
        assert answer.get_json()["error"]["details"]["field"] == "cpu_usage_percent"

    def test_vitals_are_kept_and_thinned(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode, clock: FrozenClock
    ) -> None:
        for percent in range(10):
            node.beat(cpu_usage_percent=percent)
            clock.advance(60)
        answer = client.get(f"/api/v1/workers/{node.id}/vitals?points=5", headers=admin).get_json()
        assert [point["cpu_percent"] for point in answer["points"]] == [0.5, 2.5, 4.5, 6.5, 8.5]

    def test_a_broken_docker_puts_the_node_in_error_and_a_mended_one_back(self, node: TestNode) -> None:
        node.approve()
        computers = {"driver": "docker", "isolation": "container"}
        assert node.beat(docker_ok=False, computers=computers)["status"] == "error"
        assert node.beat(docker_ok=True)["status"] == "online"


class TestApproval:
    def test_approving_answers_the_published_fields(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode
    ) -> None:
        node.beat()
        body = {"is_approved": True, "group": "blue"}
        answer = client.patch(f"/api/v1/admin/workers/{node.id}/approve", json=body, headers=admin)
        assert answer.status_code == 200
        told = answer.get_json()
        assert (told["id"], told["is_approved"], told["status"], told["group"]) == (node.id, True, "online", "blue")

    def test_a_node_that_is_not_heard_of_is_approved_but_offline(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode
    ) -> None:
        url = f"/api/v1/admin/workers/{node.id}/approve"
        assert client.patch(url, json={"is_approved": True}, headers=admin).get_json()["status"] == "offline"

    def test_rejecting_cuts_a_node_off_and_its_work_goes_elsewhere(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode, resources: Resources
    ) -> None:
        node.approve()
        (job_id,) = submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        node.claim(ticket)
        client.patch(f"/api/v1/admin/workers/{node.id}/approve", json={"is_approved": False}, headers=admin)
        assert node.sync().status_code == 403
        reply = node.beat()
        assert (reply["is_approved"], reply["broker"]) == (False, None)
        view = job_of(resources, job_id)
        assert view.state == "queued"
        assert [item["reason_code"] for item in view.attempts] == ["node_rejected"]

    def test_a_removed_nodes_credential_is_void(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode
    ) -> None:
        node.approve()
        assert client.delete(f"/api/v1/admin/workers/{node.id}", headers=admin).status_code == 204
        assert node.post("heartbeat", {}).status_code == 401
        listed = client.get("/api/v1/workers", headers=admin).get_json()["workers"]
        assert node.id not in [item["id"] for item in listed]

    def test_a_draining_node_gets_nothing_new_until_it_is_resumed(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode, resources: Resources
    ) -> None:
        node.approve()
        client.post(f"/api/v1/workers/{node.id}/drain", headers=admin)
        assert node.beat()["drain"] is True
        (job_id,) = submit(resources, new_job())
        assert not place_all(resources).tickets
        assert "is maintenance" in (job_of(resources, job_id).hold_reason or "")
        client.post(f"/api/v1/workers/{node.id}/resume", headers=admin)
        assert len(place_all(resources).tickets) == 1

    def test_a_drain_may_have_an_end_which_the_node_is_told_in_seconds_from_now(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode
    ) -> None:
        node.approve()
        path = f"/api/v1/workers/{node.id}/drain"
        assert client.post(path, headers=admin).get_json()["drain_by"] is None
        assert node.beat()["drain_in_seconds"] is None
        assert client.post(path, json={"within_seconds": 600}, headers=admin).get_json()["drain_by"] is not None
        assert 590 < node.beat()["drain_in_seconds"] <= 600
        resumed = client.post(f"/api/v1/workers/{node.id}/resume", headers=admin).get_json()
        assert (resumed["drain_by"], node.beat()["drain_in_seconds"]) == (None, None)
        assert client.post(path, json={"within_seconds": -1}, headers=admin).status_code == 422


class TestFleetViews:
    def test_the_overview_counts(self, client: FlaskClient, admin: dict[str, str], resources: Resources) -> None:
        TestNode(client, resources, cpu_cores=4, memory_total_mb=1000).approve()
        TestNode(client, resources, cpu_cores=8)
        told = client.get("/api/v1/workers/overview", headers=admin).get_json()
        assert (told["total_workers"], told["online_workers"], told["pending_workers"]) == (2, 1, 1)
        assert (told["total_cpu_cores"], told["total_memory_mb"], told["total_active_agents"]) == (4, 1000, 0)

    def test_a_nodes_tasks_are_empty_until_it_is_approved(
        self, client: FlaskClient, admin: dict[str, str], node: TestNode, resources: Resources
    ) -> None:
        submit(resources, new_job(needs={"worker_id": node.id}))
        url = f"/api/v1/workers/{node.id}/tasks"
        assert client.get(url, headers=admin).get_json()["tasks"] == []
        node.approve()
        (waiting,) = client.get(url, headers=admin).get_json()["tasks"]
        assert waiting["state"] == "queued"

    def test_a_silent_node_goes_offline_and_comes_back(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        node.approve()
        clock.advance(resources.settings.lost_after_seconds + 1)
        with resources.database.write() as tx:
            assert fleet.miss(tx, resources) == 1
        with resources.database.read() as tx:
            assert fleet.get(tx, node.id).status == "offline"
        assert node.beat()["status"] == "online"
