"""Spaces: made by admins, seen by their members, emptied before they go."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from flask import Flask
from sqlalchemy import event

from coordinator.domains.identity import spaces
from coordinator.domains.identity.rights import Role
from coordinator.store.database import Database
from shared.errors import Conflict, NotFound
from tests.factories.spaces import V0Caller, make_space
from tests.factories.trail import trail_of
from tests.factories.work import refused, told


@pytest.fixture
def admin(app: Flask, database: Database) -> V0Caller:
    return V0Caller.make(app, database, Role.ADMIN)


def names_of(caller: V0Caller, query: str = "") -> list[str]:
    answer = caller.get(f"/spaces{query}")
    assert answer.status_code == 200
    names = [each["name"] for each in answer.get_json()]
    assert answer.headers["X-Total-Count"] == str(len(names))
    return sorted(names)


class TestMakingThem:
    def test_an_admin_makes_reads_changes_and_deletes_one(self, admin: V0Caller, database: Database) -> None:
        made = admin.post("/spaces", {"name": "team_1.x-y", "description": "first", "settings": {"a": [1]}})
        assert made.headers["Location"] == "/api/v0/spaces/team_1.x-y"
        shown = told(made, 201)
        assert (shown["active"], shown["settings"], shown["created_by"]) == (True, {"a": [1]}, admin.person.id)
        assert told(admin.get("/spaces/team_1.x-y")) == shown

        changed = told(admin.put("/spaces/team_1.x-y", {"description": None, "active": False, "unknown": 1}))
        assert (changed["description"], changed["active"], changed["settings"]) == (None, False, {"a": [1]})
        assert admin.delete("/spaces/team_1.x-y").status_code == 204
        assert refused(admin.get("/spaces/team_1.x-y"), 404)["space"] == "team_1.x-y"
        acts = [(row["action"], row["resource_id"]) for row in trail_of(database) if row["outcome"] == "done"]
        assert sorted(acts) == [(f"space.{word}", "team_1.x-y") for word in ("changed", "created", "deleted")]

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "*", "x" * 256, "a\nb", "a\n", None, 7], ids=repr)
    def test_names_are_plain(self, admin: V0Caller, name: Any) -> None:
        assert refused(admin.post("/spaces", {"name": name}), 422)["field"] == "name"

    def test_a_name_is_taken_once(self, admin: V0Caller) -> None:
        told(admin.post("/spaces", {"name": "team"}), 201)
        assert refused(admin.post("/spaces", {"name": "team"}), 409)["name"] == "team"
        assert refused(admin.post("/spaces", {"name": "default"}), 409)["code"] == "CONFLICT"

    def test_a_space_cannot_be_renamed(self, admin: V0Caller, database: Database) -> None:
        make_space(database, "team")
        told(admin.put("/spaces/team", {"name": "team"}))
        assert refused(admin.put("/spaces/team", {"name": "other"}), 422)["field"] == "name"

    def test_a_change_may_be_tied_to_what_was_read(self, admin: V0Caller, database: Database) -> None:
        make_space(database, "team")
        tag = admin.get("/spaces/team").headers["ETag"]
        told(admin.put("/spaces/team", {"description": "a"}, headers={"If-Match": tag}))
        refused(admin.put("/spaces/team", {"description": "b"}, headers={"If-Match": tag}), 412)

    def test_the_default_space_stays_and_stays_active(self, admin: V0Caller) -> None:
        refused(admin.delete("/spaces/default"), 400)
        refused(admin.put("/spaces/default", {"active": False}), 400)
        assert told(admin.put("/spaces/default", {"description": "ours"}))["description"] == "ours"

    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.DEVELOPER, Role.VIEWER, Role.USER, None])
    def test_nobody_else_writes(self, app: Flask, database: Database, role: Role | None) -> None:
        make_space(database, "team")
        somebody = V0Caller.make(app, database, role)
        refused(somebody.post("/spaces", {"name": "mine"}), 403)
        for answer in (somebody.put("/spaces/team", {"active": False}), somebody.delete("/spaces/team")):
            assert answer.status_code == (404 if role is None else 403)

    def test_whoever_is_admin_of_one_space_changes_it_but_makes_and_deletes_none(
        self, app: Flask, database: Database
    ) -> None:
        make_space(database, "team")
        for space in ("team", "default"):
            chief = V0Caller.make(app, database, Role.ADMIN, space=space)
            assert told(chief.put(f"/spaces/{space}", {"description": "ours"}))["description"] == "ours"
            refused(chief.delete(f"/spaces/{space}"), 403)
            refused(chief.post("/spaces", {"name": "more"}, headers={"X-Space": space}), 403)


class TestSeeingThem:
    @pytest.fixture(autouse=True)
    def _three(self, database: Database) -> None:
        make_space(database, "blue")
        make_space(database, "red", active=False)

    def test_who_holds_a_role_everywhere_sees_all(self, app: Flask, database: Database, admin: V0Caller) -> None:
        viewer = V0Caller.make(app, database, Role.VIEWER)
        assert names_of(admin) == names_of(viewer) == ["blue", "default", "red"]
        assert names_of(viewer, "?active=true") == ["blue", "default"]
        assert names_of(viewer, "?active=false") == ["red"]

    def test_a_member_sees_its_own(self, app: Flask, database: Database) -> None:
        member = V0Caller.make(app, database, Role.VIEWER, space="red")
        assert names_of(member) == ["red"]
        assert names_of(member, "?active=true") == []
        assert told(member.get("/spaces/red"))["name"] == "red"
        hidden, missing = member.get("/spaces/blue"), member.get("/spaces/nowhere")
        assert refused(hidden, 404)["message"] == refused(missing, 404)["message"]

    def test_who_holds_no_role_sees_none(self, app: Flask, database: Database) -> None:
        nobody = V0Caller.make(app, database)
        assert names_of(nobody) == []
        refused(nobody.get("/spaces/blue"), 404)

    def test_pages(self, admin: V0Caller) -> None:
        answer = admin.get("/spaces?limit=2&offset=1")
        assert answer.status_code == 200
        assert answer.headers["X-Total-Count"] == "3"
        assert len(answer.get_json()) == 2
        second = admin.get("/spaces?page=2&limit=2").get_json()
        assert [each["name"] for each in second] == [admin.get("/spaces").get_json()[2]["name"]]


class TestWhatIsInThem:
    IN_TEAM: ClassVar[dict[str, str]] = {"X-Space": "team"}

    @pytest.fixture(autouse=True)
    def _team(self, database: Database) -> None:
        make_space(database, "team")

    def test_a_space_with_something_in_it_stays(self, admin: V0Caller) -> None:
        agent = told(admin.post("/api/v1/agents", {"name": "runner"}, headers=self.IN_TEAM), 201)
        left = refused(admin.delete("/spaces/team"), 409)
        assert left["left"] == {"agents": 1}
        assert admin.delete(f"/api/v1/agents/{agent['id']}", headers=self.IN_TEAM).status_code == 204
        assert admin.delete("/spaces/team").status_code == 204

    def test_it_tells_of_tasks_too(self, admin: V0Caller) -> None:
        told(admin.post("/api/v1/tasks", {"title": "work"}, headers=self.IN_TEAM), 201)
        error = refused(admin.delete("/spaces/team"), 409)
        assert error["left"] == {"tasks and executions": 1}
        assert "1 tasks and executions" in error["message"]

    def test_roles_that_are_held_in_it_go_with_it(self, app: Flask, admin: V0Caller, database: Database) -> None:
        member = V0Caller.make(app, database, Role.VIEWER, space="team")
        assert admin.delete("/spaces/team").status_code == 204
        assert names_of(member) == []
        (row,) = [row for row in trail_of(database) if row["action"] == "space.deleted"]
        assert row["before"]["roles_held"] == 1

    def test_one_that_is_switched_off_is_read_and_takes_nothing_new(self, admin: V0Caller) -> None:
        task = told(admin.post("/api/v1/tasks", {"title": "before"}, headers=self.IN_TEAM), 201)
        told(admin.put("/spaces/team", {"active": False}))
        for path, body in (
            ("/api/v1/tasks", {"title": "late"}),
            ("/api/v1/tasks/bulk", {"tasks": [{"title": "late"}]}),
            ("/api/v1/agents", {"name": "late"}),
            ("/api/v1/dead-letter/retry-all", {}),
        ):
            error = refused(admin.post(path, body, headers=self.IN_TEAM), 409)
            assert (error["space"], "switched off" in error["message"]) == ("team", True), path
        assert told(admin.get(f"/api/v1/tasks/{task['id']}", headers=self.IN_TEAM))["title"] == "before"
        told(admin.post(f"/api/v1/tasks/{task['id']}/cancel", headers=self.IN_TEAM))
        told(admin.put("/spaces/team", {"active": True}))
        told(admin.post("/api/v1/tasks", {"title": "again"}, headers=self.IN_TEAM), 201)


def test_only_who_uses_another_space_than_default_pays_for_it(app: Flask, database: Database, admin: V0Caller) -> None:
    make_space(database, "team")
    said: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    def asked(space: str, method: str, body: Any) -> list[str]:
        said.clear()
        assert admin.call(method, "/api/v1/agents", body, headers={"X-Space": space}).status_code in (200, 201)
        return [each for each in said if "FROM spaces" in each and "principals" not in each]

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        assert [len(asked(space, "POST", {"name": "x"})) for space in ("default", "team")] == [0, 1]
        assert [len(asked(space, "GET", None)) for space in ("default", "team")] == [0, 0]
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


class TestRaces:
    @pytest.mark.parametrize("database_site", ["postgresql"], indirect=True)
    def test_who_writes_in_a_space_keeps_it_from_being_deleted_meanwhile(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_space(database, "team")
        wants = threading.Event()
        ended: list[BaseException | None] = []

        def delete() -> None:
            try:
                with database.write() as tx:
                    wants.set()
                    spaces.remove(tx, spaces.get_to_change(tx, "team"))
                ended.append(None)
            except Conflict as error:
                ended.append(error)

        marks: list[str] = []
        monkeypatch.setattr(spaces, "_contents", {"marks": lambda tx, space, most: len(marks)})
        with database.write() as writer:
            spaces.hold(writer, "team", for_new_work=True)
            other = threading.Thread(target=delete)
            other.start()
            assert wants.wait(10)
            marks.append("written")
        other.join(10)
        assert [type(each) for each in ended] == [Conflict]

    def test_who_comes_after_the_deletion_finds_nothing(self, database: Database) -> None:
        make_space(database, "team")
        with database.write() as tx:
            spaces.remove(tx, spaces.get_to_change(tx, "team"))
        with database.write() as tx, pytest.raises(NotFound):
            spaces.hold(tx, "team", for_new_work=False)
