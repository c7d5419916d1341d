"""Tokens and the gatekeeper, without a database."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from flask import Flask
from pydantic import SecretStr
from werkzeug.datastructures import Headers

from coordinator.config import Settings
from coordinator.http import auth
from coordinator.http.auth import ALGORITHM, AUDIENCE, ISSUER, Gatekeeper, Tokens
from coordinator.resources import Resources, derive_key
from shared.clock import FrozenClock
from shared.errors import Unauthenticated

KEY = derive_key("the secret of these tests", "jwt")


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def tokens(clock: FrozenClock) -> Iterator[Tokens]:
    settings = Settings(secret_key=SecretStr("the secret of these tests"))
    nothing: Any = None
    resources = Resources(settings, nothing, clock, nothing, nothing, nothing, nothing)
    app = Flask(__name__)
    auth.install_jwt(app, resources)
    with app.app_context():
        yield Tokens(resources)


def forged(clock: FrozenClock, key: Any = KEY, algorithm: str = ALGORITHM, **claims: Any) -> str:
    now = clock.now()
    usual = {
        "sub": "someone",
        "jti": "1",
        "type": "access",
        "iat": now,
        "exp": now + timedelta(hours=1),
        "iss": ISSUER,
        "aud": AUDIENCE,
    }
    wanted = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(wanted, key, algorithm)


def test_a_minted_token_opens_with_its_subject(tokens: Tokens) -> None:
    claims = tokens.open(tokens.mint("access", "someone", seconds=60), "access")
    assert (claims["sub"], claims["type"]) == ("someone", "access")


def test_a_token_expires_by_the_coordinators_clock(tokens: Tokens, clock: FrozenClock) -> None:
    token = tokens.mint("access", "someone", seconds=60)
    clock.advance(59)
    tokens.open(token, "access")
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.open(token, "access")


@pytest.mark.parametrize(("made", "wanted"), [("access", "refresh"), ("refresh", "access")])
def test_a_token_of_one_kind_does_not_serve_as_the_other(tokens: Tokens, made: str, wanted: str) -> None:
    token = tokens.mint(made, "someone", seconds=60)
    with pytest.raises(Unauthenticated):
        tokens.open(token, wanted)


def test_the_forgery_of_these_tests_would_pass_if_it_were_right(tokens: Tokens, clock: FrozenClock) -> None:
    assert tokens.open(forged(clock), "access")["sub"] == "someone"


@pytest.mark.filterwarnings("ignore:The HMAC key is")
@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "another key that is long enough for HS256"},
        {"algorithm": "HS512"},
        {"iss": "somebody"},
        {"aud": "something"},
        {"aud": None},
        {"exp": None},
        {"sub": None},
        {"sub": 7},
        {"jti": None},
        {"type": "refresh"},
        {"type": None},
    ],
    ids=str,
)
def test_a_token_that_is_wrong_in_one_thing_is_refused(
    tokens: Tokens, clock: FrozenClock, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        tokens.open(forged(clock, **wrong), "access")


def test_a_clock_that_is_set_back_throws_nobody_out(tokens: Tokens, clock: FrozenClock) -> None:
    token = tokens.mint("access", "someone", seconds=60)
    clock.advance(-3600)

    assert tokens.open(token, "access")["sub"] == "someone"


def test_the_algorithm_none_is_refused(tokens: Tokens, clock: FrozenClock) -> None:
    _, claims, _ = forged(clock).split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    for signature in ("", "AAAA"):
        with pytest.raises(Unauthenticated):
            tokens.open(f"{header}.{claims}.{signature}", "access")


def test_a_remembered_token_does_not_vouch_for_one_that_is_almost_the_same(tokens: Tokens) -> None:
    token = tokens.mint("access", "someone", seconds=60)
    tokens.open(token, "access")
    header, claims, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed["sub"] = "somebody else"
    other = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    with pytest.raises(Unauthenticated):
        tokens.open(f"{header}.{other}.{signature}", "access")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer   "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer a.b.c"},
        {"X-API-Key": "nobody knows this"},
        {"X-API-Key": ""},
    ],
    ids=str,
)
def test_headers_without_a_credential_of_ours_are_refused(tokens: Tokens, headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        Gatekeeper(tokens).presented(Headers(headers))


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_an_opaque_token_goes_to_whoever_knows_its_prefix(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    from coordinator.http.actor import Actor

    someone = Actor(id="1", kind="node", name="n")
    monkeypatch.setattr(auth, "_authenticators", {})
    auth.register_authenticator("tst_", lambda _tx, token, _space: someone if token == "tst_good" else None)
    keeper, nothing = Gatekeeper(tokens), None
    good = keeper.presented(Headers({header: "bearer tst_good" if header == "Authorization" else "tst_good"}))
    assert keeper.admitted(nothing, good) is someone  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated):
        keeper.admitted(nothing, keeper.examined("tst_bad"))  # type: ignore[arg-type]


def test_a_prefix_belongs_to_one_authenticator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_authenticators", {})
    auth.register_authenticator("tst_", lambda _tx, _token, _space: None)
    with pytest.raises(ValueError, match="already"):
        auth.register_authenticator("tst_", lambda _tx, _token, _space: None)
    with pytest.raises(ValueError, match="underscore"):
        auth.register_authenticator("toolong_", lambda _tx, _token, _space: None)


def test_no_key_serves_two_purposes() -> None:
    assert derive_key("secret", "jwt") != derive_key("secret", "files") != derive_key("other", "files")
