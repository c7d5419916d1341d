"""Coming in by name, by each of the published ways, and acting as somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from coordinator.domains.identity.models import login_sessions
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from shared.clock import FrozenClock, rfc3339
from tests.factories.logins import code_of, with_second_factor
from tests.factories.people import credentials_of, hold, make_person
from tests.factories.spaces import V0Caller, make_space
from tests.factories.trail import trail_of
from tests.factories.work import refused, told

PASSWORD = "correct horse battery staple"
WAYS = [
    ("/auth/internal", {"user": "ada", "pass": PASSWORD, "namespace": "acme"}),
    ("/auth/internal", {"user": "ada", "pass": PASSWORD, "namespace": None}),
    ("/auth/login", {"user": "ada", "pass": PASSWORD}),
    ("/operators/ada/login", {"pass": PASSWORD}),
    ("/operators/ada/login", {"user": "ada", "pass": PASSWORD}),
]


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", email="ada@example.org", password=PASSWORD, role=Role.VIEWER)


@pytest.fixture
def admin(app: Flask, database: Database) -> V0Caller:
    return V0Caller(app, make_person(database, name="admin", role=Role.ADMIN))


def with_token(client: FlaskClient, token: str, path: str) -> Any:
    return client.get(f"/api/v0{path}", headers={"Authorization": f"Bearer {token}"})


class TestComingIn:
    @pytest.mark.parametrize(("path", "body"), WAYS, ids=str)
    def test_every_way_gives_a_token_for_a_day(
        self, client: FlaskClient, ada: Principal, clock: FrozenClock, path: str, body: dict[str, Any]
    ) -> None:
        answer = told(client.post(f"/api/v0{path}", json=body))
        assert {name: answer[name] for name in ("token_type", "user", "role")} == {
            "token_type": "Bearer",
            "user": "ada",
            "role": "viewer",
        }
        token = answer["token"]
        clock.advance(86_399)
        assert told(with_token(client, token, "/auth/me"))["user"] == "ada"
        assert answer["expires_at"] > rfc3339(clock.now())
        clock.advance(2)
        assert with_token(client, token, "/auth/me").status_code == 401

    def test_the_session_tells_from_where_it_is(self, client: FlaskClient, ada: Principal, database: Database) -> None:
        told(
            client.post(
                "/api/v0/auth/internal",
                json=WAYS[0][1],
                headers={"User-Agent": "raworc-cli/1"},
                environ_overrides={"REMOTE_ADDR": "192.0.2.9"},
            )
        )
        with database.read() as tx:
            (row,) = tx.conn.execute(select(login_sessions)).all()
        assert (row.kind, row.address, row.user_agent) == ("v0", "192.0.2.9", "raworc-cli/1")
        (told_row,) = trail_of(database, action="session.opened")
        assert (told_row["actor_name"], told_row["address"]) == ("ada", "192.0.2.9")

    def test_everything_that_is_wrong_is_wrong_in_the_same_words(
        self, client: FlaskClient, database: Database, ada: Principal, admin: V0Caller
    ) -> None:
        make_person(database, name="off", password=PASSWORD, role=None)
        told(admin.post("/operators", {"user": "gone", "pass": PASSWORD}), 201)
        told(admin.put("/operators/gone", {"active": False}))
        answers = [
            client.post(f"/api/v0{path}", json=body)
            for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD))
            for path, body in (
                ("/auth/internal", {"user": name, "pass": password}),
                ("/auth/login", {"user": name, "pass": password}),
                (f"/operators/{name}/login", {"pass": password}),
            )
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.data for answer in answers}) == 1

    @pytest.mark.parametrize(("path", "body"), WAYS, ids=str)
    @pytest.mark.parametrize("word", ["code", "totp_code"])
    def test_a_second_factor_is_asked_for_here_too(
        self, app: Flask, ada: Principal, clock: FrozenClock, path: str, body: dict[str, Any], word: str
    ) -> None:
        client = app.test_client()
        secret = with_second_factor(client, credentials_of(app, ada), clock)["secret"]
        clock.advance(60)
        without = client.post(f"/api/v0{path}", json=body)
        assert without.status_code == 401
        assert without.data == client.post(f"/api/v0{path}", json={**body, "pass": "wrong"}).data
        refused(client.post(f"/api/v0{path}", json={**body, word: "000000"}), 401)
        told(client.post(f"/api/v0{path}", json={**body, word: code_of(secret, clock)}))

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("/operators/ada/login", {"user": "admin", "pass": PASSWORD}, 400),
            ("/operators/ada/login", {}, 422),
            ("/auth/internal", {"user": "ada"}, 422),
            ("/auth/internal", {"pass": PASSWORD}, 422),
        ],
    )
    def test_what_cannot_be_judged_is_said_to_be_so(
        self, client: FlaskClient, ada: Principal, path: str, body: dict[str, str], status: int
    ) -> None:
        refused(client.post(f"/api/v0{path}", json=body), status)


class TestWhoOneIs:
    @pytest.mark.parametrize(
        ("role", "me", "auth"),
        [(Role.ADMIN, "ServiceAccount", "Operator"), (Role.VIEWER, "Subject", "Subject"), (None, "Subject", "Subject")],
    )
    def test_people(self, app: Flask, database: Database, role: Role | None, me: str, auth: str) -> None:
        somebody = V0Caller.make(app, database, role)
        name = somebody.person.name
        assert told(somebody.get("/auth/me")) == {"user": name, "namespace": None, "type": me}
        assert told(somebody.get("/auth")) == {"user": name, "namespace": None, "type": auth}

    @pytest.mark.parametrize("view", ["/operators", "/service-accounts"])
    def test_accounts(self, client: FlaskClient, admin: V0Caller, view: str) -> None:
        told(admin.post(view, {"user": "bot", "pass": PASSWORD}), 201)
        token = told(client.post("/api/v0/auth/login", json={"user": "bot", "pass": PASSWORD}))["token"]
        assert told(with_token(client, token, "/auth/me"))["type"] == "ServiceAccount"
        assert told(with_token(client, token, "/auth"))["type"] == "Operator"


class TestActingAsSomebodyElse:
    @pytest.mark.parametrize("word", ["type", "principal_type"])
    def test_a_user_that_nobody_has_heard_of_is_made(
        self, client: FlaskClient, admin: V0Caller, database: Database, word: str
    ) -> None:
        first = told(admin.post("/auth/token", {"principal": "eve@example.org", word: "User"}))
        assert (first["user"], first["role"], first["token_type"]) == ("eve@example.org", "user", "Bearer")
        assert told(with_token(client, first["token"], "/auth"))["type"] == "Subject"
        again = told(admin.post("/auth/token", {"principal": "eve@example.org", word: "User"}))
        assert again["token"] != first["token"]
        assert client.post("/api/v0/auth/login", json={"user": "eve@example.org", "pass": PASSWORD}).status_code == 401
        issued = trail_of(database, action="token.issued")
        assert [row["actor_name"] for row in issued] == ["admin", "admin"]
        assert issued[0]["after"]["principal"] == "eve@example.org"
        assert first["token"] not in str(issued)

    def test_an_operator_must_be_there_and_switched_on(self, client: FlaskClient, admin: V0Caller) -> None:
        refused(admin.post("/auth/token", {"principal": "bot", "type": "Operator"}), 404)
        told(admin.post("/operators", {"user": "bot", "pass": PASSWORD}), 201)
        token = told(admin.post("/auth/token", {"principal": "bot", "type": "Operator"}))["token"]
        assert told(with_token(client, token, "/auth"))["user"] == "bot"
        refused(admin.post("/auth/token", {"principal": "bot", "type": "User"}), 409)
        told(admin.put("/operators/bot", {"active": False}))
        refused(admin.post("/auth/token", {"principal": "bot", "type": "Operator"}), 409)
        assert with_token(client, token, "/auth").status_code == 401

    @pytest.mark.parametrize("type_", ["User", "Operator"])
    def test_an_admin_is_of_both_types(self, admin: V0Caller, type_: str) -> None:
        assert told(admin.post("/auth/token", {"principal": "admin", "type": type_}))["role"] == "admin"

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"principal": "eve"},
            {"type": "User"},
            {"principal": "eve", "type": "Robot"},
            {"principal": "eve", "type": "User", "principal_type": "Operator"},
            {"principal": "e v e", "type": "User"},
            {"principal": "eve\r\nX: y", "type": "User"},
        ],
        ids=str,
    )
    def test_what_names_nobody_is_refused(self, admin: V0Caller, body: dict[str, str]) -> None:
        refused(admin.post("/auth/token", body), 422)

    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.DEVELOPER, Role.VIEWER, Role.USER, None])
    def test_nobody_but_an_admin_gets_one(self, app: Flask, database: Database, role: Role | None) -> None:
        somebody = V0Caller.make(app, database, role)
        refused(somebody.post("/auth/token", {"principal": somebody.person.name, "type": "User"}), 403)

    def test_whoever_was_given_that_right_acts_as_nobody_who_may_more(
        self, app: Flask, database: Database, admin: V0Caller
    ) -> None:
        rules = [{"resources": ["tokens"], "verbs": ["create"]}]
        told(admin.post("/roles", {"name": "issuer", "rules": rules}), 201)
        issuer, equal = V0Caller.make(app, database, Role.VIEWER), V0Caller.make(app, database, Role.VIEWER)
        told(admin.post("/role-bindings", {"role_name": "issuer", "principal": issuer.person.name}), 201)
        make_space(database, "team")
        chief = V0Caller.make(app, database)
        hold(database, chief.person, Role.DEVELOPER, space="team")
        told(issuer.post("/auth/token", {"principal": equal.person.name, "type": "User"}))
        for person in (admin, chief):
            refused(issuer.post("/auth/token", {"principal": person.person.name, "type": "User"}), 403)
