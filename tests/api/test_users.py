"""Users as admins look after them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity import binding_store, roles, users
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from shared.clock import FrozenClock
from shared.errors import Conflict
from shared.ids import new_id
from tests.factories.logins import PASSWORD, headers_of, logged_in, tried, with_second_factor
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import trail_of

URL = "/api/v1/admin/users"
NEXT = "Another-horse-8-battery"


@pytest.fixture
def root(database: Database) -> Principal:
    return make_person(database, role=Role.ADMIN, name="root", password=PASSWORD)


@pytest.fixture
def admin(app: Flask, root: Principal) -> dict[str, str]:
    return credentials_of(app, root)


def made(client: FlaskClient, admin: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"email": "eve@example.org", "password": PASSWORD, **fields}, headers=admin)
    assert answer.status_code == 201, answer.json
    assert answer.json is not None
    found: dict[str, Any] = answer.json
    return found


def changed(client: FlaskClient, admin: dict[str, str], user_id: str, **fields: Any) -> Any:
    return client.patch(f"{URL}/{user_id}", json=fields, headers=admin)


class TestMaking:
    def test_a_new_user_views_unless_a_role_is_named_and_logs_in_at_once(
        self, client: FlaskClient, admin: dict[str, str], root: Principal
    ) -> None:
        eve = made(client, admin, full_name="Eve")
        assert (eve["role"], eve["name"], eve["created_by"], eve["plan"]) == (
            "viewer",
            "eve@example.org",
            root.id,
            "enterprise",
        )
        assert logged_in(client, "eve@example.org")["user"]["id"] == eve["id"]
        other = made(client, admin, email="o@example.org", role="operator", plan="free", name="op", is_active=False)
        assert (other["role"], other["plan"], other["name"], other["is_active"]) == ("operator", "free", "op", False)
        assert tried(client, "op", PASSWORD).status_code == 401

    def test_one_of_a_name_is_enough(self, client: FlaskClient, admin: dict[str, str]) -> None:
        made(client, admin)
        again = client.post(URL, json={"email": "EVE@example.org", "password": PASSWORD}, headers=admin)
        assert again.status_code == 409

    @pytest.mark.parametrize(
        "fields",
        [{"password": "weak"}, {"role": "emperor"}, {"plan": "huge"}, {"email": "x"}, {"roles": ["admin"]}],
        ids=str,
    )
    def test_what_cannot_be_is_refused(
        self, client: FlaskClient, admin: dict[str, str], fields: dict[str, Any]
    ) -> None:
        body = {"email": "eve@example.org", "password": PASSWORD, **fields}
        assert client.post(URL, json=body, headers=admin).status_code == 422

    def test_the_password_is_in_no_answer_and_in_no_row_of_the_trail(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        eve = made(client, admin)
        assert PASSWORD not in str(eve)
        (row,) = trail_of(database, action="user.created")
        assert (row["resource_id"], row["after"]["role"]) == (eve["id"], "viewer")
        assert PASSWORD not in str(row)

    def test_they_are_listed_newest_first_and_machines_are_not(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        make_person(database, name="bot", kind="service_account")
        made(client, admin)
        answer = client.get(URL, headers=admin)
        assert answer.json is not None
        assert [one["name"] for one in answer.json["users"]] == ["eve@example.org", "root"]
        assert answer.json["pagination"]["total"] == 2


class TestChanging:
    def test_a_role_is_another_at_once_and_the_trail_has_both(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        eve = made(client, admin)
        hers = headers_of(client, "eve@example.org")
        assert client.post("/api/v1/tasks", json={}, headers=hers).status_code == 403
        answer = changed(client, admin, eve["id"], role="operator", full_name="Eve")
        assert (answer.status_code, answer.json["role"]) == (200, "operator")
        assert client.post("/api/v1/tasks", json={}, headers=hers).status_code == 422
        (row,) = trail_of(database, action="user.changed")
        assert (row["before"]["role"], row["after"]["role"]) == ("viewer", "operator")

    def test_whoever_is_switched_off_is_out_at_once(self, client: FlaskClient, admin: dict[str, str]) -> None:
        eve = made(client, admin)
        hers = headers_of(client, "eve@example.org")
        assert changed(client, admin, eve["id"], is_active=False).status_code == 200
        assert client.get("/api/v1/auth/me", headers=hers).status_code == 401
        assert changed(client, admin, eve["id"], is_active=True).status_code == 200
        # The session of before stays over.
        assert client.get("/api/v1/auth/me", headers=hers).status_code == 401
        assert logged_in(client, "eve@example.org")

    def test_a_password_that_is_reset_ends_all_sessions(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        eve = made(client, admin)
        hers = headers_of(client, "eve@example.org")
        assert changed(client, admin, eve["id"], password="weak").status_code == 422
        assert changed(client, admin, eve["id"], password=NEXT).status_code == 200
        assert client.get("/api/v1/auth/me", headers=hers).status_code == 401
        assert logged_in(client, "eve@example.org", NEXT)
        (row,) = trail_of(database, action="user.password_reset")
        assert NEXT not in str(row)

    def test_a_lost_second_factor_is_taken_away(
        self, client: FlaskClient, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        eve = made(client, admin)
        with_second_factor(client, headers_of(client, "eve@example.org"), clock)
        assert client.get(f"{URL}/{eve['id']}", headers=admin).json["mfa_enabled"] is True  # type: ignore[index]
        assert changed(client, admin, eve["id"], reset_mfa=True).json["mfa_enabled"] is False
        assert logged_in(client, "eve@example.org")["mfa_required"] is False

    def test_a_lock_out_is_ended(self, client: FlaskClient, admin: dict[str, str]) -> None:
        eve = made(client, admin)
        for _ in range(5):
            tried(client, "eve@example.org", "wrong")
        assert tried(client, "eve@example.org", PASSWORD).status_code == 401
        assert changed(client, admin, eve["id"], unlock=True).status_code == 200
        assert tried(client, "eve@example.org", PASSWORD).status_code == 200

    def test_a_user_that_was_changed_meanwhile_is_not_overwritten(
        self, client: FlaskClient, admin: dict[str, str]
    ) -> None:
        eve = made(client, admin)
        tag = client.get(f"{URL}/{eve['id']}", headers=admin).headers["ETag"]
        changed(client, admin, eve["id"], full_name="First")
        late = changed(client, {**admin, "If-Match": tag}, eve["id"], full_name="Second")
        assert late.status_code == 412

    def test_an_address_of_somebody_else_is_taken(self, client: FlaskClient, admin: dict[str, str]) -> None:
        eve = made(client, admin)
        made(client, admin, email="o@example.org")
        assert changed(client, admin, eve["id"], email="O@example.org").status_code == 409

    def test_a_machine_shows_as_long_as_it_is_an_admin(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        bot = make_person(database, name="bot", kind="service_account", role=Role.ADMIN)
        assert client.get(f"{URL}/{bot.id}", headers=admin).status_code == 200
        answer = changed(client, admin, bot.id, role="viewer")
        assert (answer.status_code, answer.json["role"]) == (200, "viewer")
        assert client.get(f"{URL}/{bot.id}", headers=admin).status_code == 404

    def test_nobody_is_not_found(self, client: FlaskClient, admin: dict[str, str], database: Database) -> None:
        bot = make_person(database, name="bot", kind="service_account")
        for id_ in (new_id(), bot.id):
            assert client.get(f"{URL}/{id_}", headers=admin).status_code == 404
            assert changed(client, admin, id_, role="admin").status_code == 404
            assert client.delete(f"{URL}/{id_}", headers=admin).status_code == 404


class TestDeleting:
    def test_a_user_goes_with_sessions_and_the_trail_stays(
        self, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        eve = made(client, admin)
        hers = headers_of(client, "eve@example.org")
        assert client.delete(f"{URL}/{eve['id']}", headers=admin).status_code == 204
        assert client.get("/api/v1/auth/me", headers=hers).status_code == 401
        assert client.get(f"{URL}/{eve['id']}", headers=admin).status_code == 404
        (row,) = trail_of(database, action="user.deleted")
        assert row["before"]["email"] == "eve@example.org"
        assert trail_of(database, action="session.opened", actor_id=eve["id"])


class TestTheLastAdmin:
    @pytest.mark.parametrize("fields", [{"role": "operator"}, {"is_active": False}], ids=str)
    def test_stays_one(
        self, client: FlaskClient, admin: dict[str, str], root: Principal, fields: dict[str, Any], database: Database
    ) -> None:
        assert changed(client, admin, root.id, **fields).status_code == 409
        assert client.delete(f"{URL}/{root.id}", headers=admin).status_code == 409
        assert client.get("/api/v1/auth/me", headers=admin).json["role"] == "admin"  # type: ignore[index]
        make_person(database, role=Role.ADMIN, name="second")
        assert changed(client, admin, root.id, **fields).status_code == 200

    def test_an_admin_who_is_switched_off_is_no_second_one(
        self, client: FlaskClient, admin: dict[str, str], root: Principal, database: Database
    ) -> None:
        second = make_person(database, role=Role.ADMIN, name="second")
        assert changed(client, admin, second.id, is_active=False).status_code == 200
        assert client.delete(f"{URL}/{root.id}", headers=admin).status_code == 409

    def test_two_that_go_at_the_same_time_do_not_both_go(self, root: Principal, database: Database) -> None:
        second = make_person(database, role=Role.ADMIN, name="second")
        together, refused = threading.Barrier(2), []

        def leave(user_id: str) -> None:
            together.wait(30)
            try:
                with database.write() as tx:
                    users.give_role(tx, users.locked(tx, user_id), Role.VIEWER, by=None)
            except Conflict as error:
                refused.append(error)

        threads = [threading.Thread(target=leave, args=(one.id,)) for one in (root, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1


class TestStanding:
    @pytest.fixture
    def keeper(self, app: Flask, database: Database) -> dict[str, str]:
        """Somebody who may look after users and has no more rights than an operator otherwise."""
        person = make_person(database, role=Role.OPERATOR, name="keeper")
        body = {"name": "user-keeper", "rules": [{"resources": ["users"], "verbs": ["*"], "api_groups": ["*"]}]}
        with database.write() as tx:
            role = roles.add(tx, body, by=person.id)
            binding_store.bind(tx, principal_id=person.id, role_id=role.id, space=None, by=None)
        return credentials_of(app, person)

    def test_nobody_gives_a_role_that_grants_more_than_they_hold(
        self, client: FlaskClient, keeper: dict[str, str], database: Database
    ) -> None:
        body = {"email": "eve@example.org", "password": PASSWORD}
        assert client.post(URL, json={**body, "role": "admin"}, headers=keeper).status_code == 403
        eve = client.post(URL, json={**body, "role": "operator"}, headers=keeper)
        assert eve.status_code == 201
        assert eve.json is not None
        assert changed(client, keeper, eve.json["id"], role="admin").status_code == 403

    def test_nobody_takes_over_somebody_who_may_do_more(
        self, client: FlaskClient, keeper: dict[str, str], root: Principal
    ) -> None:
        for fields in ({"password": NEXT}, {"email": "mine@example.org"}, {"reset_mfa": True}, {"is_active": False}):
            assert changed(client, keeper, root.id, **fields).status_code == 403
        assert client.delete(f"{URL}/{root.id}", headers=keeper).status_code == 403
