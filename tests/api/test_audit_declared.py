"""Endpoints that declare an act leave it in the audit trail, and those for admins alone cannot forget to."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.app import create_app, domain_slices
from coordinator.domains.identity.rights import RIGHTS, Role
from coordinator.domains.identity.service import Principal
from coordinator.http.actor import Actor
from coordinator.http.rights import ENROL, OPEN
from coordinator.http.schemas import Body, fields
from coordinator.http.slice import Call, Endpoint, Slice, mounted
from coordinator.http.sockets import WS
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.errors import Conflict, Invalid
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import trail_of


@pytest.fixture
def admin(database: Database) -> Principal:
    return make_person(database, role=Role.ADMIN, name="root")


def facts(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


class Order(Body):
    pin = fields.String(metadata={"secret": True})
    inner = fields.Nested({"seal": fields.String(metadata={"secret": True}), "note": fields.String()})
    note = fields.String()
    end = fields.String()


small = Slice("small", "Acts that only these tests do")


def _end(call: Call) -> None:
    errors = {"conflict": Conflict("no"), "invalid": Invalid("no"), "crash": RuntimeError("hush-hush")}
    if (end := call.body.get("end")) in errors:
        raise errors[end]


@small.post("/declared/<string:name>", may="users:write", body=Order, audit="fleet.paused", status=200)
def act_and_forget(call: Call, name: str) -> dict[str, Any]:
    """Declare an act, and say nothing of it."""
    _end(call)
    return {"id": "made"}


@small.post("/told", may="users:write", body=Order, audit=("fleet.paused", "user.created"), status=200)
def act_and_tell(call: Call) -> dict[str, Any]:
    """Tell first, and fail perhaps."""
    call.audit("user.created", resource_type="user", resource_id="u", before={"role": "viewer"}, after=call.body)
    _end(call)
    return {}


@small.post("/slow", may="users:write", body=Order, audit="fleet.paused", transaction="none", status=200)
def act_slowly(call: Call) -> dict[str, Any]:
    """Act in a transaction of its own, and forget to tell there."""
    return {"id": "made"}


class TestDeclarations:
    @pytest.fixture
    def client(self, make_app: Any) -> FlaskClient:
        made: Flask = make_app(slices=(small,))
        return made.test_client()

    @pytest.fixture
    def as_admin(self, client: FlaskClient, admin: Principal) -> dict[str, str]:
        return credentials_of(client.application, admin)

    def test_a_declared_act_leaves_a_row_although_its_handler_forgot(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str]
    ) -> None:
        body = {"pin": "1234", "inner": {"seal": "5678", "note": "x"}, "note": "y"}
        assert client.post("/api/v1/declared/thing", json=body, headers=as_admin).status_code == 200

        (row,) = trail_of(database)
        assert facts(row, "action", "outcome", "resource_type", "resource_id") == (
            "fleet.paused",
            "done",
            "fleet",
            "thing",
        )
        assert row["after"] == {"pin": "***", "inner": {"seal": "***", "note": "x"}, "note": "y"}

    def test_what_a_handler_tells_itself_is_not_told_twice(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str]
    ) -> None:
        client.post("/api/v1/told", json={"pin": "1234"}, headers=as_admin)

        (row,) = trail_of(database)
        assert facts(row, "action", "resource_type", "before") == ("user.created", "user", {"role": "viewer"})
        assert row["after"] == {"pin": "***"}

    @pytest.mark.parametrize(("end", "status"), [("conflict", 409), ("crash", 500)])
    def test_an_act_that_is_undone_is_not_told_as_done_but_as_failed(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str], end: str, status: int
    ) -> None:
        assert client.post("/api/v1/told", json={"end": end}, headers=as_admin).status_code == status

        (row,) = trail_of(database)
        assert facts(row, "action", "outcome", "actor_name") == ("fleet.paused", "failed", "root")
        assert "hush-hush" not in str(row)

    @pytest.mark.parametrize("body", [{"end": "invalid"}, {"unknown": 1}], ids=str)
    def test_a_request_that_is_wrong_in_itself_leaves_nothing(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str], body: dict[str, Any]
    ) -> None:
        assert client.post("/api/v1/told", json=body, headers=as_admin).status_code == 422
        assert trail_of(database) == []

    def test_forgetting_to_tell_in_a_transaction_of_ones_own_fails_the_tests(
        self, client: FlaskClient, as_admin: dict[str, str]
    ) -> None:
        assert client.post("/api/v1/slow", json={}, headers=as_admin).status_code == 500

    def test_and_in_production_the_row_is_written_all_the_same(
        self, resources: Resources, database: Database, admin: Principal
    ) -> None:
        app = create_app(resources, slices=(small,))
        headers = credentials_of(app, admin)
        assert app.test_client().post("/api/v1/slow", json={}, headers=headers).status_code == 200
        assert [row["resource_id"] for row in trail_of(database)] == ["made"]

    @pytest.mark.parametrize(
        ("method", "options", "fault"),
        [
            ("post", {"audit": "worker.aproved"}, "catalogue"),
            ("get", {"audit": "fleet.paused"}, "transaction"),
        ],
    )
    def test_a_declaration_that_cannot_be_kept_is_refused(
        self, method: str, options: dict[str, Any], fault: str
    ) -> None:
        with pytest.raises(TypeError, match=fault):
            getattr(Slice("x", "x"), method)("/x", may="users:write", **options)(lambda call: None)


# ---- forgetting is impossible


def is_for_admins_alone(endpoint: Endpoint) -> bool:
    """Whether it changes something, and no role but the admin's lets anybody in."""
    if endpoint.method in ("GET", WS) or OPEN in endpoint.may:
        return False
    operator = Actor(id="x", kind="user", name="x", rights=RIGHTS[Role.OPERATOR])
    rights = ["workers:enrol" if one is ENROL else one for one in endpoint.may]
    named = [one for one in rights if isinstance(one, str)]
    return bool(named) and not any(operator.may(one) for one in named)


ADMIN_ACTS = [endpoint for endpoint, _ in mounted(domain_slices()) if is_for_admins_alone(endpoint)]


def test_there_are_acts_for_admins_alone() -> None:
    assert {"approve_worker", "create_enrolment_token"} <= {endpoint.name for endpoint in ADMIN_ACTS}


def test_every_act_for_admins_alone_declares_what_it_leaves_in_the_trail() -> None:
    silent = [f"{endpoint.method} {endpoint.path}" for endpoint in ADMIN_ACTS if not endpoint.audit]
    assert silent == [], "say audit='noun.verb' in the declaration: actions are in identity/audit_actions.py"


def test_every_login_declares_that_it_is_told() -> None:
    posts = [endpoint for endpoint, _ in mounted(domain_slices()) if endpoint.method == "POST"]
    logins = [endpoint for endpoint in posts if endpoint.path.endswith("/login")]
    assert logins
    assert [endpoint.path for endpoint in logins if endpoint.audit != ("session.opened",)] == []
