"""From a credential to an Actor: access JWTs here, opaque tokens by whoever registered their prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token
from werkzeug.datastructures import Headers

from coordinator.http.actor import DEFAULT_SPACE, Actor, ActorKind
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Unauthenticated

ISSUER = "longshore"
AUDIENCE = "longshore-api"
ALGORITHM = "HS256"
PREFIX_LENGTH = 4
REMEMBERED_TOKENS = 4096
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*\Z")

Authenticator = Callable[[Transaction, str, str], Actor | None]
"""From a token and the space that is asked for to whoever that is there."""
SubjectLoader = Callable[[Transaction, Mapping[str, Any], str], Actor | None]
"""The same from the claims of an access token."""

_authenticators: dict[str, Authenticator] = {}
_subject_loaders: list[SubjectLoader] = []


def register_authenticator(prefix: str, authenticate: Authenticator) -> None:
    """Let `authenticate` judge every token that begins with `prefix` (three letters and an underscore)."""
    if len(prefix) != PREFIX_LENGTH or not prefix.endswith("_"):
        raise ValueError(f"{prefix!r} is not three letters and an underscore")
    if _authenticators.setdefault(prefix, authenticate) is not authenticate:
        raise ValueError(f"{prefix!r} has an authenticator already")


def register_subject_loader(load: SubjectLoader) -> None:
    """Let `load` turn the claims of a valid access token into an Actor; None when the principal may no longer act."""
    if load not in _subject_loaders:
        _subject_loaders.append(load)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request showed: either the claims of a JWT whose signature holds, or an opaque token."""

    token: str
    claims: Mapping[str, Any] | None = None


class Tokens:
    """Mints and opens our JWTs. Times are the coordinator's clock, so a test can let a token expire."""

    def __init__(self, resources: Resources) -> None:
        self._key = resources.key("jwt")
        self._clock = resources.clock
        # A signature that was right once stays right; what can change (time, the principal) is looked at every time.
        self._genuine: dict[str, Mapping[str, Any]] = {}

    def mint(self, kind: str, subject: str, *, seconds: int, claims: Mapping[str, Any] | None = None) -> str:
        """A token of `kind` access, refresh or step for `subject`; needs an application context."""
        now = self._clock.now()
        fixed = {"iat": now, "exp": now + timedelta(seconds=seconds), "type": kind}
        make = create_refresh_token if kind == "refresh" else create_access_token
        token: str = make(identity=subject, expires_delta=False, additional_claims={**(claims or {}), **fixed})
        return token

    def open(self, token: str, kind: str) -> Mapping[str, Any]:
        """The claims of a token of `kind`; Unauthenticated for whatever is wrong with it."""
        claims = self._genuine.get(token)
        if claims is None:
            claims = self._verified(token)
            if len(self._genuine) >= REMEMBERED_TOKENS:
                self._genuine.clear()
            self._genuine[token] = claims
        self._require_current(claims)
        if claims.get("type") != kind:
            raise Unauthenticated(f"this is not an {kind} token" if kind == "access" else f"this is not a {kind} token")
        return claims

    def claimed(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token that we minted, be it good for anything now or not."""
        try:
            return self._genuine.get(token) or self._verified(token)
        except Unauthenticated:
            return None

    def _verified(self, token: str) -> Mapping[str, Any]:
        try:
            # flask-jwt-extended would decode twice and ask the machine's clock; its library does it once and leaves
            # the times to us.
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "sub", "jti"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            raise Unauthenticated("the token is not valid") from None
        return claims

    def _require_current(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        if not isinstance(claims["exp"], int | float) or claims["exp"] <= now:
            raise Unauthenticated("the token has expired", reason="expired")
        # When it begins is not asked: we alone mint tokens, and one from the future says that our clock was set back.


class Gatekeeper:
    """Finds out who is calling, in two steps: one that needs no database, one that does."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def presented(self, headers: Headers) -> Credential:
        """What the headers show, checked as far as it goes without the database."""
        return self.examined(_token_in(headers))

    def examined(self, token: str) -> Credential:
        """The same for a token that came another way (a WebSocket's first message)."""
        if token[:PREFIX_LENGTH] in _authenticators:
            return Credential(token)
        return Credential(token, self._tokens.open(token, "access"))

    def admitted(self, tx: Transaction, credential: Credential, space: str = DEFAULT_SPACE) -> Actor:
        """The actor behind a credential, in the space it asks for; at most one indexed query.

        Whether the actor knows that space is for the caller to judge.
        """
        if credential.claims is None:
            actor = _authenticators[credential.token[:PREFIX_LENGTH]](tx, credential.token, space)
        else:
            claims = credential.claims
            actor = next((found for load in _subject_loaders if (found := load(tx, claims, space))), None)
        if actor is None:
            raise Unauthenticated("the credential is not valid")
        return actor

    def recognised(self, token: str) -> Actor | None:
        """Whom a token that was refused stands for; None for a text that is no credential of any kind we know.

        For the trail alone: only a name with an id is somebody, everything else is what the token looks like.
        """
        if token[:PREFIX_LENGTH] in _authenticators:
            return Actor(id="", kind=ActorKind.ANONYMOUS, name=f"{token[:PREFIX_LENGTH]}…")
        if not _JWT.match(token):
            return None
        claims = self._tokens.claimed(token)
        if claims is None:
            return Actor(id="", kind=ActorKind.ANONYMOUS, name="a token that is not ours")
        return Actor(id=claims["sub"], kind=ActorKind.USER, name="", credential_id=claims.get("sid"))


def shown(headers: Headers) -> str | None:
    """The token in the headers; None when there is none."""
    try:
        return _token_in(headers)
    except Unauthenticated:
        return None


def _token_in(headers: Headers) -> str:
    authorization = headers.get("Authorization")
    if authorization is None:
        token = headers.get("X-API-Key", "")
    else:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("send Authorization: Bearer TOKEN")
    token = token.strip()
    if not token:
        raise Unauthenticated("authentication is required")
    return token


def expiry(now: datetime, seconds: int) -> datetime:
    """When a token minted now for so many seconds ends."""
    return now + timedelta(seconds=seconds)


def install_jwt(app: Flask, resources: Resources) -> None:
    """Configure flask-jwt-extended, which mints the tokens."""
    app.config.update(
        JWT_SECRET_KEY=resources.key("jwt"),
        JWT_ALGORITHM=ALGORITHM,
        JWT_ENCODE_ISSUER=ISSUER,
        JWT_ENCODE_AUDIENCE=AUDIENCE,
        JWT_ENCODE_NBF=False,
        JWT_TOKEN_LOCATION=["headers"],
    )
    JWTManager(app)
