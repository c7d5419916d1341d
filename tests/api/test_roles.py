"""Roles and who holds them: every spelling taken, one emitted, and nobody gives what they do not have."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from coordinator.domains.identity import service
from coordinator.domains.identity.grants import Bound, Rule, granted
from coordinator.domains.identity.rights import BUILT_IN_IDS, RIGHTS, Role
from coordinator.store.database import Database
from shared.ids import new_id
from tests.factories.people import credentials_of, make_person
from tests.factories.spaces import V0Caller, make_space
from tests.factories.trail import trail_of
from tests.factories.work import refused, told

RULE = {"resources": ["tasks"], "verbs": ["get", "list"]}


@pytest.fixture
def admin(app: Flask, database: Database) -> V0Caller:
    return V0Caller.make(app, database, Role.ADMIN)


def make_role(admin: V0Caller, *rules: dict[str, Any], name: str = "custom") -> dict[str, Any]:
    return told(admin.post("/roles", {"name": name, "rules": list(rules) or [RULE]}), 201)


def bind(admin: V0Caller, role: str, who: V0Caller, **fields: Any) -> dict[str, Any]:
    return told(admin.post("/role-bindings", {"role_name": role, "principal": who.person.name, **fields}), 201)


class TestRoles:
    def test_the_built_in_ones_are_listed_and_tell_the_truth(self, admin: V0Caller) -> None:
        answer = admin.get("/roles")
        assert answer.headers["X-Total-Count"] == "5"
        listed = {role["name"]: role for role in answer.get_json()}
        assert listed.keys() == {str(role) for role in Role}
        assert listed["admin"]["rules"] == [{"api_groups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        for role in Role:
            shown = listed[role]
            rules = tuple(Rule.of(each) for each in shown["rules"])
            meant = granted([Bound("x", "x", None, rules)], "default").rights
            assert meant - {"account:*"} == RIGHTS[role], role
            assert (shown["id"], shown["built_in"], bool(shown["description"])) == (BUILT_IN_IDS[role], True, True)

    def test_one_is_found_by_id_and_by_name(self, admin: V0Caller) -> None:
        made = make_role(admin)
        assert admin.get(f"/roles/{made['id']}").get_json() == admin.get("/roles/custom").get_json() == made
        assert admin.get(f"/roles/{made['id'].upper()}").get_json() == made
        for which in ("nothing", new_id()):
            refused(admin.get(f"/roles/{which}"), 404)
            refused(admin.delete(f"/roles/{which}"), 404)

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (RULE, {"api_groups": ["*"], **RULE}),
            (
                {"apiGroups": ["api"], "resources": ["space.secret"], "verbs": ["read_values", "read"]},
                {"api_groups": ["api"], "resources": ["space-secrets"], "verbs": ["read-values", "get"]},
            ),
            (
                {"api_groups": [""], "resources": ["agents"], "verbs": ["get"], "resource_names": ["a", "b", "a"]},
                {"api_groups": [""], "resources": ["agents"], "verbs": ["get"], "resource_names": ["a", "b"]},
            ),
            (
                {"resources": ["session", "sessions"], "verbs": ["create", "list-all", "remix-all"], "scope": "space"},
                {
                    "api_groups": ["*"],
                    "resources": ["sessions"],
                    "verbs": ["create", "list-all", "remix-all"],
                    "scope": "space",
                },
            ),
            (
                {"api_groups": ["*"], "resources": ["*"], "verbs": ["*"], "scope": "global", "resourceNames": None},
                {"api_groups": ["*"], "resources": ["*"], "verbs": ["*"], "scope": "global"},
            ),
        ],
    )
    def test_rules_come_in_every_spelling_and_are_kept_in_one(
        self, admin: V0Caller, given: dict[str, Any], kept: dict[str, Any]
    ) -> None:
        assert make_role(admin, given)["rules"] == [kept]

    def test_a_role_may_be_named_by_its_id(self, admin: V0Caller) -> None:
        made = told(admin.post("/roles", {"id": "by-id", "rules": [RULE]}), 201)
        assert made["name"] == "by-id"
        assert made["id"] != "by-id"

    @pytest.mark.parametrize(
        "body",
        [
            {"rules": [RULE]},
            {"name": "x"},
            {"name": "x", "rules": []},
            {"name": "x", "rules": [{"verbs": ["get"]}]},
            {"name": "x", "rules": [{"resources": [], "verbs": ["get"]}]},
            {"name": "x", "rules": [{**RULE, "scope": "galaxy"}]},
            {"name": "x", "rules": ["all"]},
            {"name": "a b", "rules": [RULE]},
            {"name": "01a203de-0000-7000-8000-000000000001", "rules": [RULE]},
        ],
        ids=str,
    )
    def test_what_is_no_role_is_refused(self, admin: V0Caller, body: dict[str, Any]) -> None:
        refused(admin.post("/roles", body), 422)

    @pytest.mark.parametrize("name", ["custom", "admin", "viewer"])
    def test_a_name_is_taken_once(self, admin: V0Caller, name: str) -> None:
        make_role(admin)
        refused(admin.post("/roles", {"name": name, "rules": [RULE]}), 409)

    def test_a_built_in_one_cannot_be_deleted(self, admin: V0Caller) -> None:
        for which in ("viewer", BUILT_IN_IDS[Role.ADMIN]):
            refused(admin.delete(f"/roles/{which}"), 409)

    def test_deleting_one_takes_it_from_its_holders(self, app: Flask, database: Database, admin: V0Caller) -> None:
        somebody = V0Caller.make(app, database)
        make_role(admin)
        binding = bind(admin, "custom", somebody)
        told(somebody.get("/api/v1/tasks"))
        assert admin.delete("/roles/custom").status_code == 204
        refused(somebody.get("/api/v1/tasks"), 403)
        refused(admin.get(f"/role-bindings/{binding['id']}"), 404)
        (row,) = trail_of(database, action="role.deleted")
        assert (row["before"]["name"], row["before"]["bindings"]) == ("custom", 1)

    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.DEVELOPER, Role.VIEWER, Role.USER, None])
    def test_they_are_the_admins_affair(self, app: Flask, database: Database, role: Role | None) -> None:
        somebody = V0Caller.make(app, database, role)
        for answer in (
            somebody.get("/roles"),
            somebody.get("/roles/viewer"),
            somebody.post("/roles", {"name": "x", "rules": [RULE]}),
            somebody.delete("/roles/viewer"),
            somebody.get("/role-bindings"),
            somebody.post("/role-bindings", {"role_name": "admin", "principal": somebody.person.name}),
        ):
            refused(answer, 403)


class TestBindings:
    @pytest.fixture
    def ada(self, app: Flask, database: Database) -> V0Caller:
        return V0Caller(app, make_person(database, role=None, name="ada"))

    @pytest.mark.parametrize(
        "body",
        [
            {"role_name": "viewer", "principal_name": "ada", "principal_type": "User", "namespace": "team"},
            {"role_ref": "viewer", "subject": "ada", "space": "team"},
            {"role_name": "viewer", "principal": "ada", "principal_type": "Subject", "space": "team"},
            {"role": "viewer", "principal": "ada", "workspace_id": "team", "workspace": "team", "unknown": 1},
            {"role_id": BUILT_IN_IDS[Role.VIEWER], "principal": "ada", "organization": "team"},
        ],
        ids=str,
    )
    def test_every_spelling_is_taken_and_all_are_emitted(
        self, admin: V0Caller, ada: V0Caller, database: Database, body: dict[str, Any]
    ) -> None:
        make_space(database, "team")
        made = told(admin.post("/role-bindings", body), 201)
        assert made == {
            "id": made["id"],
            "role_id": BUILT_IN_IDS[Role.VIEWER],
            "role_name": "viewer",
            "role_ref": "viewer",
            "principal_id": ada.person.id,
            "principal": "ada",
            "principal_name": "ada",
            "subject": "ada",
            "principal_type": "User",
            "space": "team",
            "namespace": "team",
            "created_by": admin.person.id,
            "created_at": made["created_at"],
        }
        assert told(admin.get(f"/role-bindings/{made['id']}")) == made
        assert made in admin.get("/role-bindings").get_json()
        told(ada.get("/api/v1/tasks", headers={"X-Space": "team"}))
        refused(ada.get("/api/v1/tasks"), 403)

    @pytest.mark.parametrize("everywhere", [{}, {"space": None}, {"namespace": "*"}], ids=str)
    def test_without_a_space_it_counts_everywhere(
        self, admin: V0Caller, ada: V0Caller, database: Database, everywhere: dict[str, Any]
    ) -> None:
        make_space(database, "team")
        made = bind(admin, "viewer", ada, **everywhere)
        assert (made["space"], made["namespace"]) == (None, None)
        told(ada.get("/api/v1/tasks", headers={"X-Space": "team"}))
        told(ada.get("/api/v1/workers"))

    def test_taking_a_role_away_ends_what_it_gave_at_once(self, admin: V0Caller, ada: V0Caller) -> None:
        binding = bind(admin, "viewer", ada)
        told(ada.get("/api/v1/tasks"))
        assert admin.delete(f"/role-bindings/{binding['id']}").status_code == 204
        refused(ada.get("/api/v1/tasks"), 403)
        refused(admin.delete(f"/role-bindings/{binding['id']}"), 404)

    def test_the_same_twice_is_a_conflict_and_another_place_is_not(
        self, admin: V0Caller, ada: V0Caller, database: Database
    ) -> None:
        make_space(database, "team")
        for place in ({}, {"space": "team"}):
            bind(admin, "viewer", ada, **place)
            again = {"role_ref": "viewer", "subject": "ada", "principal_type": "Subject", **place}
            refused(admin.post("/role-bindings", again), 409)

    @pytest.mark.parametrize(
        "unknown",
        [{"role_name": "nobody"}, {"principal": "nobody"}, {"space": "nowhere"}, {"principal_type": "Operator"}],
    )
    def test_what_is_not_there_is_not_found(self, admin: V0Caller, ada: V0Caller, unknown: dict[str, str]) -> None:
        body = {"role_name": "viewer", "principal": "ada", **unknown}
        refused(admin.post("/role-bindings", body), 404)

    @pytest.mark.parametrize("type_", ["ServiceAccount", "Operator", "User", "Subject"])
    def test_an_admin_fits_every_type(self, app: Flask, database: Database, admin: V0Caller, type_: str) -> None:
        other = V0Caller.make(app, database, Role.ADMIN)
        assert bind(admin, "viewer", other, principal_type=type_)["principal_type"] == "User"

    @pytest.mark.parametrize(
        "body",
        [
            {"principal": "ada"},
            {"role_name": "viewer"},
            {"role_name": "viewer", "role_ref": "admin", "principal": "ada"},
            {"role_name": "viewer", "principal": "ada", "subject": "eve"},
            {"role_name": "viewer", "principal": "ada", "space": "a", "namespace": "b"},
            {"role_name": "viewer", "principal": "ada", "principal_type": "Robot"},
            {"role_name": "viewer", "principal": "ada", "space": 7},
            {"role_name": {"name": "viewer"}, "principal": "ada"},
        ],
        ids=str,
    )
    def test_what_says_too_little_or_two_things_is_refused(self, admin: V0Caller, body: dict[str, Any]) -> None:
        refused(admin.post("/role-bindings", body), 422)

    def test_the_last_admin_stays_admin(self, app: Flask, database: Database, admin: V0Caller) -> None:
        (mine,) = [each["id"] for each in admin.get("/role-bindings").get_json() if each["role_name"] == "admin"]
        refused(admin.delete(f"/role-bindings/{mine}"), 409)
        V0Caller.make(app, database, Role.ADMIN)
        assert admin.delete(f"/role-bindings/{mine}").status_code == 204
        refused(admin.get("/roles"), 403)


class TestEscalation:
    """Whoever may bind roles gives no more than they have themselves, in the place where they give it."""

    @pytest.fixture
    def clerk(self, app: Flask, database: Database, admin: V0Caller) -> V0Caller:
        rules = [
            {"api_groups": ["rbac"], "resources": ["*"], "verbs": ["*"]},
            {"resources": ["tasks"], "verbs": ["get", "list"]},
            {"resources": ["agents"], "verbs": ["get"], "resource_names": ["writer"]},
        ]
        make_role(admin, *rules, name="clerk")
        somebody = V0Caller.make(app, database)
        bind(admin, "clerk", somebody)
        make_space(database, "team")
        bind(admin, "viewer", somebody, space="team")
        return somebody

    @pytest.fixture
    def friend(self, app: Flask, database: Database) -> V0Caller:
        return V0Caller.make(app, database)

    def attempt(self, clerk: V0Caller, friend: V0Caller, role: str, space: str | None) -> Any:
        return clerk.post("/role-bindings", {"role_name": role, "principal": friend.person.name, "space": space})

    def test_what_one_has_everywhere_is_given_anywhere(self, clerk: V0Caller, friend: V0Caller) -> None:
        make_role(clerk, RULE, name="reader")
        told(self.attempt(clerk, friend, "reader", None), 201)
        told(self.attempt(clerk, friend, "reader", "default"), 201)

    def test_what_one_has_in_a_space_is_given_there_alone(self, clerk: V0Caller, friend: V0Caller) -> None:
        told(self.attempt(clerk, friend, "viewer", "team"), 201)
        for space in (None, "default"):
            error = refused(self.attempt(clerk, friend, "viewer", space), 403)
            assert "files:get" in error["beyond"]

    @pytest.mark.parametrize("role", ["admin", "operator"])
    @pytest.mark.parametrize("space", [None, "team", "default"])
    def test_no_built_in_role_that_is_more(
        self, clerk: V0Caller, friend: V0Caller, role: str, space: str | None
    ) -> None:
        refused(self.attempt(clerk, friend, role, space), 403)
        refused(self.attempt(clerk, clerk, role, space), 403)

    @pytest.mark.parametrize(
        "rule",
        [
            {"resources": ["*"], "verbs": ["get"]},
            {"resources": ["tasks"], "verbs": ["*"]},
            {"resources": ["tasks"], "verbs": ["create"]},
            {"resources": ["agents"], "verbs": ["get"]},
            {"resources": ["agents"], "verbs": ["get"], "resource_names": ["reader"]},
            {"resources": ["agents"], "verbs": ["delete"], "resource_names": ["writer"]},
            {"resources": ["things-to-come"], "verbs": ["get"]},
        ],
        ids=str,
    )
    def test_no_role_of_ones_own_making_that_is_more(
        self, clerk: V0Caller, friend: V0Caller, rule: dict[str, Any]
    ) -> None:
        make_role(clerk, rule, name="more")
        refused(self.attempt(clerk, friend, "more", None), 403)

    def test_what_one_may_do_to_one_thing_is_given_for_that_thing(self, clerk: V0Caller, friend: V0Caller) -> None:
        make_role(clerk, {"resources": ["agents"], "verbs": ["get"], "resource_names": ["writer"]}, name="same")
        told(self.attempt(clerk, friend, "same", None), 201)

    def test_nor_does_anybody_take_what_they_could_not_give(
        self, admin: V0Caller, clerk: V0Caller, friend: V0Caller, app: Flask, database: Database
    ) -> None:
        V0Caller.make(app, database, Role.ADMIN)
        for binding in admin.get("/role-bindings").get_json():
            if binding["role_name"] == "admin":
                refused(clerk.delete(f"/role-bindings/{binding['id']}"), 403)
        make_role(admin, {"resources": ["files"], "verbs": ["*"]}, name="unused")
        make_role(admin, {"resources": ["files"], "verbs": ["*"]}, name="used")
        theirs = bind(admin, "used", friend)
        refused(clerk.delete(f"/role-bindings/{theirs['id']}"), 403)
        refused(clerk.delete("/roles/used"), 403)
        assert clerk.delete("/roles/unused").status_code == 204
        mine = bind(admin, "viewer", friend, space="team")
        assert clerk.delete(f"/role-bindings/{mine['id']}").status_code == 204

    def test_a_key_hands_on_no_more_than_its_scopes(self, admin: V0Caller, app: Flask, friend: V0Caller) -> None:
        scopes = ["role_bindings:create", "tokens:create", "tasks:get", "tasks:list"]
        made = told(admin.post("/api/v1/security/api-keys", {"name": "binder", "scopes": scopes}), 201)
        key = V0Caller(app, admin.person, {"X-API-Key": made["key"]})
        make_role(admin, RULE, name="reader")
        told(self.attempt(key, friend, "reader", None), 201)
        refused(self.attempt(key, friend, "viewer", None), 403)
        refused(key.post("/auth/token", {"principal": admin.person.name, "type": "User"}), 403)

    def test_a_role_in_a_space_does_not_let_anybody_bind(self, app: Flask, database: Database) -> None:
        make_space(database, "team")
        chief = V0Caller.make(app, database, Role.ADMIN, space="team")
        body = {"role_name": "viewer", "principal": chief.person.name, "space": "team"}
        refused(chief.post("/role-bindings", body), 403)
        refused(chief.get("/roles", headers={"X-Space": "team"}), 403)


def test_two_admins_who_dismiss_each_other_at_once_leave_one(app: Flask, database: Database) -> None:
    admins = [V0Caller.make(app, database, Role.ADMIN) for _ in range(2)]
    listed = admins[0].get("/role-bindings").get_json()
    others = [next(each["id"] for each in listed if each["principal_id"] != admin.person.id) for admin in admins]
    together = threading.Barrier(2)

    def dismiss(admin: V0Caller, other: str) -> int:
        together.wait(10)
        return admin.delete(f"/role-bindings/{other}").status_code

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(dismiss, admins, others))
    # Whoever comes second is the last admin (409), or was dismissed before they could say a word (403).
    assert answers[0] == 204
    assert answers[1] in (403, 409)
    with database.read() as tx:
        assert [bool(service.roles_of(tx, admin.person.id)) for admin in admins].count(True) == 1


def test_a_refused_binding_is_in_the_trail(app: Flask, database: Database) -> None:
    make_person(database, name="root", role=Role.ADMIN)
    eve = make_person(database, name="eve", role=Role.VIEWER)
    caller = V0Caller(app, eve, credentials_of(app, eve))
    refused(caller.post("/role-bindings", {"role_name": "admin", "principal": "eve"}), 403)
    (row,) = trail_of(database, outcome="refused")
    assert (row["action"], row["actor_name"]) == ("role_binding.created", "eve")
