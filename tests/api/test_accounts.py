"""Service accounts and operators: one table under two names."""

from __future__ import annotations

from typing import ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.store.database import Database
from shared.ids import new_id
from tests.factories.people import make_person
from tests.factories.spaces import V0Caller
from tests.factories.trail import trail_of
from tests.factories.work import refused, told

VIEWS = ["/service-accounts", "/operators"]
PASSWORD = "a long enough secret"


@pytest.fixture
def admin(app: Flask, database: Database) -> V0Caller:
    return V0Caller(app, make_person(database, role=Role.ADMIN, name="admin", password=PASSWORD))


def log_in(client: FlaskClient, name: str, password: str = PASSWORD) -> V0Caller | None:
    """Somebody with the token of a login, or None when it was refused."""
    answer = client.post("/api/v0/auth/login", json={"user": name, "pass": password})
    if answer.status_code == 401:
        return None
    caller = V0Caller.__new__(V0Caller)
    caller.client = client
    caller.headers = {"Authorization": f"Bearer {told(answer)['token']}"}
    return caller


def make(admin: V0Caller, view: str = "/service-accounts", name: str = "bot", **fields: object) -> dict[str, object]:
    return told(admin.post(view, {"user": name, "pass": PASSWORD, **fields}), 201)


def listed(caller: V0Caller, view: str) -> list[str]:
    answer = caller.get(view)
    assert answer.status_code == 200
    return [each["user"] for each in answer.get_json()]


class TestTwoViewsOfOneTable:
    @pytest.mark.parametrize("view", VIEWS)
    def test_what_is_made_in_one_shows_in_both(self, admin: V0Caller, view: str) -> None:
        made = make(
            admin, view, description="nightly", namespace="somewhere", space="elsewhere", scope="x", role="admin"
        )
        assert made == {
            "id": made["id"],
            "user": "bot",
            "namespace": None,
            "space": None,
            "scope": None,
            "description": "nightly",
            "active": True,
            "created_at": made["created_at"],
            "updated_at": made["updated_at"],
            "last_login_at": None,
        }
        for each in VIEWS:
            assert told(admin.get(f"{each}/bot")) == made
            assert listed(admin, each) == ["bot", "admin"]

    def test_people_are_no_accounts_unless_they_are_admins(self, admin: V0Caller, database: Database) -> None:
        make_person(database, role=Role.OPERATOR, name="ada")
        for view in VIEWS:
            assert listed(admin, view) == ["admin"]
            refused(admin.get(f"{view}/ada"), 404)
            refused(admin.delete(f"{view}/ada"), 404)
            assert told(admin.get(f"{view}/admin"))["user"] == "admin"

    def test_service_accounts_go_by_id_too(self, admin: V0Caller) -> None:
        made = make(admin)
        assert told(admin.get(f"/service-accounts/{made['id']}")) == made
        refused(admin.get(f"/operators/{made['id']}"), 404)
        refused(admin.get(f"/service-accounts/{new_id()}"), 404)

    @pytest.mark.parametrize("view", VIEWS)
    @pytest.mark.parametrize(
        "name", ["", "a b", "a/b", "ä", "a\n", "x" * 256, "01a203de-0000-7000-8000-000000000001"], ids=repr
    )
    def test_names_are_plain(self, admin: V0Caller, view: str, name: str) -> None:
        assert refused(admin.post(view, {"user": name, "pass": PASSWORD}), 422)["field"] == "user"

    @pytest.mark.parametrize("body", [{"user": "bot"}, {"pass": PASSWORD}, {"user": "bot", "pass": "short"}], ids=str)
    def test_what_is_no_account_is_refused(self, admin: V0Caller, body: dict[str, str]) -> None:
        refused(admin.post("/operators", body), 422)

    def test_a_name_is_taken_once_in_both(self, admin: V0Caller) -> None:
        make(admin)
        for view in VIEWS:
            refused(admin.post(view, {"user": "bot", "pass": PASSWORD}), 409)
            refused(admin.post(view, {"user": "admin", "pass": PASSWORD}), 409)

    def test_the_same_request_again_makes_nothing_anew(self, admin: V0Caller) -> None:
        headers = {"Idempotency-Key": "once"}
        first, again = (admin.post("/operators", {"user": "bot", "pass": PASSWORD}, headers=headers) for _ in range(2))
        assert told(first, 201) == told(again, 201)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert first.headers["Location"] == "/api/v0/operators/bot"

    def test_pages(self, admin: V0Caller) -> None:
        for number in range(3):
            make(admin, name=f"bot-{number}")
        answer = admin.get("/operators?limit=2&offset=1")
        assert [each["user"] for each in answer.get_json()] == ["bot-1", "bot-0"]
        assert answer.headers["X-Total-Count"] == "4"


