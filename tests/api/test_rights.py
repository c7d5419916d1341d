"""Every endpoint declares who may call it, and means it. New endpoints are covered by being declared."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.app import domain_slices
from coordinator.domains.identity.rights import NOUNS, RIGHTS, Role
from coordinator.http.actor import Actor
from coordinator.http.rights import ENROL, NODE, Gate, describe
from coordinator.http.slice import PREFIXES, Endpoint, mounted, routes
from coordinator.http.sockets import WS
from coordinator.store.database import Database
from shared.ids import new_id
from tests.factories.people import credentials_of, make_person

OPEN_TO_ALL = {
    ("GET", "/api-docs/openapi.json"),
    ("GET", "/api/v0/health"),
    ("GET", "/api/v0/health/ready"),
    ("GET", "/api/v0/version"),
    ("GET", "/api/v1/files/<id:file_id>/content"),  # the link is signed, and good for an hour
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/health/ready"),
    ("GET", "/api/v1/metrics"),
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/login"),  # the log-in page, its style, and the way out, which does nothing without a login
    ("GET", "/login/style.css"),
    ("GET", "/metrics"),
    ("GET", "/swagger-ui"),
    ("GET", "/swagger-ui/<string:asset>"),
    ("POST", "/api/v0/auth/internal"),
    ("POST", "/api/v0/auth/external"),  # takes the proof of a provider that an admin has set up
    ("POST", "/api/v0/auth/login"),
    ("POST", "/api/v0/operators/<string:name>/login"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/mfa/verify"),  # finishes a login; without the token of one it asks for a Bearer token itself
    ("POST", "/api/v1/auth/refresh"),
    ("POST", "/api/v1/auth/register"),  # answers 403 beyond loopback until an admin opens it
    ("POST", "/login"),
    ("POST", "/logout"),
}
"""Adding a line here opens an endpoint to anybody: ask for a second pair of eyes."""

MOUNTED = list(mounted(domain_slices()))
READING = {"GET", WS}
# A socket may be opened by anybody and shows its token in the first message: its own tests refuse it there.
CLOSED = [(endpoint, version) for endpoint, version in MOUNTED if not endpoint.is_open and endpoint.method != WS]


def path_of(endpoint: Endpoint, version: str) -> str:
    filled = re.sub(r"<id:\w+>", lambda _: new_id(), endpoint.path.replace("<string:space>", "default"))
    return PREFIXES[version] + re.sub(r"<(?:\w+:)?\w+>", "something", filled)


def name_of(value: Any) -> str:
    return f"{value.method} {value.path}" if isinstance(value, Endpoint) else str(value)


def called(client: FlaskClient, endpoint: Endpoint, version: str, headers: dict[str, str]) -> TestResponse:
    return client.open(path_of(endpoint, version), method=endpoint.method, headers=headers)


def role_without(endpoint: Endpoint) -> Role | None:
    """The most powerful built-in role that none of the declared alternatives lets in."""
    for role in Role:
        actor = Actor(id="x", kind="user", name="x", rights=RIGHTS[role])
        needed = ["workers:enrol" if one is ENROL else one for one in endpoint.may if one is not NODE]
        if not any(isinstance(one, str) and actor.may(one) for one in needed):
            return role
    return None


REFUSABLE = [(endpoint, version) for endpoint, version in CLOSED if role_without(endpoint) is not None]


def test_exactly_the_listed_endpoints_are_open() -> None:
    opened = {(endpoint.method, PREFIXES[version] + endpoint.path) for endpoint, version in MOUNTED if endpoint.is_open}
    assert opened == OPEN_TO_ALL


def test_nothing_is_served_that_was_not_declared(app: Flask) -> None:
    declared = {("GET" if line.method == WS else line.method, line.path) for line in routes(app)}
    served = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == declared


def test_every_noun_of_a_right_is_in_the_table_of_roles() -> None:
    nouns = {one.partition(":")[0] for endpoint, _ in MOUNTED for one in endpoint.may if isinstance(one, str)}
    assert nouns <= NOUNS.keys(), "say in identity/rights.py which roles may read it and which may act on it"


def test_reading_is_called_read() -> None:
    odd = {
        (endpoint.path, one)
        for endpoint, _ in MOUNTED
        for one in endpoint.may
        if not isinstance(one, Gate) and endpoint.method not in READING and one.endswith((":read", ":get", ":list"))
    }
    assert not odd, "a right to read must not be enough to change something"


@pytest.mark.parametrize(("endpoint", "version"), CLOSED, ids=name_of)
def test_an_anonymous_caller_is_refused(client: FlaskClient, endpoint: Endpoint, version: str) -> None:
    response = called(client, endpoint, version, {})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="longshore"')
    assert response.json is not None
    assert response.json["error"]["code"] == "AUTHENTICATION_ERROR"


@pytest.mark.parametrize(("endpoint", "version"), REFUSABLE, ids=name_of)
def test_a_role_without_the_right_is_refused(
    app: Flask, client: FlaskClient, database: Database, endpoint: Endpoint, version: str
) -> None:
    role = role_without(endpoint)
    assert role is not None
    response = called(client, endpoint, version, credentials_of(app, make_person(database, role=role)))
    assert response.json is not None
    assert (response.status_code, response.json["error"]["code"]) == (403, "AUTHORIZATION_ERROR")
    assert response.json["error"]["details"]["required"] == describe(endpoint.may)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.VIEWER, ["tasks:get", "workers:list", "account:update"], ["tasks:update", "users:get", "audit:list"]),
        (
            Role.OPERATOR,
            ["tasks:create", "agents:delete", "workers:get"],
            ["workers:approve", "users:get", "dead_letters:list"],
        ),
        (Role.ADMIN, ["tasks:create", "workers:approve", "users:update", "anything:at_all"], []),
    ],
)
def test_roles_may_what_they_are_for(role: Role, may: list[str], may_not: list[str]) -> None:
    actor = Actor(id="x", kind="user", name="x", rights=RIGHTS[role])
    assert [right for right in may if not actor.may(right)] == []
    assert [right for right in may_not if actor.may(right)] == []


def test_a_noun_without_a_line_in_the_table_is_the_admins_alone() -> None:
    for role in (Role.VIEWER, Role.OPERATOR):
        assert not Actor(id="x", kind="user", name="x", rights=RIGHTS[role]).may("forgotten:get")
