"""Looking after one's own account: registering, profile, password, sessions, going out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.app import create_app
from coordinator.config import Settings
from coordinator.domains.identity import logins, service
from coordinator.domains.identity.logins import Entry
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.resources import Resources, make_resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.logins import PASSWORD, bearer, headers_of, logged_in, tried
from tests.factories.people import make_person
from tests.factories.trail import trail_of

NEXT = "Another-horse-8-battery"
DAY = 86400


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", email="ada@example.org", password=PASSWORD)


@pytest.fixture
def headers(client: FlaskClient, ada: Principal) -> dict[str, str]:
    return headers_of(client, "ada")


@pytest.fixture
def admin(client: FlaskClient, database: Database) -> dict[str, str]:
    make_person(database, name="root", role=Role.ADMIN, password=PASSWORD)
    return headers_of(client, "root")


def decide(client: FlaskClient, admin: dict[str, str], **sections: Any) -> None:
    answer = client.put("/api/v1/security", json=sections, headers=admin)
    assert answer.status_code == 200, answer.json


class TestRegister:
    BODY: ClassVar[dict[str, str]] = {"email": "Eve@Example.org", "password": PASSWORD, "full_name": "Eve"}

    def test_on_loopback_anybody_gets_an_account_that_may_work(self, client: FlaskClient, database: Database) -> None:
        made = client.post("/api/v1/auth/register", json=self.BODY)
        assert made.status_code == 201
        assert made.json is not None
        assert (made.json["email"], made.json["name"], made.json["role"]) == (
            "eve@example.org",
            "eve@example.org",
            "operator",
        )
        assert logged_in(client, "EVE@example.org")["user"]["id"] == made.json["id"]
        (row,) = trail_of(database, action="user.registered")
        assert (row["actor_name"], row["resource_id"]) == ("eve@example.org", made.json["id"])

    @pytest.fixture
    def public(self, settings: Settings, resources: Resources, database: Database, clock: FrozenClock) -> Flask:
        opened = settings.model_copy(update={"bind": "0.0.0.0:9000"})
        made = make_resources(opened, database=database, clock=clock, redis=resources.redis)
        return create_app(made, check_replies=True)

    def test_beyond_loopback_it_is_off_until_an_admin_turns_it_on(self, public: Flask, database: Database) -> None:
        client = public.test_client()
        assert client.post("/api/v1/auth/register", json=self.BODY).status_code == 403
        make_person(database, name="root", role=Role.ADMIN, password=PASSWORD)
        decide(client, headers_of(client, "root"), registration={"allow_registration": True})
        made = client.post("/api/v1/auth/register", json=self.BODY)
        assert (made.status_code, made.json["role"] if made.json else None) == (201, "viewer")

    def test_an_admin_says_which_role_and_whether_at_all(self, client: FlaskClient, admin: dict[str, str]) -> None:
        decide(client, admin, registration={"default_role": "user"})
        made = client.post("/api/v1/auth/register", json=self.BODY)
        assert (made.status_code, made.json["role"] if made.json else None) == (201, "user")
        decide(client, admin, registration={"allow_registration": False})
        assert client.post("/api/v1/auth/register", json={**self.BODY, "email": "x@y.z"}).status_code == 403

    @pytest.mark.parametrize("field", ["role", "is_active", "plan", "kind", "roles", "id"])
    def test_nobody_chooses_their_own_role(self, client: FlaskClient, database: Database, field: str) -> None:
        answer = client.post("/api/v1/auth/register", json={**self.BODY, field: "admin"})
        assert answer.status_code == 422
        assert tried(client, "eve@example.org", PASSWORD).status_code == 401

    @pytest.mark.parametrize(
        "body",
        [
            {"email": "ADA@example.org"},
            {"email": "new@example.org", "name": "ada"},
        ],
        ids=str,
    )
    def test_nobody_takes_the_name_or_address_of_somebody_else(
        self, client: FlaskClient, ada: Principal, body: dict[str, str]
    ) -> None:
        answer = client.post("/api/v1/auth/register", json={**self.BODY, **body})
        assert answer.status_code == 409
        assert logged_in(client, "ada@example.org")["user"]["id"] == ada.id

    def test_nobody_waits_with_a_name_for_somebody_whose_address_it_is(
        self, client: FlaskClient, database: Database
    ) -> None:
        body = {**self.BODY, "name": "boss@example.org"}
        assert client.post("/api/v1/auth/register", json=body).status_code == 422
        own = client.post("/api/v1/auth/register", json={**self.BODY, "name": "EVE@example.org"})
        assert own.status_code == 201

    @pytest.mark.parametrize("email", ["", "nobody", "a@b@c", "a b@c.d", "@x.y", "a@", "x" * 320 + "@y.z"])
    def test_an_address_looks_like_one(self, client: FlaskClient, database: Database, email: str) -> None:
        assert client.post("/api/v1/auth/register", json={**self.BODY, "email": email}).status_code == 422

    @pytest.mark.parametrize(
        ("password", "reason"),
        [
            ("Sh0rt-word", "12 characters"),
            ("no-upper-case-7", "upper-case"),
            ("NO-LOWER-CASE-7", "lower-case"),
            ("No-digit-at-all", "digit"),
            ("NoSpecialCharacter7", "neither letter nor digit"),
        ],
    )
    def test_a_weak_password_is_refused_with_the_reason(
        self, client: FlaskClient, database: Database, password: str, reason: str
    ) -> None:
        answer = client.post("/api/v1/auth/register", json={**self.BODY, "password": password})
        assert answer.json is not None
        assert answer.status_code == 422
        assert reason in answer.json["error"]["details"]["reason"]
        assert password not in answer.text


class TestProfile:
    def test_one_changes_ones_own_name_and_address(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        body = {"full_name": "Ada L.", "email": "Ada.L@Example.org"}
        changed = client.put("/api/v1/auth/me", json=body, headers=headers)
        assert changed.json is not None
        assert (changed.status_code, changed.json["full_name"], changed.json["email"]) == (
            200,
            "Ada L.",
            "ada.l@example.org",
        )
        assert logged_in(client, "ada.l@example.org")
        (row,) = trail_of(database, action="user.changed")
        assert row["before"]["email"] == "ada@example.org"

    @pytest.mark.parametrize("field", ["role", "is_active", "plan", "name", "kind", "password"])
    def test_and_nothing_else(self, client: FlaskClient, headers: dict[str, str], field: str) -> None:
        assert client.put("/api/v1/auth/me", json={field: "admin"}, headers=headers).status_code == 422

    def test_not_to_an_address_or_name_of_somebody_else(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        make_person(database, name="eve@example.org", email="e@example.org")
        for taken in ("e@example.org", "eve@example.org"):
            assert client.put("/api/v1/auth/me", json={"email": taken}, headers=headers).status_code == 409

    def test_a_profile_that_was_changed_meanwhile_is_not_overwritten(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        tag = client.get("/api/v1/auth/me", headers=headers).headers["ETag"]
        client.put("/api/v1/auth/me", json={"full_name": "First"}, headers=headers)
        late = client.put("/api/v1/auth/me", json={"full_name": "Second"}, headers={**headers, "If-Match": tag})
        assert late.status_code == 412


class TestChangePassword:
    def change(self, client: FlaskClient, headers: dict[str, str], current: str, new: str) -> Any:
        body = {"current_password": current, "new_password": new}
        return client.post("/api/v1/auth/change-password", json=body, headers=headers)

    def test_the_new_one_is_good_and_all_other_sessions_end(
        self, client: FlaskClient, ada: Principal, headers: dict[str, str]
    ) -> None:
        others = [headers_of(client, "ada") for _ in range(2)]
        answer = self.change(client, headers, PASSWORD, NEXT)
        assert (answer.status_code, answer.json["ended_sessions"]) == (200, 2)
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 200
        assert {client.get("/api/v1/auth/me", headers=other).status_code for other in others} == {401}
        assert tried(client, "ada", PASSWORD).status_code == 401
        assert tried(client, "ada", NEXT).status_code == 200

    def test_it_needs_the_current_one_and_counts_guesses(
        self, client: FlaskClient, ada: Principal, headers: dict[str, str]
    ) -> None:
        for _ in range(5):
            assert self.change(client, headers, "wrong", NEXT).status_code == 400
        assert self.change(client, headers, PASSWORD, NEXT).status_code == 400

    @pytest.mark.parametrize("new", ["weak", PASSWORD])
    def test_a_weak_one_and_the_same_again_are_refused(
        self, client: FlaskClient, headers: dict[str, str], new: str
    ) -> None:
        assert self.change(client, headers, PASSWORD, new).status_code == 400

    def test_the_last_five_are_refused(self, client: FlaskClient, headers: dict[str, str]) -> None:
        words = [PASSWORD, *(f"Horse-number-{number}" for number in range(5))]
        for current, new in pairwise(words):
            assert self.change(client, headers, current, new).status_code == 200
        for former in words[1:]:
            assert self.change(client, headers, words[-1], former).status_code == 400
        assert self.change(client, headers, words[-1], words[0]).status_code == 200

    def test_neither_password_is_in_the_audit_trail(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        self.change(client, headers, PASSWORD, NEXT)
        told = str(trail_of(database))
        assert "user.password_changed" in told
        assert PASSWORD not in told
        assert NEXT not in told

    def test_an_old_password_lets_one_in_to_change_it_and_to_nothing_else(
        self, client: FlaskClient, ada: Principal, clock: FrozenClock
    ) -> None:
        clock.advance(90 * DAY - 1)
        assert logged_in(client, "ada")["password_expired"] is False
        clock.advance(1)
        pair = logged_in(client, "ada")
        assert (pair["password_expired"], pair["restricted"]) == (True, True)
        only = bearer(pair["access_token"])
        assert client.get("/api/v1/tasks", headers=only).status_code == 403
        assert client.post("/api/v1/tasks", json={}, headers=only).status_code == 403
        assert self.change(client, only, PASSWORD, NEXT).status_code == 200
        renewed = client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json
        assert renewed is not None
        assert renewed["restricted"] is False
        assert client.get("/api/v1/tasks", headers=bearer(renewed["access_token"])).status_code == 200

    def test_a_login_that_is_under_way_does_not_outlive_the_old_password(
        self,
        client: FlaskClient,
        ada: Principal,
        headers: dict[str, str],
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        clock: FrozenClock,
    ) -> None:
        real = logins.log_in

        def overtaken(*args: Any, **options: Any) -> Entry:
            entry = real(*args, **options)
            clock.advance(1)
            assert self.change(client, headers, PASSWORD, NEXT).status_code == 200
            return entry

        monkeypatch.setattr(logins, "log_in", overtaken)
        assert tried(client, "ada", PASSWORD).status_code == 401
        assert len(client.get("/api/v1/security/sessions", headers=headers).json["sessions"]) == 1  # type: ignore[index]
        assert "changed while" in trail_of(database, outcome="refused")[-1]["message"]

    def test_passwords_of_machines_do_not_age(
        self, client: FlaskClient, database: Database, clock: FrozenClock
    ) -> None:
        make_person(database, name="bot", password=PASSWORD, kind="service_account")
        clock.advance(365 * DAY)
        assert logged_in(client, "bot")["password_expired"] is False


class TestSessions:
    def listed(self, client: FlaskClient, headers: dict[str, str]) -> list[dict[str, Any]]:
        answer = client.get("/api/v1/security/sessions", headers=headers)
        assert answer.status_code == 200
        assert answer.json is not None
        found: list[dict[str, Any]] = answer.json["sessions"]
        return found

    def test_one_sees_ones_own_and_an_admin_sees_all(
        self, client: FlaskClient, ada: Principal, headers: dict[str, str], admin: dict[str, str]
    ) -> None:
        tried(client, "ada", PASSWORD, address="198.51.100.4")
        mine = self.listed(client, headers)
        assert {one["user_id"] for one in mine} == {ada.id}
        assert [(one["ip_address"], one["is_current"]) for one in mine] == [
            ("198.51.100.4", False),
            ("192.0.2.1", True),
        ]
        assert len(self.listed(client, admin)) == 3

    def test_one_ends_ones_own_and_nobody_elses(
        self, client: FlaskClient, ada: Principal, headers: dict[str, str], database: Database, admin: dict[str, str]
    ) -> None:
        make_person(database, name="eve", password=PASSWORD)
        eve = headers_of(client, "eve")
        (hers,) = self.listed(client, eve)
        url = f"/api/v1/security/sessions/{hers['id']}"
        assert client.delete(url, headers=headers).status_code == 404
        assert client.get("/api/v1/auth/me", headers=eve).status_code == 200
        assert client.delete(url, headers=admin).status_code == 204
        assert client.get("/api/v1/auth/me", headers=eve).status_code == 401
        assert client.delete(url, headers=admin).status_code == 404

    def test_logging_out_ends_this_session_at_once(self, client: FlaskClient, ada: Principal) -> None:
        pair = logged_in(client, "ada")
        assert client.post("/api/v1/auth/logout", headers=bearer(pair["access_token"])).status_code == 200
        assert client.get("/api/v1/auth/me", headers=bearer(pair["access_token"])).status_code == 401
        assert client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401

    def test_and_another_one_of_ones_own_but_of_nobody_else(
        self, client: FlaskClient, ada: Principal, database: Database
    ) -> None:
        make_person(database, name="eve", password=PASSWORD)
        first, second, hers = logged_in(client, "ada"), logged_in(client, "ada"), logged_in(client, "eve")
        for pair, other, ended in ((first, second, 2), (logged_in(client, "ada"), hers, 1)):
            body = {"refresh_token": other["refresh_token"]}
            answer = client.post("/api/v1/auth/logout", json=body, headers=bearer(pair["access_token"]))
            assert answer.json is not None
            assert answer.json["ended_sessions"] == ended
        assert client.get("/api/v1/auth/me", headers=bearer(second["access_token"])).status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(hers["access_token"])).status_code == 200

    def test_a_session_ends_when_it_has_lasted_as_long_as_one_may(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        decide(client, admin, session={"max_duration_hours": 1})
        pair = logged_in(client, "ada")
        clock.advance(3000)
        renewed = client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
        assert renewed.json is not None
        assert (renewed.status_code, renewed.json["expires_in"]) == (200, 600)
        clock.advance(600)
        assert client.get("/api/v1/auth/me", headers=bearer(renewed.json["access_token"])).status_code == 401
        again = client.post("/api/v1/auth/refresh", json={"refresh_token": renewed.json["refresh_token"]})
        assert again.status_code == 401

    def test_a_session_that_is_not_used_ends(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        decide(client, admin, session={"idle_timeout_minutes": 60})
        pair = logged_in(client, "ada")
        for _ in range(3):
            clock.advance(3599)
            answer = client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
            assert answer.status_code == 200
            assert answer.json is not None
            pair = answer.json
        clock.advance(3600)
        assert client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401

    def test_a_policy_that_is_made_stricter_counts_for_sessions_that_are_open(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        pair = logged_in(client, "ada")
        decide(client, admin, session={"max_duration_hours": 1})
        clock.advance(3600)
        assert client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401

    def test_the_oldest_makes_room_where_there_may_be_no_more(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], database: Database
    ) -> None:
        decide(client, admin, session={"max_concurrent_sessions": 2})
        first, second, third = (headers_of(client, "ada") for _ in range(3))
        statuses = [client.get("/api/v1/auth/me", headers=each).status_code for each in (first, second, third)]
        assert statuses == [401, 200, 200]
        (row,) = trail_of(database, action="session.ended")
        assert "oldest" in row["message"]

    def test_v0_tokens_end_with_the_session_too(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        decide(client, admin, session={"max_duration_hours": 1})
        token = client.post("/api/v0/auth/login", json={"user": "ada", "pass": PASSWORD}).json["token"]  # type: ignore[index]
        clock.advance(3599)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 200
        clock.advance(1)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401


def test_every_way_of_opening_a_session_says_what_kind_it_is(
    client: FlaskClient, ada: Principal, database: Database, headers: dict[str, str]
) -> None:
    client.post("/api/v0/auth/login", json={"user": "ada", "pass": PASSWORD})
    kinds = [one["kind"] for one in client.get("/api/v1/security/sessions", headers=headers).json["sessions"]]  # type: ignore[index]
    assert kinds == ["v0", "v1"]
    with database.read() as tx:
        assert service.find_active(tx, ada.id) is not None