class TestWhatTheyMay:
    def test_a_new_one_logs_in_and_may_nothing_else(self, admin: V0Caller, client: FlaskClient) -> None:
        make(admin)
        bot = log_in(client, "bot")
        assert bot is not None
        assert told(bot.get("/auth/me"))["user"] == "bot"
        assert told(admin.get("/operators/bot"))["last_login_at"] is not None
        for path in ("/api/v1/tasks", "/operators", "/roles", "/service-accounts/bot"):
            refused(bot.get(path), 403)

    def test_one_that_is_switched_off_is_out_at_once_and_cannot_come_back(
        self, admin: V0Caller, client: FlaskClient
    ) -> None:
        make(admin)
        bot = log_in(client, "bot")
        assert bot is not None
        off = told(admin.put("/operators/bot", {"active": False, "description": "off", "user": "other"}))
        assert (off["active"], off["description"], off["user"]) == (False, "off", "bot")
        refused(bot.get("/auth/me"), 401)
        assert log_in(client, "bot") is None
        told(admin.put("/service-accounts/bot", {"active": True}))
        refused(bot.get("/auth/me"), 401)
        assert log_in(client, "bot") is not None

    def test_one_that_is_deleted_is_gone(self, admin: V0Caller, client: FlaskClient) -> None:
        made = make(admin)
        bot = log_in(client, "bot")
        assert bot is not None
        assert admin.delete(f"/service-accounts/{made['id']}").status_code == 204
        refused(bot.get("/auth/me"), 401)
        refused(admin.delete("/operators/bot"), 404)
        assert make(admin)["id"] != made["id"]

    @pytest.mark.parametrize("view", VIEWS)
    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.VIEWER, Role.USER, None])
    def test_others_see_and_change_none(self, app: Flask, database: Database, view: str, role: Role | None) -> None:
        make_person(database, role=Role.ADMIN, name="admin")
        somebody = V0Caller.make(app, database, role)
        for answer in (
            somebody.get(view),
            somebody.get(f"{view}/admin"),
            somebody.post(view, {"user": "bot", "pass": PASSWORD}),
            somebody.put(f"{view}/admin", {"active": False}),
            somebody.delete(f"{view}/admin"),
            somebody.put(f"{view}/admin/password", {"new_password": PASSWORD}),
            somebody.put(f"{view}/nobody/password", {"new_password": PASSWORD}),
        ):
            refused(answer, 403)

    def test_the_last_admin_stays(self, admin: V0Caller, app: Flask, database: Database) -> None:
        refused(admin.delete("/operators/admin"), 409)
        refused(admin.put("/service-accounts/admin", {"active": False}), 409)
        V0Caller.make(app, database, Role.ADMIN)
        assert admin.delete("/operators/admin").status_code == 204

    def test_an_admin_that_is_switched_off_does_not_count(
        self, admin: V0Caller, app: Flask, database: Database
    ) -> None:
        other = V0Caller.make(app, database, Role.ADMIN)
        told(admin.put(f"/operators/{other.person.name}", {"active": False}))
        refused(admin.delete("/operators/admin"), 409)

    def test_who_may_look_after_accounts_does_not_touch_those_who_may_more(
        self, admin: V0Caller, app: Flask, database: Database
    ) -> None:
        rule = {"resources": ["operators", "service-accounts"], "verbs": ["*"]}
        told(admin.post("/roles", {"name": "keeper", "rules": [rule]}), 201)
        keeper = V0Caller.make(app, database)
        told(admin.post("/role-bindings", {"role_name": "keeper", "principal": keeper.person.name}), 201)
        make(keeper)
        told(keeper.put("/operators/bot", {"description": "mine"}))
        assert keeper.put("/operators/bot/password", {"new_password": "another secret"}).status_code == 204
        for answer in (
            keeper.put("/operators/admin", {"description": "mine"}),
            keeper.delete("/operators/admin"),
            keeper.put("/operators/admin/password", {"new_password": "Another-secret-1"}),
        ):
            refused(answer, 403)

    def test_what_was_done_is_in_the_trail_without_the_password(self, admin: V0Caller, database: Database) -> None:
        make(admin)
        told(admin.put("/operators/bot", {"active": False}))
        admin.put("/operators/bot/password", {"new_password": "another secret"})
        admin.delete("/operators/bot")
        rows = trail_of(database, outcome="done", resource_type="user")
        assert [row["action"] for row in rows] == [
            "user.created",
            "user.changed",
            "user.password_reset",
            "user.deleted",
        ]
        assert (rows[1]["before"]["active"], rows[1]["after"]["active"]) == (True, False)
        assert PASSWORD not in str(rows)
        assert "another secret" not in str(rows)


