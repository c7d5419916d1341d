"""What an attacker tries first: tokens that are not what they say, ids of others, bodies that say too much."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import Schema
from werkzeug.test import TestResponse

from coordinator.config import Settings
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.http import auth
from coordinator.http.schemas import fields as wire
from coordinator.http.slice import PREFIXES
from coordinator.http.sockets import WS
from coordinator.resources import Resources, derive_key
from coordinator.store.database import Database
from scripts.rights_table import Cell, Line, lines
from shared.clock import FrozenClock
from shared.ids import new_id
from tests.factories.people import credentials_of, hold, make_person
from tests.factories.spaces import make_space

PASSWORD = "Right-Horse-1-Battery"
CALLS = [line for line in lines() if line.endpoint.method != WS]


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, role=Role.OPERATOR, name="ada", email="ada@example.com", password=PASSWORD)


def pair_of(client: FlaskClient, login: str = "ada@example.com") -> dict[str, Any]:
    answer = client.post("/api/v1/auth/login", json={"email": login, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json  # type: ignore[assignment]
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
class TestTokens:
    def test_a_token_without_a_signature_is_nobodys(self, client: FlaskClient, ada: Principal) -> None:
        _, claims, signature = pair_of(client)["access_token"].split(".")
        for algorithm in ("none", "None", "NONE", ""):
            header = _segment({"alg": algorithm, "typ": "JWT"})
            for end in ("", signature):
                assert _me(client, f"{header}.{claims}.{end}").status_code == 401

    def test_the_attacks_here_are_made_against_the_algorithm_in_use(self) -> None:
        assert auth.ALGORITHM == "HS256"

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_another_algorithm_with_the_right_key_is_refused(
        self, client: FlaskClient, ada: Principal, settings: Settings, algorithm: str
    ) -> None:
        assert _me(client, _resigned(pair_of(client)["access_token"], _key(settings), algorithm)).status_code == 401
        assert _me(client, _resigned(pair_of(client)["access_token"], _key(settings), "HS256")).status_code == 200

    @pytest.mark.parametrize("purpose", ["csrf", "idempotency", "files", ""])
    def test_a_key_that_serves_another_purpose_signs_no_token(
        self, client: FlaskClient, ada: Principal, settings: Settings, purpose: str
    ) -> None:
        secret = settings.secret_key.get_secret_value()
        key = derive_key(secret, purpose) if purpose else secret.encode()
        assert _me(client, _resigned(pair_of(client)["access_token"], key, "HS256")).status_code == 401

    @pytest.mark.parametrize(
        "header",
        [{"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example"}, {"kid": "../../dev/null"}],
        ids=str,
    )
    def test_a_token_does_not_choose_its_own_key(
        self, client: FlaskClient, ada: Principal, header: dict[str, Any]
    ) -> None:
        claims = jwt.decode(pair_of(client)["access_token"], options={"verify_signature": False})
        for key in (b"", b"0" * 32):
            with_jwk = header | {"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(key).decode()}}
            assert _me(client, jwt.encode(claims, key or b"\0", "HS256", headers=with_jwk)).status_code == 401

    def test_one_that_has_expired_is_good_for_nothing(
        self, client: FlaskClient, ada: Principal, clock: FrozenClock
    ) -> None:
        token = pair_of(client)["access_token"]
        clock.advance(1801)
        assert _me(client, token).status_code == 401

    def test_a_token_serves_the_purpose_it_was_made_for(self, client: FlaskClient, app: Flask, ada: Principal) -> None:
        pair = pair_of(client)
        with app.app_context():
            claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
            minted = {
                kind: app.extensions["longshore"].tokens.mint(kind, ada.id, seconds=60, claims={"sid": claims["sid"]})
                for kind in ("refresh", "step", "browser")
            }
        for kind, token in {**minted, "refresh itself": pair["refresh_token"]}.items():
            assert _me(client, token).status_code == 401, kind
        for token in (pair["access_token"], minted["step"], minted["browser"]):
            assert client.post("/api/v1/auth/refresh", json={"refresh_token": token}).status_code == 401
        for token in (pair["access_token"], pair["refresh_token"], minted["browser"]):
            answer = client.post("/api/v1/auth/mfa/verify", json={"temp_token": token, "code": "000000"})
            assert answer.status_code == 401

    def test_a_claim_cannot_be_added_to_a_token(self, client: FlaskClient, ada: Principal, settings: Settings) -> None:
        header, claims, signature = pair_of(client)["access_token"].split(".")
        raised = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"role": "admin", "rights": ["*"]}
        assert _me(client, f"{header}.{_segment(raised)}.{signature}").status_code == 401
        # Even one with our signature says nothing about rights: they are the database's to tell.
        told = jwt.encode(raised, _key(settings), "HS256")
        assert client.get("/api/v1/admin/users", headers=bearer(told)).status_code == 403

    def test_a_refresh_token_that_is_shown_twice_ends_the_login_for_both(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        stolen = pair_of(client)["refresh_token"]
        owner = client.post("/api/v1/auth/refresh", json={"refresh_token": stolen})
        assert owner.status_code == 200
        assert client.post("/api/v1/auth/refresh", json={"refresh_token": stolen}).status_code == 401
        assert owner.json is not None
        assert _me(client, owner.json["access_token"]).status_code == 401
        answer = client.post("/api/v1/auth/refresh", json={"refresh_token": owner.json["refresh_token"]})
        assert answer.status_code == 401


def _me(client: FlaskClient, token: str) -> TestResponse:
    return client.get("/api/v1/auth/me", headers=bearer(token))


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _key(settings: Settings) -> bytes:
    return derive_key(settings.secret_key.get_secret_value(), "jwt")


def _resigned(token: str, key: bytes, algorithm: str) -> str:
    return jwt.encode(jwt.decode(token, options={"verify_signature": False}), key, algorithm)


class TestGuessing:
    def test_many_addresses_guess_no_faster_and_do_not_lock_the_owner_out(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        def come(password: str, address: str) -> int:
            body = {"email": "ada@example.com", "password": password}
            answer = client.post("/api/v1/auth/login", json=body, environ_overrides={"REMOTE_ADDR": address})
            return answer.status_code

        assert come(PASSWORD, "192.0.2.1") == 200
        guesses = {come("wrong", f"198.51.100.{number}") for number in range(60)}
        assert guesses == {401}
        # From where nobody knows her not even the right password is taken now; from where she came before, it is.
        assert come(PASSWORD, "203.0.113.5") == 401
        assert come(PASSWORD, "192.0.2.1") == 200


DANGEROUS = {
    "active",
    "created_by",
    "id",
    "is_active",
    "is_admin",
    "kind",
    "owner",
    "owner_id",
    "password_hash",
    "permissions",
    "plan",
    "principal_id",
    "rights",
    "role",
    "roles",
    "user_id",
    "version",
}
MEANT = {
    ("POST /api/v1/security/api-keys", "plan"): "never larger than one's own",
    ("PUT /api/v0/spaces/<string:space>", "active"): "of the space",
}
"""Fields with a dangerous name that others than admins may send, and why that is no danger."""


class TestBodiesThatSayTooMuch:
    def test_nobody_but_an_admin_may_send_a_field_that_makes_somebody_more(self) -> None:
        found = {
            (line.name, name)
            for line in CALLS
            if line.endpoint.body is not None and _is_about_people(line) and not _is_the_admins(line)
            for name in _fields(line.endpoint.body) & DANGEROUS
        }
        assert found - MEANT.keys() == set(), "say in MEANT why this is no way to more rights"

    @pytest.mark.parametrize("field", sorted(DANGEROUS))
    def test_v1_refuses_it_by_name(self, client: FlaskClient, app: Flask, ada: Principal, field: str) -> None:
        body = {"email": "eve@example.com", "password": PASSWORD, "full_name": "Eve", field: "admin"}
        answer = client.post("/api/v1/auth/register", json=body)
        assert (answer.status_code, answer.json["error"]["details"]["field"]) == (422, field)  # type: ignore[index]
        own = client.put("/api/v1/auth/me", json={"full_name": "Ada", field: "admin"}, headers=credentials_of(app, ada))
        assert (own.status_code, own.json["error"]["details"]["field"]) == (422, field)  # type: ignore[index]

    def test_v0_ignores_what_it_does_not_know(self, client: FlaskClient, app: Flask, database: Database) -> None:
        admin = credentials_of(app, make_person(database, role=Role.ADMIN))
        body = {"user": "robot", "pass": PASSWORD, **dict.fromkeys(DANGEROUS - {"active"}, "admin")}
        made = client.post("/api/v0/service-accounts", json=body, headers=admin)
        assert made.status_code == 201, made.text
        answer = client.post("/api/v0/auth/login", json={"user": "robot", "pass": PASSWORD})
        assert answer.json is not None
        assert client.get("/api/v0/roles", headers=bearer(answer.json["token"])).status_code == 403

    def test_a_key_is_given_no_larger_plan_than_ones_own(
        self, client: FlaskClient, app: Flask, database: Database
    ) -> None:
        admin = credentials_of(app, make_person(database, role=Role.ADMIN))
        bob = make_person(database, role=Role.OPERATOR, name="bob")
        answer = client.patch(f"/api/v1/admin/users/{bob.id}", json={"plan": "free"}, headers=admin)
        assert answer.status_code == 200, answer.text
        body = {"name": "k", "plan": "enterprise"}
        refused = client.post("/api/v1/security/api-keys", json=body, headers=credentials_of(app, bob))
        assert refused.status_code == 403


def _is_the_admins(line: Line) -> bool:
    others = (role for role in Role if role is not Role.ADMIN)
    return not line.endpoint.is_open and all(line.cell(role) is Cell.NOWHERE for role in others)


PEOPLE = ("/auth", "/security", "/admin/users", "/operators", "/service-accounts", "/spaces", "/role")


def _is_about_people(line: Line) -> bool:
    return line.endpoint.path.startswith(PEOPLE)


def _fields(shape: Any) -> set[str]:
    schema: Schema = shape() if isinstance(shape, type) else shape
    return {each.data_key or name for name, each in schema.load_fields.items() if not isinstance(each, wire.Constant)}


@dataclass(frozen=True)
class Belongings:
    """Things of somebody else: the names of path arguments and what to put there."""

    ids: dict[str, str]

    def path(self, line: Line, *, real: bool) -> str | None:
        """The path with these ids, or with ids that nothing has; None for one that takes none of them."""
        named = re.findall(r"<(?:\w+:)?(\w+)>", line.endpoint.path)
        if not set(named) & self.ids.keys():
            return None
        path = line.endpoint.path
        for name in named:
            put = self.ids.get(name, "x") if real else new_id()
            path = re.sub(rf"<(?:\w+:)?{name}>", put, path)
        return PREFIXES[line.version] + path


class TestIdsOfOthers:
    """An id of another space, or of another user, gets the very answer that an id of nothing gets."""

    @pytest.fixture
    def theirs(self, app: Flask, client: FlaskClient, database: Database) -> Belongings:
        make_space(database, "theirs")
        bob = make_person(database, role=Role.OPERATOR, name="bob")
        headers = {**credentials_of(app, bob), "X-Space": "theirs"}

        def made(path: str, body: Any) -> str:
            answer = client.post(f"/api/v1{path}", json=body, headers=headers)
            assert answer.status_code in (201, 202), answer.text
            assert answer.json is not None
            return str(answer.json["id"])

        agent = made("/agents", {"name": "secret-agent"})
        task = made("/tasks", {"title": "secret", "instructions": "true", "agent_id": agent})
        execution = made(f"/agents/{agent}/execute", {"input": {"command": "true"}})
        key = made("/security/api-keys", {"name": "secret-key"})
        session = jwt.decode(headers["Authorization"].partition(" ")[2], options={"verify_signature": False})["sid"]
        return Belongings(
            {
                "agent_id": agent,
                "task_id": task,
                "execution_id": execution,
                "job_id": task,
                "id": task,
                "key_id": key,
                "session_id": session,
            }
        )

    @pytest.mark.parametrize("space", ["default", "mine"])
    def test_are_the_ids_of_nothing(
        self, app: Flask, client: FlaskClient, database: Database, theirs: Belongings, space: str
    ) -> None:
        if space == "mine":
            make_space(database, "mine")
        eve = make_person(database, role=None, name="eve")
        hold(database, eve, Role.ADMIN, space=space)
        told = list(_differences(client, theirs, {**credentials_of(app, eve), "X-Space": space}))
        assert told == []

    def test_that_comparison_would_see_a_leak(
        self, app: Flask, client: FlaskClient, database: Database, theirs: Belongings
    ) -> None:
        """Whoever does reach the space gets other answers: the comparison is not between two refusals by accident."""
        friend = make_person(database, role=Role.OPERATOR, name="friend")
        told = list(_differences(client, theirs, {**credentials_of(app, friend), "X-Space": "theirs"}))
        assert {"GET /api/v1/agents/<id:agent_id>", "GET /api/v1/tasks/<id:task_id>"} <= {
            line.partition(": ")[0] for line in told
        }

    def test_keys_and_sessions_of_another_user_stay_theirs(
        self, app: Flask, client: FlaskClient, database: Database, theirs: Belongings
    ) -> None:
        eve = credentials_of(app, make_person(database, role=Role.OPERATOR, name="eve"))
        for path in (f"security/api-keys/{theirs.ids['key_id']}", f"security/sessions/{theirs.ids['session_id']}"):
            assert client.delete(f"/api/v1/{path}", headers=eve).status_code in (403, 404)
        for listed in ("api-keys", "sessions"):
            answer = client.get(f"/api/v1/security/{listed}", headers=eve)
            assert theirs.ids["key_id"] not in answer.text
            assert theirs.ids["session_id"] not in answer.text


def _differences(client: FlaskClient, theirs: Belongings, headers: dict[str, str]) -> Iterator[str]:
    """Every call that answers differently for an id of theirs than for one of nothing."""
    for line in CALLS:
        real, nothing = theirs.path(line, real=True), theirs.path(line, real=False)
        if real is None or nothing is None or line.endpoint.is_open:
            continue
        answers = [
            _plain(client.open(path, method=line.endpoint.method, headers=headers, json=_body(line)))
            for path in (real, nothing)
        ]
        if answers[0] != answers[1]:
            yield f"{line.name}: {answers}"


def _body(line: Line) -> Any:
    return None if line.endpoint.method == "GET" else {}


def _plain(answer: TestResponse) -> tuple[int, str]:
    """Status and text without ids and numbers, which differ with every request."""
    return answer.status_code, re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", answer.text)


NASTY = ["\0", "\r\nSet-Cookie: a=b", "\x1b[31m", "x" * 3000, "'; DROP TABLE principals; --", "%", "\u202e", "🙂", "-1"]


class TestTextsThatAreNot:
    def test_no_query_makes_the_server_fail(self, app: Flask, client: FlaskClient, database: Database) -> None:
        admin = credentials_of(app, make_person(database, role=Role.ADMIN))
        failed = []
        for line in CALLS:
            if line.endpoint.method != "GET" or line.endpoint.query is None or "<" in line.endpoint.path:
                continue
            for nasty in NASTY:
                query = dict.fromkeys([*_fields(line.endpoint.query), "limit2", nasty], nasty)
                for name in query:
                    path = PREFIXES[line.version] + line.endpoint.path
                    answer = client.get(path, query_string={name: nasty}, headers=admin)
                    failed += [f"{line.name} {name}={nasty[:20]!r}: {answer.status_code}"][: answer.status_code // 500]
        assert failed == []

    def test_no_name_in_a_path_makes_the_server_fail(self, app: Flask, client: FlaskClient, database: Database) -> None:
        admin = credentials_of(app, make_person(database, role=Role.ADMIN))
        failed = []
        for line in CALLS:
            named = re.findall(r"<(?:string:|path:)?(?!id:)\w+>", line.endpoint.path)
            if not named or line.endpoint.method != "GET":
                continue
            for nasty in ["%00", "%0d%0aa:b", "%1b", "..", "..%2f..%2fetc%2fpasswd", "x" * 3000, "%ff", "%f0%9f%99%82"]:
                path = re.sub(r"<id:\w+>", lambda _: new_id(), line.endpoint.path)
                path = re.sub(r"<(?:\w+:)?\w+>", nasty, path)
                answer = client.get(PREFIXES[line.version] + path, headers=admin)
                failed += [f"{line.name} {nasty[:20]}: {answer.status_code}"][: answer.status_code // 500]
        assert failed == []

    @pytest.mark.parametrize("nasty", ["a\r\nSet-Cookie: x=1", "\x1b[2J", "a\nlevel=error", "x" * 200, "", "ünï"])
    def test_an_id_of_a_request_is_plain_or_ours(self, client: FlaskClient, nasty: str) -> None:
        given = nasty.encode().decode("latin-1")
        answer = client.get("/api/v1/agents", environ_overrides={"HTTP_X_REQUEST_ID": given})
        assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-ID"])
        assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize("nasty", ["a\r\nSet-Cookie: x=1", "\0", "x" * 5000, "ünï"])
    def test_a_space_that_cannot_be_is_not_there(
        self, app: Flask, client: FlaskClient, database: Database, nasty: str
    ) -> None:
        headers = credentials_of(app, make_person(database, role=Role.ADMIN))
        given = {"HTTP_X_SPACE": nasty.encode().decode("latin-1")}
        answer = client.get("/api/v1/agents", headers=headers, environ_overrides=given)
        assert answer.status_code in (400, 404, 422)
        assert "Set-Cookie" not in answer.headers

    def test_a_name_makes_no_header(self, app: Flask, client: FlaskClient, database: Database) -> None:
        admin = credentials_of(app, make_person(database, role=Role.ADMIN))
        usual: dict[str, dict[str, Any]] = {
            "/api/v0/roles": {"rules": []},
            "/api/v0/spaces": {},
            "/api/v0/service-accounts": {"pass": PASSWORD},
            "/api/v0/operators": {"pass": PASSWORD},
            "/api/v1/circuit-breakers": {},
            "/api/v1/agents": {},
        }
        for path, body in usual.items():
            for nasty in ("a\r\nSet-Cookie: x=1", "a\nb", "\u2028", "a/../b", "ü\x1b"):
                answer = client.post(path, json={"name": nasty, "user": nasty, **body}, headers=admin)
                assert answer.status_code < 500, (path, nasty, answer.text)
                location = answer.headers.get("Location", "")
                assert re.fullmatch(r"[!-~]*", location), (path, location)


class TestBodiesThatAreTooMuch:
    @pytest.mark.parametrize("path", ["/api/v1/auth/login", "/api/v0/auth/login", "/api/v1/agents", "/login"])
    def test_a_body_that_is_too_large_is_not_read(
        self, client: FlaskClient, app: Flask, ada: Principal, settings: Settings, path: str
    ) -> None:
        answer = client.post(
            path, data=b"x" * (settings.max_body_bytes + 1), headers=credentials_of(app, ada), content_type="text/plain"
        )
        assert answer.status_code in (403, 413) if path == "/login" else answer.status_code == 413

    @pytest.mark.parametrize(
        "deep", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000], ids=["a", "o", "closed"]
    )
    def test_a_body_that_is_too_deep_is_refused(
        self, client: FlaskClient, app: Flask, ada: Principal, deep: str
    ) -> None:
        body = f'{{"name": "x", "config": {deep}}}'
        answer = client.post(
            "/api/v1/agents", data=body, headers=credentials_of(app, ada), content_type="application/json"
        )
        assert answer.status_code == 400

    def test_what_is_nested_as_deep_as_can_be_read_breaks_nothing(
        self, client: FlaskClient, app: Flask, ada: Principal
    ) -> None:
        agent = client.post("/api/v1/agents", json={"name": "deep"}, headers=credentials_of(app, ada)).json
        assert agent is not None
        for depth, status in ((60, 202), (190, 202), (200, 400), (255, 400), (1020, 400)):
            given = "[" * depth + "]" * depth
            body = f'{{"input": {{"command": "true", "deep": {given}}}}}'
            answer = client.post(
                f"/api/v1/agents/{agent['id']}/execute",
                data=body,
                headers=credentials_of(app, ada),
                content_type="application/json",
            )
            assert answer.status_code == status, depth

    def test_of_a_key_that_comes_twice_the_last_decides_everything(
        self, client: FlaskClient, app: Flask, database: Database
    ) -> None:
        """Who may and what is done are judged by one reading of the body."""
        make_space(database, "mine")
        make_space(database, "theirs")
        eve = make_person(database, role=None, name="eve")
        hold(database, eve, Role.OPERATOR, space="mine")
        for first, last, status in (("mine", "theirs", 404), ("theirs", "mine", 201)):
            body = f'{{"name": "twice", "workspace_id": "{first}", "workspace_id": "{last}"}}'
            answer = client.post(
                "/api/v1/agents", data=body, headers=credentials_of(app, eve), content_type="application/json"
            )
            assert answer.status_code == status, answer.text

    def test_two_credentials_at_once_are_one(self, client: FlaskClient, app: Flask, ada: Principal) -> None:
        headers = {**credentials_of(app, ada), "X-API-Key": "lsk_nothing"}
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 200
        headers = {"Authorization": "Bearer wrong", "X-API-Key": credentials_of(app, ada)["Authorization"][7:]}
        assert client.get("/api/v1/auth/me", headers=headers).status_code == 401


def test_old_sessions_are_not_forever(
    client: FlaskClient, ada: Principal, clock: FrozenClock, resources: Resources
) -> None:
    """A refresh token that was never used again dies by itself."""
    token = pair_of(client)["refresh_token"]
    clock.advance(timedelta(seconds=resources.settings.refresh_token_seconds + 1).total_seconds())
    assert client.post("/api/v1/auth/refresh", json={"refresh_token": token}).status_code == 401
