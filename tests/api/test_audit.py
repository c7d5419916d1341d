"""What requests leave in the audit trail, and what an admin reads there."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from coordinator.app import create_app
from coordinator.domains.identity import audit
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.http.refusals import PER_ADDRESS
from coordinator.http.slice import mounted
from coordinator.http.sockets import WS
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from shared.errors import Unavailable
from tests.factories.fleet import TestNode
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import trail_of

PASSWORD = "correct horse battery staple"
HERE = "127.0.0.1"


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", email="ada@example.org", password=PASSWORD)


@pytest.fixture
def admin(database: Database) -> Principal:
    return make_person(database, role=Role.ADMIN, name="root")


@pytest.fixture
def as_admin(app: Flask, admin: Principal) -> dict[str, str]:
    return credentials_of(app, admin)


@pytest.fixture
def as_viewer(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database, role=Role.VIEWER, name="vera"))


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources)


def facts(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


class TestLogins:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/api/v1/auth/login", {"email": "ada@example.org", "password": PASSWORD}),
            ("/api/v0/auth/login", {"user": "ada", "pass": PASSWORD}),
        ],
        ids=["v1", "v0"],
    )
    def test_a_login_is_told_with_its_session(
        self, client: FlaskClient, database: Database, ada: Principal, path: str, body: dict[str, str]
    ) -> None:
        response = client.post(path, json=body, headers={"X-Request-ID": "req-1"})
        assert response.status_code == 200

        (row,) = trail_of(database, action="session.opened")
        assert facts(row, "outcome", "actor_kind", "actor_id", "actor_name") == ("done", "user", ada.id, "ada")
        assert facts(row, "address", "request_id", "space") == (HERE, "req-1", "default")
        assert row["resource_id"] == row["credential_id"]
        assert PASSWORD not in str(row)

    def test_a_wrong_password_is_told_with_the_account_it_was_for(
        self, client: FlaskClient, database: Database, ada: Principal
    ) -> None:
        assert client.post("/api/v1/auth/login", json={"email": "ada", "password": "x"}).status_code == 401

        (row,) = trail_of(database)
        assert facts(row, "action", "outcome", "actor_id", "message") == (
            "session.opened",
            "refused",
            ada.id,
            "the password is wrong",
        )

    def test_a_name_that_nobody_has_is_told_in_part_as_it_may_be_a_password(
        self, client: FlaskClient, database: Database
    ) -> None:
        client.post("/api/v1/auth/login", json={"email": "hunter22secret", "password": "x"})

        (row,) = trail_of(database)
        assert facts(row, "actor_kind", "actor_id", "actor_name") == ("anonymous", None, "hu… (14 characters)")
        assert row["message"] == "nobody has this name"

    def test_callers_do_not_learn_what_the_trail_knows(
        self, client: FlaskClient, database: Database, ada: Principal
    ) -> None:
        with database.write() as tx:
            tx.conn.execute(text("UPDATE principals SET active = false WHERE name = 'ada'"))
        tries = [("ada", PASSWORD), ("ada", "wrong"), ("nobody", "wrong")]
        answers = {
            client.post("/api/v1/auth/login", json={"email": name, "password": password}).data
            for name, password in tries
        }
        assert len(answers) == 1
        assert len({row["message"] for row in trail_of(database)}) == 3

    def test_a_refresh_token_shown_twice_is_told_with_the_session_it_ends(
        self, client: FlaskClient, database: Database, ada: Principal
    ) -> None:
        pair = client.post("/api/v1/auth/login", json={"email": "ada", "password": PASSWORD}).get_json()
        shown = {"refresh_token": pair["refresh_token"]}
        assert client.post("/api/v1/auth/refresh", json=shown).status_code == 200
        for _ in range(2):
            assert client.post("/api/v1/auth/refresh", json=shown).status_code == 401

        opened, ended, *refused = trail_of(database)
        assert facts(ended, "action", "actor_name", "resource_id") == ("session.ended", "ada", opened["resource_id"])
        assert [facts(row, "action", "outcome", "actor_name") for row in refused] == [
            ("request.refused", "refused", "ada")
        ] * 2


class TestRefusals:
    def test_an_act_that_the_caller_may_not_do_is_told_as_that_act(
        self, client: FlaskClient, database: Database, node: TestNode, as_viewer: dict[str, str]
    ) -> None:
        path = f"/api/v1/admin/workers/{node.id}/approve"
        assert client.patch(path, json={"is_approved": True}, headers=as_viewer).status_code == 403

        (row,) = trail_of(database)
        assert facts(row, "action", "outcome", "actor_name") == ("worker.approved", "refused", "vera")
        assert facts(row, "resource_type", "resource_id", "address") == ("worker", node.id, HERE)

    def test_any_other_refusal_is_told_with_the_endpoint(
        self, client: FlaskClient, database: Database, as_viewer: dict[str, str]
    ) -> None:
        assert client.get("/api/v1/admin/audit", headers=as_viewer).status_code == 403

        (row,) = trail_of(database)
        assert facts(row, "action", "resource_type", "resource_id") == (
            "request.refused",
            "endpoint",
            "GET /admin/audit",
        )

    def test_a_token_of_a_session_that_has_ended_is_told_with_its_owner(
        self, app: Flask, client: FlaskClient, database: Database, ada: Principal
    ) -> None:
        headers = credentials_of(app, ada)
        with database.write() as tx:
            tx.conn.execute(text("UPDATE login_sessions SET revoked_at = created_at"))
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 401

        (row,) = trail_of(database)
        assert facts(row, "action", "actor_kind", "actor_name", "actor_id") == (
            "request.refused",
            "user",
            "ada",
            ada.id,
        )
        assert row["credential_id"] is not None

    def test_an_expired_token_is_told_with_its_owner(
        self, app: Flask, client: FlaskClient, database: Database, clock: FrozenClock, ada: Principal
    ) -> None:
        headers = credentials_of(app, ada, seconds=60)
        clock.advance(61)
        client.get("/api/v1/auth/me", headers=headers)

        (row,) = trail_of(database)
        assert facts(row, "actor_name", "message") == ("ada", "the token has expired")

    @pytest.mark.parametrize(
        ("token", "name"),
        [
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", "a token that is not ours"),
            ("lsn_018f0000-0000-7000-8000-000000000001_forged", "lsn_…"),
        ],
    )
    def test_a_forged_credential_is_told_without_believing_it(
        self, client: FlaskClient, database: Database, token: str, name: str
    ) -> None:
        client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})

        (row,) = trail_of(database)
        assert facts(row, "actor_kind", "actor_id", "actor_name") == ("anonymous", None, name)
        assert token not in str(row)

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"X-API-Key": "what"}], ids=str)
    def test_who_shows_no_credential_of_ours_leaves_nothing(
        self, client: FlaskClient, database: Database, headers: dict[str, str]
    ) -> None:
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 401
        assert trail_of(database) == []

    def test_a_flood_costs_a_few_rows_and_the_next_one_tells_the_rest(
        self, client: FlaskClient, database: Database, clock: FrozenClock, as_viewer: dict[str, str]
    ) -> None:
        flood = 200
        for _ in range(flood):
            assert client.get("/api/v1/admin/audit", headers=as_viewer).status_code == 403
        assert len(trail_of(database)) == PER_ADDRESS

        clock.advance(61)
        client.get("/api/v1/admin/audit", headers=as_viewer)

        rows = trail_of(database)
        assert len(rows) == PER_ADDRESS + 1
        assert len(rows) + sum(row["unrecorded"] for row in rows) == flood + 1

    def test_what_no_later_row_tells_is_told_when_the_minute_is_over(
        self, app: Flask, client: FlaskClient, database: Database, as_viewer: dict[str, str]
    ) -> None:
        for _ in range(PER_ADDRESS + 5):
            client.get("/api/v1/admin/audit", headers=as_viewer)
        app.extensions["longshore"].clerk.settle()

        last = trail_of(database)[-1]
        assert facts(last, "outcome", "address", "unrecorded") == ("refused", HERE, 5)

    def test_a_process_that_stops_tells_what_it_left_out(
        self, resources: Resources, database: Database, as_viewer: dict[str, str]
    ) -> None:
        app = create_app(resources)
        clerk = app.extensions["longshore"].clerk
        clerk.settle_by_itself()
        for _ in range(PER_ADDRESS + 3):
            app.test_client().get("/api/v1/admin/audit", headers=as_viewer)
        clerk.close()

        assert trail_of(database)[-1]["unrecorded"] == 3

    def test_a_trail_that_cannot_be_written_does_not_change_the_answer_and_is_made_up_for(
        self,
        client: FlaskClient,
        database: Database,
        as_viewer: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def away(*_: Any, **__: Any) -> None:
            raise Unavailable("the database does not answer")

        monkeypatch.setattr(audit, "record", away)
        assert client.get("/api/v1/admin/audit", headers=as_viewer).status_code == 403
        monkeypatch.undo()
        client.get("/api/v1/admin/audit", headers=as_viewer)

        assert [row["unrecorded"] for row in trail_of(database)] == [1]

    def test_a_socket_that_is_refused_is_told(
        self, app: Flask, resources: Resources, database: Database, as_viewer: dict[str, str]
    ) -> None:
        from coordinator.http.sockets import Entrance
        from shared.errors import Unauthenticated

        ours = app.extensions["longshore"]
        endpoint = next(each for each, _ in mounted(ours.slices) if each.method == WS)
        entrance = Entrance(
            endpoint,
            resources,
            ours.gatekeeper,
            ours.clerk,
            remote="192.0.2.9",
            request_id="socket-1",
            space=None,
            query={},
            path_args={},
        )
        with database.write() as tx:
            tx.conn.execute(text("UPDATE login_sessions SET revoked_at = created_at"))
        with pytest.raises(Unauthenticated):
            entrance.enter(as_viewer["Authorization"].removeprefix("Bearer "))

        (row,) = trail_of(database)
        assert facts(row, "actor_name", "address", "request_id") == ("vera", "192.0.2.9", "socket-1")


class TestAddresses:
    @pytest.mark.parametrize(
        ("proxies", "forwarded", "address"),
        [
            (0, "198.51.100.1", HERE),
            (1, "198.51.100.1", "198.51.100.1"),
            (1, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
            (2, "203.0.113.9, 198.51.100.1", "203.0.113.9"),
            (1, "198.51.100.1:4711", "198.51.100.1"),
            (1, "[2001:db8::1]:4711", "2001:db8::1"),
            (1, "x\t<script>", "x\t<script>"),
        ],
    )
    def test_an_address_is_believed_as_far_as_there_are_proxies(
        self, resources: Resources, database: Database, proxies: int, forwarded: str, address: str
    ) -> None:
        from dataclasses import replace

        settings = resources.settings.model_copy(update={"proxy_count": proxies})
        client = create_app(replace(resources, settings=settings)).test_client()
        client.post("/api/v1/auth/login", json={"email": "x", "password": "x"}, headers={"X-Forwarded-For": forwarded})
        assert [row["address"] for row in trail_of(database)] == [address]


class TestActs:
    def test_approving_and_rejecting_tell_before_and_after(
        self, client: FlaskClient, database: Database, node: TestNode, admin: Principal, as_admin: dict[str, str]
    ) -> None:
        path = f"/api/v1/admin/workers/{node.id}/approve"
        client.patch(path, json={"is_approved": True, "group": "gpu"}, headers=as_admin)
        client.patch(path, json={"is_approved": False}, headers=as_admin)

        approved, rejected = trail_of(database)
        assert facts(approved, "action", "actor_id", "resource_type", "resource_id") == (
            "worker.approved",
            admin.id,
            "worker",
            node.id,
        )
        assert (approved["before"]["is_approved"], approved["after"]["is_approved"]) == (False, True)
        assert (approved["before"]["group"], approved["after"]["group"]) == (None, "gpu")
        assert facts(rejected, "action", "outcome") == ("worker.rejected", "done")

    def test_the_life_of_a_worker_is_told(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str]
    ) -> None:
        body = {"note": "rack 1", "group": "default"}
        token = client.post("/api/v1/admin/enrolment-tokens", json=body, headers=as_admin).get_json()
        enrolled = client.post(
            "/api/v1/workers/register",
            json={"name": "rack-1", "hostname": "rack-1", "ip_address": "10.0.0.1"},
            headers={"Authorization": f"Bearer {token['token']}"},
        ).get_json()
        worker = f"/api/v1/workers/{enrolled['id']}"
        client.patch(f"/api/v1/admin{worker[7:]}/approve", json={"is_approved": True}, headers=as_admin)
        assert client.post(f"{worker}/drain", headers=as_admin).status_code == 200
        assert client.post(f"{worker}/resume", headers=as_admin).status_code == 200
        assert client.delete(f"/api/v1/admin{worker[7:]}", headers=as_admin).status_code == 204

        rows = trail_of(database)
        assert [row["action"] for row in rows] == [
            "enrolment_token.created",
            "worker.enrolled",
            "worker.approved",
            "worker.drained",
            "worker.resumed",
            "worker.removed",
        ]
        assert facts(rows[0], "resource_id", "after") == (token["id"], body | {"expires_in_seconds": None})
        assert facts(rows[1], "actor_kind", "actor_id", "resource_id") == ("enrolment", token["id"], enrolled["id"])
        everything = str(rows)
        assert token["token"] not in everything
        assert enrolled["credential"] not in everything

    def test_the_same_request_again_is_no_second_act(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str]
    ) -> None:
        headers = as_admin | {"Idempotency-Key": "once"}
        for _ in range(2):
            assert client.post("/api/v1/admin/enrolment-tokens", json={}, headers=headers).status_code == 201
        assert len(trail_of(database)) == 1

    def test_reading_leaves_nothing(self, client: FlaskClient, database: Database, as_admin: dict[str, str]) -> None:
        for path in ("/workers", "/admin/workers", "/tasks", "/admin/audit", "/auth/me"):
            assert client.get(f"/api/v1{path}", headers=as_admin).status_code == 200
        assert trail_of(database) == []


class TestUses:
    def test_a_nodes_credential_in_use_is_told_once_for_each_address_and_day(
        self, client: FlaskClient, database: Database, node: TestNode, clock: FrozenClock
    ) -> None:
        for _ in range(3):
            node.beat()
        client.post(
            f"/api/v1/workers/{node.id}/heartbeat",
            json={"epoch": node.epoch},
            headers=node.headers,
            environ_overrides={"REMOTE_ADDR": "192.0.2.44"},
        )
        rows = trail_of(database, action="key.used")
        assert [facts(row, "actor_kind", "actor_name", "address") for row in rows] == [
            ("node", node.name, HERE),
            ("node", node.name, "192.0.2.44"),
        ]

        clock.advance(86400)
        node.beat()
        assert len(trail_of(database, action="key.used")) == 3

    def test_another_process_does_not_tell_it_again(self, resources: Resources, database: Database) -> None:
        node = TestNode(create_app(resources).test_client(), resources)
        node.beat()
        node._client = create_app(resources).test_client()
        node.beat()
        assert len(trail_of(database, action="key.used")) == 1

    def test_people_leave_nothing_by_using_their_token(
        self, client: FlaskClient, database: Database, as_viewer: dict[str, str]
    ) -> None:
        client.get("/api/v1/auth/me", headers=as_viewer)
        assert trail_of(database) == []