@pytest.mark.parametrize("view", VIEWS)
class TestPasswords:
    NEXT: ClassVar[str] = "quite another secret"

    def test_ones_own_needs_the_present_one_and_ends_other_sessions(
        self, admin: V0Caller, client: FlaskClient, view: str
    ) -> None:
        make(admin)
        here, there = log_in(client, "bot"), log_in(client, "bot")
        assert here is not None
        assert there is not None
        path = f"{view}/bot/password"
        refused(here.put(path, {"new_password": self.NEXT}), 422)
        refused(here.put(path, {"current_password": "wrong", "new_password": self.NEXT}), 401)
        refused(here.put(path, {"current_password": PASSWORD, "new_password": "short"}), 422)
        told(there.get("/auth/me"))
        answer = here.put(path, {"current_password": PASSWORD, "new_password": self.NEXT})
        assert (answer.status_code, answer.data) == (204, b"")
        told(here.get("/auth/me"))
        refused(there.get("/auth/me"), 401)
        assert log_in(client, "bot") is None
        assert log_in(client, "bot", self.NEXT) is not None

    def test_an_admin_sets_somebody_elses_and_ends_all_sessions(
        self, admin: V0Caller, client: FlaskClient, view: str
    ) -> None:
        make(admin)
        bot = log_in(client, "bot")
        assert bot is not None
        path = f"{view}/bot/password"
        refused(admin.put(path, {"current_password": "wrong", "new_password": self.NEXT}), 401)
        assert admin.put(path, {"new_password": self.NEXT}).status_code == 204
        refused(bot.get("/auth/me"), 401)
        assert log_in(client, "bot", self.NEXT) is not None
        assert admin.put(path, {"current_password": self.NEXT, "new_password": PASSWORD}).status_code == 204
        refused(admin.put(f"{view}/nobody/password", {"new_password": self.NEXT}), 404)

    def test_a_persons_obeys_the_policy_here_too(self, admin: V0Caller, client: FlaskClient, view: str) -> None:
        person = log_in(client, "admin")
        assert person is not None
        path = f"{view}/admin/password"
        error = refused(person.put(path, {"current_password": PASSWORD, "new_password": "simple"}), 422)
        assert error["field"] == "new_password"
        assert person.put(path, {"current_password": PASSWORD, "new_password": "Much-better-1234"}).status_code == 204
