"""Knowing who calls costs one query, and knowing that somebody may not costs none more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from coordinator.domains.identity.rights import Role
from coordinator.store.database import Database
from tests.api.probe import probe
from tests.factories.people import credentials_of, hold, make_person
from tests.factories.spaces import make_space
from tests.fixtures.coordinator import MakeApp


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Endpoints that ask the database nothing themselves."""
    return make_app(slices=(probe,))


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    sent: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def ask(client: FlaskClient, database: Database, path: str, headers: dict[str, str]) -> tuple[int, list[str]]:
    """Status and statements of a request that is not the first of its kind."""
    for _ in range(11):
        # Beyond ten a minute a refusal gets no row of its own in the trail.
        client.get(path, headers=headers)
    with counted(database) as sent:
        status = client.get(path, headers=headers).status_code
    return status, sent


def test_an_open_read_asks_nothing_and_an_authenticated_one_a_single_query(
    app: Flask, client: FlaskClient, database: Database
) -> None:
    headers = credentials_of(app, make_person(database))
    assert ask(client, database, "/api/v1/faults/none", {}) == (200, [])
    status, sent = ask(client, database, "/api/v1/numbers", headers)
    assert (status, len(sent)) == (200, 1), sent


@pytest.mark.parametrize("bindings", [0, 1, 5])
def test_it_is_one_query_however_many_roles_somebody_holds(
    app: Flask, client: FlaskClient, database: Database, bindings: int
) -> None:
    person = make_person(database, role=None)
    for number in range(bindings):
        make_space(database, f"space-{number}")
        hold(database, person, Role.OPERATOR, space=f"space-{number}")
    hold(database, person, Role.VIEWER)
    _, sent = ask(client, database, "/api/v1/numbers", credentials_of(app, person))
    assert len(sent) == 1, sent


def test_a_forged_token_and_a_missing_one_ask_nothing(app: Flask, client: FlaskClient, database: Database) -> None:
    for headers in ({}, {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}):
        assert ask(client, database, "/api/v1/numbers", headers) == (401, [])


def test_whoever_may_not_is_refused_after_that_one_query(app: Flask, client: FlaskClient, database: Database) -> None:
    headers = credentials_of(app, make_person(database, role=Role.USER))
    status, sent = ask(client, database, "/api/v1/ships/x/log", headers)
    assert (status, len(sent)) == (403, 1), sent
