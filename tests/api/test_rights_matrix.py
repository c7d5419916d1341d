"""The table of docs/rights.md, played against the running application: every endpoint as everybody."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.http.slice import PREFIXES
from coordinator.http.sockets import WS
from coordinator.resources import Resources
from coordinator.store.database import Database
from scripts.rights_table import Cell, Line, lines
from shared.ids import new_id
from tests.factories.fleet import TestNode as Node
from tests.factories.people import credentials_of, hold, make_person
from tests.factories.spaces import make_space

HERE, ELSEWHERE = "here", "elsewhere"
# A socket shows its token in its first message: its own tests refuse it there.
PLAYED = [line for line in lines() if line.endpoint.method != WS]
# Whoever may delete the space of the call does so at the end.
CLOSED = sorted(
    (line for line in PLAYED if not line.endpoint.is_open),
    key=lambda line: line.endpoint.method == "DELETE" and line.endpoint.path.endswith("space>"),
)


@dataclass(frozen=True)
class Stage:
    """The application, and two spaces in it."""

    app: Flask
    client: FlaskClient
    database: Database

    def call(self, line: Line, headers: dict[str, str], *, space: str | None = HERE) -> TestResponse:
        asked = {"X-Space": space} if space else {}
        return self.client.open(path_of(line, space), method=line.endpoint.method, headers={**headers, **asked})


@pytest.fixture
def stage(app: Flask, client: FlaskClient, database: Database) -> Stage:
    for name in (HERE, ELSEWHERE):
        make_space(database, name)
    return Stage(app, client, database)


def path_of(line: Line, space: str | None) -> str:
    """The path with ids that nothing has."""
    path = re.sub(r"<id:\w+>", lambda _: new_id(), line.endpoint.path)
    path = re.sub(r"<(?:\w+:)?space>", space or "default", path)
    return PREFIXES[line.version] + re.sub(r"<(?:\w+:)?\w+>", "something", path)


def answers_to(stage: Stage, person: Principal) -> Iterator[tuple[Line, TestResponse]]:
    """Each closed endpoint with its answer to this person."""
    headers = credentials_of(stage.app, person)
    for line in CLOSED:
        yield line, stage.call(line, headers)
        if _is_ones_own(line):
            # It may have ended the login that it was called with.
            headers = credentials_of(stage.app, person)


def played(stage: Stage, person: Principal, judge: Callable[[Line, TestResponse], str | None]) -> list[str]:
    """What each endpoint answered that it should not have."""
    return [
        f"{line.name}: {fault}"
        for line, answer in answers_to(stage, person)
        if (fault := judge(line, answer)) is not None
    ]


def told(answer: TestResponse) -> str:
    return f"{answer.status_code} {answer.text[:200]}"


def judged_by(role: Role, *, held_in: str | None) -> Callable[[Line, TestResponse], str | None]:
    def judge(line: Line, answer: TestResponse) -> str | None:
        cell = line.cell(role)
        may = cell is Cell.ANYWHERE or (cell is Cell.EVERYWHERE and held_in is None)
        if may:
            return told(answer) if answer.status_code in (401, 403) else None
        return None if answer.status_code == 403 else told(answer)

    return judge


def test_without_a_credential_everything_is_401_but_what_is_open(stage: Stage) -> None:
    wrong = [
        f"{line.name}: {told(answer)}"
        for line in CLOSED
        if (answer := stage.call(line, {})).status_code != 401 or "WWW-Authenticate" not in answer.headers
    ]
    assert wrong == []


@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_held_everywhere(stage: Stage, role: Role) -> None:
    person = make_person(stage.database, role=role)
    # Whoever is the only admin may not leave; and there is always one more.
    make_person(stage.database, role=Role.ADMIN)
    assert played(stage, person, judged_by(role, held_in=None)) == []


@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_held_in_the_space_of_the_call(stage: Stage, role: Role) -> None:
    person = make_person(stage.database, role=None)
    hold(stage.database, person, role, space=HERE)
    assert played(stage, person, judged_by(role, held_in=HERE)) == []


@pytest.mark.parametrize("role", Role)
def test_a_role_that_is_held_in_another_space(stage: Stage, role: Role) -> None:
    person = make_person(stage.database, role=None)
    hold(stage.database, person, role, space=ELSEWHERE)

    def judge(_line: Line, answer: TestResponse) -> str | None:
        unknown = answer.status_code == 404 and "there is no such space" in answer.text
        return None if unknown else told(answer)

    assert played(stage, person, judge) == []


def test_a_space_that_is_not_there_looks_like_one_that_one_does_not_reach(stage: Stage) -> None:
    person = make_person(stage.database, role=None)
    hold(stage.database, person, Role.ADMIN, space=ELSEWHERE)
    headers = credentials_of(stage.app, person)
    line = next(line for line in CLOSED if line.endpoint.path == "/agents" and line.endpoint.method == "GET")
    answers = [stage.call(line, headers, space=space) for space in (HERE, "nowhere")]
    assert {one.status_code for one in answers} == {404}
    assert answers[0].text.replace('"here"', "*") == answers[1].text.replace('"nowhere"', "*")


def test_whoever_only_reads_changes_nothing(stage: Stage) -> None:
    """The table says it of the viewer; this says what that means, without asking the table."""
    person = make_person(stage.database, role=Role.VIEWER)
    changed = [
        f"{line.name}: {told(answer)}"
        for line, answer in answers_to(stage, person)
        if line.endpoint.method != "GET" and not _is_ones_own(line) and answer.status_code != 403
    ]
    assert changed == []


def _is_ones_own(line: Line) -> bool:
    return any(isinstance(one, str) and one.startswith("account:") for one in line.endpoint.may)


def test_a_node_speaks_for_itself_alone(stage: Stage, resources: Resources) -> None:
    node = Node(stage.client, resources)
    wrong = [
        f"{line.name}: {told(answer)}"
        for line in CLOSED
        if (answer := stage.call(line, node.headers, space=None)).status_code not in _of_node(line)
    ]
    assert wrong == []


def _of_node(line: Line) -> Iterator[int]:
    speaks = "NODE" in " ".join(line_rights(line))
    of_another = "<id:worker_id>" in line.endpoint.path
    # Ids of others are refused; what is no worker's own path may be read or is not there.
    yield from (403,) if not speaks or of_another else (200, 204, 400, 404, 409, 415, 422)


def line_rights(line: Line) -> list[str]:
    return [one if isinstance(one, str) else one.name for one in line.endpoint.may]
