"""Logging in, staying logged in, and being somebody."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from coordinator.config import Settings
from coordinator.domains.identity import service
from coordinator.domains.identity.models import principals
from coordinator.domains.identity.passwords import Cost, Passwords, passwords
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.people import credentials_of, hold, make_person

PASSWORD = "correct horse battery staple"


@pytest.fixture
def person(database: Database) -> Principal:
    return make_person(database, name="ada", email="Ada@Example.org", password=PASSWORD)


def log_in(client: FlaskClient, **body: Any) -> Any:
    response = client.post("/api/v1/auth/login", json=body)
    assert response.status_code == 200, response.json
    return response.json


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def change(database: Database, person: Principal, **values: Any) -> None:
    with database.write() as tx:
        tx.conn.execute(update(principals).where(principals.c.id == person.id).values(**values))


class TestLogIn:
    @pytest.mark.parametrize(
        "body",
        [
            {"email": "ada@example.org", "password": PASSWORD},
            {"email": "ADA@example.org", "password": PASSWORD},
            {"email": "ada", "password": PASSWORD},
            {"username": "ada", "password": PASSWORD},
            {"user": "ada", "pass": PASSWORD},
            {"name": "ada", "password": PASSWORD},
        ],
        ids=str,
    )
    def test_every_spelling_gives_a_pair_of_tokens(
        self, client: FlaskClient, person: Principal, body: dict[str, str], settings: Settings
    ) -> None:
        pair = log_in(client, **body)
        assert (pair["token_type"], pair["expires_in"]) == ("bearer", settings.access_token_seconds)
        assert (pair["user"]["id"], pair["user"]["email"]) == (person.id, "ada@example.org")
        me = client.get("/api/v1/auth/me", headers=bearer(pair["access_token"]))
        assert (me.status_code, me.json["name"] if me.json else None) == (200, "ada")

    @pytest.mark.parametrize("user", ["ada", "ada@example.org"])
    def test_v0_logs_in_by_name(
        self, client: FlaskClient, person: Principal, user: str, clock: FrozenClock, settings: Settings
    ) -> None:
        response = client.post("/api/v0/auth/login", json={"user": user, "pass": PASSWORD, "namespace": None})
        assert response.json is not None
        assert (response.json["token_type"], response.json["user"], response.json["role"]) == (
            "Bearer",
            "ada",
            "operator",
        )
        me = client.get("/api/v0/auth/me", headers=bearer(response.json["token"]))
        assert me.json == {"user": "ada", "namespace": None, "type": "Subject"}
        clock.advance(settings.v0_token_seconds - 1)
        assert client.get("/api/v0/auth/me", headers=bearer(response.json["token"])).status_code == 200
        clock.advance(1)
        assert client.get("/api/v0/auth/me", headers=bearer(response.json["token"])).status_code == 401

    def test_a_token_of_one_version_serves_the_other(self, client: FlaskClient, person: Principal) -> None:
        token = log_in(client, email="ada", password=PASSWORD)["access_token"]
        assert client.get("/api/v0/auth/me", headers=bearer(token)).status_code == 200

    def test_everything_that_is_wrong_gets_the_same_answer(self, client: FlaskClient, database: Database) -> None:
        make_person(database, name="ada", password=PASSWORD)
        gone = make_person(database, name="gone", password=PASSWORD)
        change(database, gone, active=False)
        make_person(database, name="keyless")
        tries = [("ada", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD), ("keyless", PASSWORD), ("ada", "x" * 1024)]
        answers = [client.post("/api/v1/auth/login", json={"email": who, "password": it}) for who, it in tries]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.data for answer in answers}) == 1

    @pytest.mark.parametrize(("user", "verifications"), [("ada", 1), ("nobody", 1), ("keyless", 1)])
    def test_an_unknown_name_costs_as_much_as_a_wrong_password(
        self,
        client: FlaskClient,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        user: str,
        verifications: int,
    ) -> None:
        make_person(database, name="ada", password=PASSWORD)
        make_person(database, name="keyless")
        counted: list[str] = []
        real = Passwords.matches

        def counting(self: Passwords, stored: str | None, given: str) -> bool:
            counted.append(given)
            return real(self, stored, given)

        monkeypatch.setattr(Passwords, "matches", counting)
        client.post("/api/v1/auth/login", json={"email": user, "password": "wrong"})
        assert len(counted) == verifications

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "email"),
            ({"email": "ada"}, "password"),
            ({"password": "x"}, "email"),
            ({"email": "ada", "password": ""}, "password"),
            ({"email": "ada", "password": 5}, "password"),
            ({"email": "ada", "password": "x", "role": "admin"}, "role"),
            ({"email": ["ada"], "password": "x"}, "email"),
        ],
        ids=str,
    )
    def test_a_body_without_the_two_values_names_what_is_wrong(
        self, client: FlaskClient, database: Database, body: dict[str, Any], field: str
    ) -> None:
        response = client.post("/api/v1/auth/login", json=body)
        assert response.json is not None
        assert (response.status_code, response.json["error"]["details"]["field"]) == (422, field)

    def test_a_login_is_noted(self, client: FlaskClient, person: Principal, clock: FrozenClock) -> None:
        token = log_in(client, email="ada", password=PASSWORD)["access_token"]
        me = client.get("/api/v1/auth/me", headers=bearer(token)).json
        assert me is not None
        assert me["last_login_at"] is not None

    def test_a_hash_of_yesterdays_cost_is_renewed(
        self, client: FlaskClient, person: Principal, database: Database
    ) -> None:
        change(database, person, password_hash=Passwords(Cost(16, 2, 1)).hash(PASSWORD))
        log_in(client, email="ada", password=PASSWORD)
        with database.read() as tx:
            found = service.find_active(tx, person.id)
        assert found is not None
        assert found.password_hash is not None
        assert "m=16,t=2" not in found.password_hash
        log_in(client, email="ada", password=PASSWORD)


class TestTokens:
    @pytest.mark.parametrize("path", ["/api/v1/auth/me", "/api/v0/auth/me"])
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"X-API-Key": "x"}], ids=str)
    def test_without_a_good_token_nobody_is_anybody(
        self, client: FlaskClient, database: Database, path: str, headers: dict[str, str]
    ) -> None:
        response = client.get(path, headers=headers)
        assert response.json is not None
        assert (response.status_code, response.json["error"]["code"]) == (401, "AUTHENTICATION_ERROR")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")

    def test_switching_somebody_off_ends_their_tokens_at_once(
        self, app: Flask, client: FlaskClient, person: Principal, database: Database
    ) -> None:
        headers = credentials_of(app, person)
        change(database, person, active=False)
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 401

    def test_a_changed_role_counts_at_once(
        self, app: Flask, client: FlaskClient, person: Principal, database: Database
    ) -> None:
        headers = credentials_of(app, person)
        hold(database, person, Role.ADMIN)
        me = client.get("/api/v1/auth/me", headers=headers).json
        assert me is not None
        assert me["role"] == "admin"

    def test_a_token_of_somebody_who_is_gone_is_refused(
        self, app: Flask, client: FlaskClient, person: Principal
    ) -> None:
        with app.app_context():
            token = app.extensions["longshore"].tokens.mint("access", person.id, seconds=60)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401

    def test_an_access_token_ends_after_half_an_hour(
        self, client: FlaskClient, person: Principal, clock: FrozenClock
    ) -> None:
        token = log_in(client, email="ada", password=PASSWORD)["access_token"]
        clock.advance(1799)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 200
        clock.advance(1)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401


class TestRefresh:
    def refresh(self, client: FlaskClient, token: str) -> Any:
        return client.post("/api/v1/auth/refresh", json={"refresh_token": token})

    def test_a_refresh_token_is_exchanged_for_a_new_pair(
        self, client: FlaskClient, person: Principal, clock: FrozenClock
    ) -> None:
        pair = log_in(client, email="ada", password=PASSWORD)
        clock.advance(3 * 86400)
        renewed = self.refresh(client, pair["refresh_token"])
        assert renewed.status_code == 200
        assert renewed.json["refresh_token"] != pair["refresh_token"]
        assert client.get("/api/v1/auth/me", headers=bearer(renewed.json["access_token"])).status_code == 200
        assert self.refresh(client, renewed.json["refresh_token"]).status_code == 200

    def test_a_refresh_token_shown_twice_ends_the_whole_login(self, client: FlaskClient, person: Principal) -> None:
        pair = log_in(client, email="ada", password=PASSWORD)
        other = log_in(client, email="ada", password=PASSWORD)
        renewed = self.refresh(client, pair["refresh_token"]).json
        assert self.refresh(client, pair["refresh_token"]).status_code == 401
        assert self.refresh(client, renewed["refresh_token"]).status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(renewed["access_token"])).status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(other["access_token"])).status_code == 200

    def test_it_ends_after_a_week(self, client: FlaskClient, person: Principal, clock: FrozenClock) -> None:
        pair = log_in(client, email="ada", password=PASSWORD)
        clock.advance(7 * 86400)
        assert self.refresh(client, pair["refresh_token"]).status_code == 401

    def test_it_is_of_no_use_to_somebody_who_was_switched_off(
        self, client: FlaskClient, person: Principal, database: Database
    ) -> None:
        pair = log_in(client, email="ada", password=PASSWORD)
        change(database, person, active=False)
        assert self.refresh(client, pair["refresh_token"]).status_code == 401

    def test_neither_kind_of_token_serves_as_the_other(self, client: FlaskClient, person: Principal) -> None:
        pair = log_in(client, email="ada", password=PASSWORD)
        assert self.refresh(client, pair["access_token"]).status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(pair["refresh_token"])).status_code == 401

    def test_sessions_whose_last_token_has_expired_are_forgotten(
        self, client: FlaskClient, person: Principal, database: Database, clock: FrozenClock
    ) -> None:
        log_in(client, email="ada", password=PASSWORD)
        with database.write() as tx:
            assert service.purge_sessions(tx) == 0
        clock.advance(7 * 86400)
        with database.write() as tx:
            assert service.purge_sessions(tx) == 1


class TestAdmin:
    def test_the_first_start_makes_the_admin_of_the_settings(
        self, client: FlaskClient, database: Database, settings: Settings
    ) -> None:
        with database.write() as tx:
            made = service.ensure_admin(tx, settings)
        assert (made.name, made.email, made.role) == ("admin", "admin@localhost", "admin")
        secret = settings.admin_password.get_secret_value()
        assert log_in(client, email="admin@localhost", password=secret)["user"]["role"] == "admin"
        assert log_in(client, email="admin", password=secret)["user"]["role"] == "admin"

    def test_a_second_start_changes_nothing(self, database: Database, settings: Settings) -> None:
        with database.write() as tx:
            made = service.ensure_admin(tx, settings)
            assert service.ensure_admin(tx, settings.model_copy(update={"admin_password": "other"})) == made

    def test_a_name_wins_over_an_equal_address(self, client: FlaskClient, database: Database) -> None:
        make_person(database, name="x@y.z", password="first of all")
        make_person(database, name="other", email="x@y.z", password="second of all")
        assert log_in(client, email="x@y.z", password="first of all")["user"]["name"] == "x@y.z"
        assert (
            client.post("/api/v1/auth/login", json={"email": "x@y.z", "password": "second of all"}).status_code == 401
        )

    def test_names_and_addresses_are_unique(self, database: Database) -> None:
        from sqlalchemy.exc import IntegrityError

        make_person(database, name="ada", email="a@b.c")
        for double in ({"name": "ada"}, {"name": "eve", "email": "A@B.C"}):
            with pytest.raises(IntegrityError):
                make_person(database, **double)  # type: ignore[arg-type]


def test_passwords_verify_only_themselves() -> None:
    hasher = passwords("low")
    stored = hasher.hash(PASSWORD)
    assert stored.startswith("$argon2id$")
    assert hasher.hash(PASSWORD) != stored
    assert hasher.matches(stored, PASSWORD)
    assert not hasher.matches(stored, PASSWORD + " ")
    assert not hasher.matches(None, PASSWORD)
    assert not hasher.matches("not a hash", PASSWORD)


def test_the_cost_of_real_passwords_is_not_that_of_tests() -> None:
    assert passwords("standard").hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords("standard").is_outdated(passwords("low").hash("x"))
