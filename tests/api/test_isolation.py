"""What is in one space does not exist for the others: by id, in lists, counts and stats, as a reference, live."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from coordinator.app import domain_slices
from coordinator.domains.identity.rights import NOUNS, Role
from coordinator.domains.live import platform
from coordinator.domains.live.platform import PlatformSession
from coordinator.domains.live.timeline import TimelineSession
from coordinator.domains.live.words import Told
from coordinator.domains.live.words import told as told_of
from coordinator.domains.queue.service import Event
from coordinator.http.actor import Actor
from coordinator.http.slice import Endpoint, mounted
from coordinator.http.sockets import WS, Opening
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from shared.errors import NotFound
from tests.factories.spaces import V0Caller, make_space
from tests.factories.work import attached, multipart, refused, told

V1 = "/api/v1"
IN_TEAM = {"X-Space": "team"}
IN_OTHER = {"X-Space": "other"}


@dataclass(frozen=True)
class Things:
    """One of each, all in one space."""

    agent_id: str
    task_id: str
    execution_id: str
    file_id: str
    entry_id: str


def fill(caller: V0Caller, space: str) -> Things:
    def post(path: str, status: int = 201, **options: Any) -> dict[str, Any]:
        return told(caller.post(f"{V1}{path}", headers={"X-Space": space}, **options), status)

    agent = post("/agents", body={"name": f"agent of {space}"})
    task = post("/tasks", body={"title": f"task of {space}", "agent_id": agent["id"], "instructions": "true"})
    execution = post(f"/agents/{agent['id']}/execute", 202, body={"input": {"command": "true"}})
    file = post("/files", **multipart(file=attached(b"secret", "secret.txt")))
    dead = post("/tasks", body={"title": f"dead of {space}", "agent_id": agent["id"], "instructions": "true"})
    post("/dead-letter", body={"task_id": dead["id"], "reason": "it is over"})
    return Things(agent["id"], task["id"], execution["id"], file["id"], dead["id"])


@pytest.fixture
def admin(app: Flask, database: Database) -> V0Caller:
    return V0Caller.make(app, database, Role.ADMIN)


@pytest.fixture
def things(admin: V0Caller, database: Database) -> Things:
    make_space(database, "team")
    make_space(database, "other")
    return fill(admin, "team")


def is_of_a_space(endpoint: Endpoint) -> bool:
    nouns = {one.partition(":")[0] for one in endpoint.may if isinstance(one, str)}
    return any(noun in NOUNS and NOUNS[noun].in_space for noun in nouns)


BY_ID = [
    endpoint
    for endpoint, version in mounted(domain_slices())
    if version == "v1" and endpoint.method != WS and is_of_a_space(endpoint) and "<id:" in endpoint.path
]
SOCKETS = {"execution": "execution_id", "task": "task_id"}


def path_to(endpoint: Endpoint, things: Things) -> str:
    return V1 + re.sub(r"<id:(\w+)>", lambda match: str(getattr(things, match[1])), endpoint.path)


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def call(caller: V0Caller, endpoint: Endpoint, things: Things, **headers: str) -> Any:
    body: dict[str, Any] | None = {} if endpoint.body is not None else None
    return caller.call(endpoint.method, path_to(endpoint, things), body, headers=headers)


class TestIds:
    def test_the_walk_below_misses_no_kind(self) -> None:
        named = {name for endpoint in BY_ID for name in re.findall(r"<id:(\w+)>", endpoint.path)}
        assert named == set(Things.__dataclass_fields__)

    def test_everything_of_another_space_is_not_found(self, admin: V0Caller, things: Things) -> None:
        """By its id from another space, whatever one may do there."""
        for endpoint in BY_ID:
            for headers in ({}, IN_OTHER):
                answer = call(admin, endpoint, things, **headers)
                assert answer.status_code == 404, (name_of(endpoint), answer.get_data(as_text=True))
        for endpoint in (each for each in BY_ID if each.method == "GET"):
            assert call(admin, endpoint, things, **IN_TEAM).status_code == 200, name_of(endpoint)

    def test_one_who_is_admin_of_another_space_reaches_none(
        self, app: Flask, database: Database, things: Things
    ) -> None:
        chief = V0Caller.make(app, database, Role.ADMIN, space="other")
        for endpoint in BY_ID:
            assert call(chief, endpoint, things, **IN_OTHER).status_code == 404, name_of(endpoint)
            assert call(chief, endpoint, things, **IN_TEAM).status_code == 404, name_of(endpoint)
            assert call(chief, endpoint, things).status_code == 403, name_of(endpoint)

    def test_streams_are_not_found_either(self, resources: Resources, things: Things) -> None:
        for kind, name in SOCKETS.items():
            for space, is_there in (("team", True), ("other", False), ("default", False)):
                opening = Opening(Actor("x", "user", "x", space=space), space, {"after_seq": 0}, resources)
                if is_there:
                    TimelineSession(opening, kind, getattr(things, name)).leave()
                    continue
                with pytest.raises(NotFound):
                    TimelineSession(opening, kind, getattr(things, name))


class TestLists:
    LISTS = ("/agents", "/tasks", "/executions", "/files", "/dead-letter")

    @pytest.mark.parametrize("path", LISTS)
    def test_neither_rows_nor_counts_leak(self, admin: V0Caller, things: Things, path: str) -> None:
        for headers, count in ((IN_TEAM, True), ({}, False), (IN_OTHER, False)):
            answer = admin.get(V1 + path, headers=headers)
            page = told(answer)
            rows = next(value for key, value in page.items() if key != "pagination")
            assert bool(rows) is bool(page["pagination"]["total"]) is (answer.headers["X-Total-Count"] != "0") is count

    @pytest.mark.parametrize(
        "query",
        [
            "/tasks?agent_id={agent_id}",
            "/executions?agent_id={agent_id}",
            "/dead-letter?agent_id={agent_id}",
            "/files?task_id={task_id}",
            "/agents?search=team",
        ],
    )
    def test_filters_find_nothing_of_others(self, admin: V0Caller, things: Things, query: str) -> None:
        path = V1 + query.format(agent_id=things.agent_id, task_id=things.task_id)
        assert told(admin.get(path))["pagination"]["total"] == 0

    def test_stats_count_ones_own(self, admin: V0Caller, things: Things) -> None:
        assert told(admin.get(f"{V1}/tasks/stats"))["total"] == 0
        assert told(admin.get(f"{V1}/dead-letter/stats"))["total"] == 0
        assert told(admin.get(f"{V1}/tasks/stats", headers=IN_TEAM))["total"] == 2
        assert told(admin.get(f"{V1}/dead-letter/stats", headers=IN_TEAM))["total"] == 1

    def test_acting_on_all_acts_on_ones_own(self, admin: V0Caller, things: Things) -> None:
        assert told(admin.post(f"{V1}/dead-letter/retry-all", {}))["retried_count"] == 0
        assert told(admin.post(f"{V1}/dead-letter/retry-all", {}, headers=IN_TEAM))["retried_count"] == 1


class TestReferences:
    """Naming a thing of another space is naming nothing."""

    def test_an_agent(self, admin: V0Caller, things: Things) -> None:
        assert (
            refused(admin.post(f"{V1}/tasks", {"title": "x", "agent_id": things.agent_id}), 422)["field"] == "agent_id"
        )
        mine = told(admin.post(f"{V1}/tasks", {"title": "mine"}), 201)
        answer = admin.call("PATCH", f"{V1}/tasks/{mine['id']}", {"agent_id": things.agent_id})
        assert refused(answer, 422)["field"] == "agent_id"

    def test_a_file(self, admin: V0Caller, things: Things) -> None:
        body = {"title": "x", "input_files": [things.file_id]}
        assert refused(admin.post(f"{V1}/tasks", body), 422)["field"].startswith("input_files")

    @pytest.mark.parametrize("path", ["/files", "/files/upload"])
    def test_a_task_that_a_file_is_to_belong_to(self, admin: V0Caller, things: Things, path: str) -> None:
        form = multipart(file=attached(b"x", "x.txt"))
        refused(admin.post(f"{V1}{path}?task_id={things.task_id}", **form), 404)

    @pytest.mark.parametrize("name", ["task_id", "execution_id"])
    def test_what_is_to_be_a_dead_letter(self, admin: V0Caller, things: Things, name: str) -> None:
        refused(admin.post(f"{V1}/dead-letter", {name: getattr(things, name)}), 404)


class TestWhereNewThingsGo:
    SPELLINGS = ("space", "namespace", "workspace", "workspace_id", "workspace_name", "organization")

    @pytest.fixture(autouse=True)
    def _spaces(self, things: Things) -> None:
        """There is a team."""

    @pytest.mark.parametrize("word", SPELLINGS)
    def test_every_spelling_in_a_body_is_taken(self, admin: V0Caller, things: Things, word: str) -> None:
        for path, body in (("/agents", {"name": "x"}), ("/tasks", {"title": "x"})):
            made = told(admin.post(V1 + path, {**body, word: "team"}), 201)
            assert made["space"] == "team"
            refused(admin.get(f"{V1}{path}/{made['id']}"), 404)
        done = told(admin.post(f"{V1}/tasks/bulk", {word: "team", "tasks": [{"title": "x"}]}))
        assert done["results"][0]["task"]["space"] == "team"
        told(admin.post(f"{V1}/agents/{things.agent_id}/execute", {"input": {"command": "true"}, word: "team"}), 202)

    def test_nothing_said_or_null_is_the_default_space(self, admin: V0Caller) -> None:
        for body in ({}, {"space": None}, {"workspace_id": None, "namespace": "default"}):
            assert told(admin.post(f"{V1}/tasks", {"title": "x", **body}), 201)["space"] == "default"

    def test_two_different_ones_are_refused(self, admin: V0Caller) -> None:
        body = {"title": "x", "space": "team"}
        refused(admin.post(f"{V1}/tasks", {**body, "namespace": "other"}), 422)
        refused(admin.post(f"{V1}/tasks", body, headers=IN_OTHER), 422)
        told(admin.post(f"{V1}/tasks", body, headers=IN_TEAM), 201)

    def test_whoever_belongs_there_is_told_what_else_is_wrong(self, app: Flask, database: Database) -> None:
        member = V0Caller.make(app, database, Role.OPERATOR, space="team")
        told(member.post(f"{V1}/tasks", {"title": "x", "workspace_id": "team"}), 201)
        for wrong in ({}, {"title": ""}, {"title": "x", "unknown": 1}):
            refused(member.post(f"{V1}/tasks", {**wrong, "workspace_id": "team"}), 422)
            refused(member.post(f"{V1}/tasks", wrong), 403)
            refused(member.post(f"{V1}/tasks", {**wrong, "workspace_id": "other"}), 404)

    def test_one_of_a_batch_does_not_go_elsewhere(self, admin: V0Caller) -> None:
        items = [{"title": "a", "workspace_id": "team"}, {"title": "b"}, {"title": "c", "space": "other"}]
        done = told(admin.post(f"{V1}/tasks/bulk", {"tasks": items}, headers=IN_TEAM))
        assert [each["status"] for each in done["results"]] == ["created", "created", "error"]
        assert done["results"][2]["error"]["details"]["field"] == "space"

    def test_an_unknown_space_and_one_that_is_hidden_look_alike(
        self, app: Flask, database: Database, admin: V0Caller
    ) -> None:
        member = V0Caller.make(app, database, Role.OPERATOR, space="team")
        told(member.post(f"{V1}/tasks", {"title": "x", "space": "team"}), 201)
        hidden = refused(member.post(f"{V1}/tasks", {"title": "x", "space": "other"}), 404)
        missing = refused(member.post(f"{V1}/tasks", {"title": "x", "space": "nowhere"}), 404)
        assert hidden["message"] == missing["message"]
        refused(admin.post(f"{V1}/tasks", {"title": "x", "space": "nowhere"}), 404)


class TestRolesInOneSpace:
    @pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR])
    def test_what_is_the_whole_fleets_needs_a_role_held_everywhere(
        self, app: Flask, database: Database, things: Things, role: Role
    ) -> None:
        member = V0Caller.make(app, database, role, space="team")
        told(member.get(f"{V1}/tasks", headers=IN_TEAM))
        for path in ("/workers", "/workers/overview", "/workers/pauses", "/circuit-breakers", "/admin/audit"):
            refused(member.get(V1 + path, headers=IN_TEAM), 403)
        for path in ("/api/v0/operators", "/api/v0/roles", "/api/v0/role-bindings"):
            refused(member.get(path, headers=IN_TEAM), 403)
        refused(member.post(f"{V1}/workers/pause", {"reason": "x"}, headers=IN_TEAM), 403)

    def test_a_viewer_of_a_space_reads_and_writes_nothing(self, app: Flask, database: Database, things: Things) -> None:
        viewer = V0Caller.make(app, database, Role.VIEWER, space="team")
        told(viewer.get(f"{V1}/tasks/{things.task_id}", headers=IN_TEAM))
        for endpoint in BY_ID:
            if endpoint.method != "GET":
                assert call(viewer, endpoint, things, **IN_TEAM).status_code == 403, name_of(endpoint)


class Ear:
    """What a follower of events is to a session; it tells when the test says so, and needs no thread for it."""

    def __init__(self, _: Resources) -> None:
        self.tell: Any = None

    def watch_events(self, hear: Any) -> Any:
        self.tell = hear
        return lambda: None


class TestLive:
    @pytest.fixture
    def heard(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Any:
        ear = Ear(resources)
        monkeypatch.setattr(platform, "follower_of", lambda _: ear)

        def hear(space: str, *events: Told) -> list[str]:
            actor = Actor("x", "user", "x", rights=frozenset({"*"}), space=space)
            session = PlatformSession(Opening(actor, space, {}, resources))
            session.said({"type": "subscribe", "event": "*"})
            ear.tell(events)
            waiting = asyncio.run(asyncio.wait_for(session._outbox.take(), 10)) if events else []
            return list(waiting or [])

        return hear

    def test_events_are_heard_in_their_own_space(self, heard: Any, clock: FrozenClock) -> None:
        events = [
            told_of(Event(number, clock.now(), space, "agent.status", "a", {"id": space}))
            for number, space in enumerate(("team", "other", "default"))
        ]
        assert heard("team", *events) == [events[0].text]
        assert heard("default", *events) == [events[2].text]

    def test_the_fleets_are_heard_in_each(self, heard: Any, clock: FrozenClock) -> None:
        event = told_of(Event(1, clock.now(), "default", "worker.online", "w", {"id": "w"}))
        assert heard("team", event) == heard("default", event) == [event.text]
