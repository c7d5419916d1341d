"""From where one may call: asked before anything else, and no admin locks themselves out unawares."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from coordinator.app import create_app
from coordinator.domains.identity.ip_rules import Rule, lets_in
from coordinator.domains.identity.rights import Role
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.fleet import TestNode as Node
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import trail_of

PATH = "/api/v1/security/ip-rules"
OFFICE = {"cidr": "192.0.2.0/24", "action": "allow", "description": "the office"}
GUEST = {"cidr": "192.0.2.66", "action": "deny"}


@pytest.fixture
def admin(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database, role=Role.ADMIN))


def at(address: str) -> dict[str, Any]:
    return {"environ_overrides": {"REMOTE_ADDR": address}}


def put(client: FlaskClient, admin: dict[str, str], *rules: Any, address: str = "127.0.0.1", **more: Any) -> Any:
    return client.put(PATH, json={"rules": rules, **more}, headers=admin, **at(address))


def rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule.of({"cidr": cidr, "action": action}) for cidr, action in pairs)


@pytest.mark.parametrize(
    ("listed", "address", "may"),
    [
        ((), "203.0.113.9", True),
        ((("192.0.2.0/24", "allow"),), "192.0.2.7", True),
        ((("192.0.2.0/24", "allow"),), "203.0.113.9", False),
        ((("192.0.2.0/24", "deny"),), "203.0.113.9", True),
        ((("192.0.2.0/24", "deny"),), "192.0.2.7", False),
        ((("192.0.2.0/24", "deny"), ("192.0.2.7/32", "allow")), "192.0.2.7", False),
        ((("192.0.2.0/24", "allow"),), "::ffff:192.0.2.7", True),
        ((("192.0.2.0/24", "deny"),), "::ffff:192.0.2.7", False),
        ((("2001:db8::/32", "allow"),), "2001:db8::1", True),
        ((("2001:db8::/32", "allow"),), "192.0.2.7", False),
        ((("fe80::/10", "allow"),), "fe80::1%eth0", True),
        ((("0.0.0.0/0", "deny"), ("::/0", "deny")), "127.0.0.1", True),
        ((("0.0.0.0/0", "deny"), ("::/0", "deny")), "::1", True),
        ((("0.0.0.0/0", "deny"),), None, True),
        ((("192.0.2.0/24", "allow"),), "not an address", False),
        ((("192.0.2.0/24", "deny"),), "not an address", False),
    ],
)
def test_denial_wins_and_a_list_of_allowed_ones_shuts_out_the_rest(
    listed: tuple[tuple[str, str], ...], address: str | None, may: bool
) -> None:
    assert lets_in(rules(*listed), address) is may


def test_an_admin_sets_them_and_they_hold_at_once(client: FlaskClient, admin: dict[str, str]) -> None:
    assert client.get(PATH, headers=admin).json == {"rules": []}
    answer = put(client, admin, OFFICE, GUEST)
    assert (answer.status_code, answer.json) == (
        200,
        {"rules": [OFFICE, {"cidr": "192.0.2.66/32", "action": "deny", "description": None}]},
    )
    assert client.get(PATH, headers=admin, **at("192.0.2.7")).json == answer.json
    for outside in ("192.0.2.66", "203.0.113.9"):
        refused = client.get(PATH, headers=admin, **at(outside))
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "AUTHORIZATION_ERROR")  # type: ignore[index]


def test_who_is_shut_out_learns_nothing_else(client: FlaskClient, admin: dict[str, str]) -> None:
    put(client, admin, OFFICE)
    asked = [
        client.get("/api/v1/agents", **at("203.0.113.9")),
        client.get("/api/v1/agents", headers={"Authorization": "Bearer wrong"}, **at("203.0.113.9")),
        client.post("/api/v1/auth/login", json={"email": "a", "password": "b"}, **at("203.0.113.9")),
        client.post("/api/v0/auth/login", json={"user": "a", "pass": "b"}, **at("203.0.113.9")),
        client.get("/api/v0/auth/me", **at("203.0.113.9")),
    ]
    assert {one.status_code for one in asked} == {403}
    assert len({one.data for one in asked}) == 1


def test_whether_we_live_is_told_to_everybody(client: FlaskClient, admin: dict[str, str]) -> None:
    put(client, admin, OFFICE)
    assert client.get("/api/v1/health", **at("203.0.113.9")).status_code == 200


def test_nodes_are_held_to_them(client: FlaskClient, resources: Resources, admin: dict[str, str]) -> None:
    node = Node(client, resources)
    put(client, admin, OFFICE)
    path = f"/api/v1/workers/{node.id}/heartbeat"
    assert client.post(path, json={}, headers=node.headers, **at("203.0.113.9")).status_code == 403


def test_rules_that_shut_out_their_author_are_taken_only_if_meant(client: FlaskClient, admin: dict[str, str]) -> None:
    refused = put(client, admin, GUEST, address="192.0.2.66")
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "CONFLICT")
    assert client.get(PATH, headers=admin).json == {"rules": []}
    assert put(client, admin, GUEST, address="192.0.2.66", confirm=True).status_code == 200
    assert client.get(PATH, headers=admin, **at("192.0.2.66")).status_code == 403
    assert put(client, admin, address="127.0.0.1").status_code == 200
    assert client.get(PATH, headers=admin, **at("192.0.2.66")).status_code == 200


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"cidr": "192.0.2.7/24", "action": "allow"}, "rules[0].cidr"),
        ({"cidr": "everywhere", "action": "allow"}, "rules[0].cidr"),
        ({"cidr": "192.0.2.0/24", "action": "maybe"}, "rules[0].action"),
        ({"action": "deny"}, "rules[0].cidr"),
        ({"cidr": "192.0.2.0/24", "action": "deny", "role": "admin"}, "rules[0].role"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(
    client: FlaskClient, admin: dict[str, str], rule: Any, field: str
) -> None:
    answer = put(client, admin, rule)
    assert (answer.status_code, answer.json["error"]["details"]["field"]) == (422, field)


def test_the_trail_tells_of_the_change_and_of_who_was_shut_out(
    client: FlaskClient, admin: dict[str, str], database: Database
) -> None:
    put(client, admin, GUEST)
    client.get("/api/v1/agents", headers=admin, **at("192.0.2.66"))
    rows = {row["action"]: row for row in trail_of(database)}
    assert rows["ip_rules.changed"]["before"] == {"rules": []}
    assert rows["ip_rules.changed"]["after"]["rules"][0]["cidr"] == "192.0.2.66/32"
    assert (rows["request.refused"]["address"], rows["request.refused"]["outcome"]) == ("192.0.2.66", "refused")


def test_another_process_follows_within_two_seconds(
    app: Flask, client: FlaskClient, admin: dict[str, str], resources: Resources, clock: FrozenClock
) -> None:
    """The rules are read by one query in two seconds, however many requests come."""
    put(client, admin, GUEST)
    queries: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        queries.append(statement)

    engine = resources.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        for _ in range(5):
            client.get("/api/v0/version")
        clock.advance(1.9)
        client.get("/api/v0/version")
        within = [one for one in queries if "security_settings" in one]
        clock.advance(0.2)
        client.get("/api/v0/version")
        after = [one for one in queries if "security_settings" in one]
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert (len(within), len(after)) == (1, 2)


def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_tells(
    settings: Any, resources: Resources, client: FlaskClient, admin: dict[str, str]
) -> None:
    put(client, admin, GUEST)
    behind = create_app(
        Resources(**{**_parts(resources), "settings": settings.model_copy(update={"proxy_count": 1})})
    ).test_client()
    told = {"X-Forwarded-For": "192.0.2.66"}
    assert behind.get("/api/v0/version", headers=told).status_code == 403
    assert behind.get("/api/v0/version", headers={"X-Forwarded-For": "192.0.2.66, 192.0.2.1"}).status_code == 200
    # Nobody who is not behind a proxy chooses an address.
    assert client.get("/api/v0/version", headers=told).status_code == 200


def _parts(resources: Resources) -> dict[str, Any]:
    return {name: getattr(resources, name) for name in Resources.__dataclass_fields__}
