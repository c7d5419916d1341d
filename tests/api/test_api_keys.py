"""API keys: shown once, never more than their owner, noted when used, good for nothing once revoked."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from coordinator.domains.identity.models import api_keys, principals
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from shared.clock import FrozenClock, rfc3339
from shared.ids import new_id
from tests.factories.logins import bearer
from tests.factories.people import credentials_of, make_person
from tests.factories.statements import counted_statements
from tests.factories.trail import trail_of

URL = "/api/v1/security/api-keys"


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", role=Role.OPERATOR)


@pytest.fixture
def headers(app: Flask, ada: Principal) -> dict[str, str]:
    return credentials_of(app, ada)


def made(client: FlaskClient, headers: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"name": "ci", **fields}, headers=headers)
    assert answer.status_code == 201, answer.json
    assert answer.json is not None
    found: dict[str, Any] = answer.json
    return found


class TestMaking:
    def test_the_key_is_shown_once_and_only_its_digest_is_kept(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        shown = made(client, headers)
        assert shown["key"].startswith(f"lsk_{shown['id'].replace('-', '')}_")
        assert (shown["scopes"], shown["key"].startswith(shown["prefix"])) == (["read"], True)
        listed = client.get(URL, headers=headers).json
        assert listed is not None
        assert [(one["id"], "key" in one) for one in listed["api_keys"]] == [(shown["id"], False)]
        secret = shown["key"].rpartition("_")[2]
        with database.read() as tx:
            kept = str(tx.conn.execute(select(api_keys)).all())
        assert secret not in kept
        assert secret not in str(trail_of(database))
        assert secret not in shown["prefix"]

    def test_asking_again_with_the_same_idempotency_key_shows_no_key(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        once = {**headers, "Idempotency-Key": "make-one"}
        first, second = (client.post(URL, json={"name": "ci"}, headers=once).json for _ in range(2))
        assert first is not None
        assert second is not None
        assert (second["id"], "key" in second) == (first["id"], False)

    @pytest.mark.parametrize(
        "fields",
        [
            {"scopes": []},
            {"scopes": ["everything"]},
            {"scopes": ["unknown:get"]},
            {"scopes": ["tasks:"]},
            {"expires_at": "tomorrow"},
            {"expires_at": "2020-01-01T00:00:00Z"},
            {"plan": "huge"},
            {"principal_id": "01a203de-0000-7000-8000-000000000001"},
            {"name": ""},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(
        self, client: FlaskClient, headers: dict[str, str], fields: dict[str, Any]
    ) -> None:
        assert client.post(URL, json={"name": "ci", **fields}, headers=headers).status_code == 422

    @pytest.mark.parametrize("scope", ["admin", "users:read", "users:*", "workers:approve"])
    def test_nobody_gives_a_key_what_they_may_not_do(
        self, client: FlaskClient, headers: dict[str, str], scope: str
    ) -> None:
        assert client.post(URL, json={"name": "ci", "scopes": [scope]}, headers=headers).status_code == 403

    def test_nobody_gives_a_key_a_larger_plan_than_their_own(
        self, client: FlaskClient, headers: dict[str, str], ada: Principal, database: Database
    ) -> None:
        assert made(client, headers, plan="free")["plan"] == "free"
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.id == ada.id).values(plan="free"))
        assert client.post(URL, json={"name": "ci", "plan": "pro"}, headers=headers).status_code == 403


class TestUsing:
    @pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
    def test_it_comes_as_bearer_or_by_its_own_header(
        self, client: FlaskClient, headers: dict[str, str], header: str
    ) -> None:
        key = made(client, headers)["key"]
        shown = {header: f"Bearer {key}" if header == "Authorization" else key}
        answer = client.get("/api/v1/auth/me", headers=shown)
        assert (answer.status_code, answer.json["name"] if answer.json else None) == (200, "ada")

    @pytest.mark.parametrize(
        ("scopes", "reads", "writes"),
        [
            (["read"], 200, 403),
            (["write"], 200, 422),
            (["tasks:read"], 200, 403),
            (["tasks:write"], 403, 422),
            (["tasks:create"], 403, 422),
            (["agents:read"], 403, 403),
            (["agents:read", "tasks:*"], 200, 422),
        ],
        ids=str,
    )
    def test_it_may_what_its_scopes_say(
        self, client: FlaskClient, headers: dict[str, str], scopes: list[str], reads: int, writes: int
    ) -> None:
        key = bearer(made(client, headers, scopes=scopes)["key"])
        assert client.get("/api/v1/tasks", headers=key).status_code == reads
        assert client.post("/api/v1/tasks", json={}, headers=key).status_code == writes

    def test_and_never_more_than_its_owner_may_by_now(
        self, app: Flask, client: FlaskClient, database: Database
    ) -> None:
        root = make_person(database, name="root", role=Role.ADMIN)
        make_person(database, name="second", role=Role.ADMIN)
        key = bearer(made(client, credentials_of(app, root), scopes=["admin"])["key"])
        assert client.get("/api/v1/admin/users", headers=key).status_code == 200
        answer = client.patch(f"/api/v1/admin/users/{root.id}", json={"role": "viewer"}, headers=key)
        assert answer.status_code == 200
        assert client.get("/api/v1/admin/users", headers=key).status_code == 403

    def test_a_key_with_few_scopes_does_not_make_its_owner_more_of(
        self, app: Flask, client: FlaskClient, database: Database
    ) -> None:
        root = make_person(database, name="root", role=Role.ADMIN)
        key = bearer(made(client, credentials_of(app, root), scopes=["users:*"])["key"])
        body = {"email": "eve@example.org", "password": "Correct-horse-7-battery", "role": "admin"}
        assert client.post("/api/v1/admin/users", json=body, headers=key).status_code == 403

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/v1/security/api-keys"),
            ("POST", "/api/v1/auth/change-password"),
            ("POST", "/api/v1/auth/mfa/setup"),
            ("POST", "/api/v1/auth/mfa/disable"),
            ("POST", "/api/v1/auth/logout"),
            ("PUT", "/api/v1/auth/me"),
        ],
    )
    def test_a_key_cannot_be_made_more_of(
        self, app: Flask, client: FlaskClient, database: Database, method: str, path: str
    ) -> None:
        root = make_person(database, name="root", role=Role.ADMIN)
        key = bearer(made(client, credentials_of(app, root), scopes=["admin"])["key"])
        bodies = {
            "/api/v1/security/api-keys": {"name": "next"},
            "/api/v1/auth/change-password": {"current_password": "x", "new_password": "y"},
            "/api/v1/auth/mfa/disable": {"password": "x"},
        }
        answer = client.open(path, method=method, json=bodies.get(path, {}), headers=key)
        assert answer.status_code == 403

    def test_whatever_is_wrong_with_it_it_is_not_valid(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock, ada: Principal, database: Database
    ) -> None:
        ends = rfc3339(clock.now().replace(year=clock.now().year + 1))
        shown = made(client, headers, expires_at=ends)["key"]
        other = made(client, headers)["key"]
        beginning, _, secret = shown.rpartition("_")
        wrong = [
            f"{beginning}_{other.rpartition('_')[2]}",
            f"{beginning}_{secret[:-1]}",
            f"{shown}x",
            f"lsk_{new_id().replace('-', '')}_{secret}",
            "lsk_",
            f"lsk_x_{secret}",
        ]
        assert [client.get("/api/v1/auth/me", headers=bearer(each)).status_code for each in wrong] == [401] * len(wrong)
        assert client.get("/api/v1/auth/me", headers=bearer(shown)).status_code == 200
        clock.advance(366 * 86400)
        assert client.get("/api/v1/auth/me", headers=bearer(shown)).status_code == 401
        assert client.get("/api/v1/auth/me", headers=bearer(other)).status_code == 200
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.id == ada.id).values(active=False))
        assert client.get("/api/v1/auth/me", headers=bearer(other)).status_code == 401

    def test_coming_with_a_key_costs_one_query(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        key = bearer(made(client, headers)["key"])
        client.get("/api/v1/security/api-keys", headers=key)
        with counted_statements(database) as by_key:
            client.get("/api/v1/security/api-keys", headers=key)
        with counted_statements(database) as by_login:
            client.get("/api/v1/security/api-keys", headers=headers)
        assert len(by_key) == len(by_login)


class TestBeingNoted:
    def test_the_last_use_is_written_once_a_minute_and_in_no_request(
        self, app: Flask, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        clerk = app.extensions["longshore"].clerk
        key = bearer(made(client, headers)["key"])

        def last_used() -> Any:
            return client.get(URL, headers=headers).json["api_keys"][0]["last_used_at"]  # type: ignore[index]

        first = rfc3339(clock.now())
        client.get("/api/v1/auth/me", headers=key)
        assert last_used() is None
        clerk.settle()
        assert last_used() == first
        clock.advance(30)
        client.get("/api/v1/auth/me", headers=key)
        clerk.settle()
        assert last_used() == first
        clock.advance(30)
        client.get("/api/v1/auth/me", headers=key, environ_base={"REMOTE_ADDR": "198.51.100.4"})
        clerk.settle()
        assert last_used() == rfc3339(clock.now())

    def test_its_use_is_in_the_trail_once_for_each_address_and_day(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock, database: Database
    ) -> None:
        shown = made(client, headers)
        key = bearer(shown["key"])
        for address in ("198.51.100.4", "198.51.100.4", "198.51.100.5"):
            client.get("/api/v1/auth/me", headers=key, environ_base={"REMOTE_ADDR": address})
        clock.advance(86400)
        client.get("/api/v1/auth/me", headers=key, environ_base={"REMOTE_ADDR": "198.51.100.4"})
        rows = trail_of(database, action="key.used")
        assert [(row["credential_id"], row["address"]) for row in rows] == [
            (shown["id"], "198.51.100.4"),
            (shown["id"], "198.51.100.5"),
            (shown["id"], "198.51.100.4"),
        ]
        assert {(row["actor_kind"], row["actor_name"]) for row in rows} == {("api_key", "ada")}


class TestRevoking:
    def test_it_is_good_for_nothing_at_once(self, client: FlaskClient, headers: dict[str, str]) -> None:
        shown = made(client, headers)
        assert client.delete(f"{URL}/{shown['id']}", headers=headers).status_code == 204
        assert client.get("/api/v1/auth/me", headers=bearer(shown["key"])).status_code == 401
        assert client.get(URL, headers=headers).json["api_keys"] == []  # type: ignore[index]
        assert client.delete(f"{URL}/{shown['id']}", headers=headers).status_code == 404

    def test_nobody_sees_or_revokes_the_keys_of_others_but_admins(
        self, app: Flask, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        shown = made(client, headers)
        eve = credentials_of(app, make_person(database, name="eve"))
        assert client.get(URL, headers=eve).json["api_keys"] == []  # type: ignore[index]
        assert client.delete(f"{URL}/{shown['id']}", headers=eve).status_code == 404
        root = credentials_of(app, make_person(database, name="root", role=Role.ADMIN))
        assert client.delete(f"{URL}/{shown['id']}", headers=root).status_code == 204
        (row,) = trail_of(database, action="key.revoked")
        assert row["actor_name"] == "root"
