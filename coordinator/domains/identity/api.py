"""Endpoints of the identity domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app

from coordinator.domains.identity import service
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.rights import rights_of
from coordinator.domains.identity.schemas import (
    LoginBody,
    RefreshBody,
    TokenPair,
    UserView,
    V0LoginBody,
    V0Me,
    V0Token,
    login_and_password,
)
from coordinator.domains.identity.service import Principal
from coordinator.http import auth
from coordinator.http.actor import Actor
from coordinator.http.slice import OPEN, Call, Slice
from coordinator.store.database import Transaction
from shared.errors import Unauthenticated

identity = Slice("identity", "Who may come in, and as whom")


def _subject(tx: Transaction, claims: Mapping[str, Any]) -> Actor | None:
    found = service.find_active(tx, claims["sub"])
    return None if found is None else _actor(found, claims["jti"])


def _actor(principal: Principal, credential_id: str) -> Actor:
    return Actor(
        id=principal.id,
        kind=principal.kind,
        name=principal.name,
        email=principal.email,
        roles=(principal.role,),
        rights=rights_of(principal.role),
        credential_id=credential_id,
    )


auth.register_subject_loader(_subject)


def _tokens() -> auth.Tokens:
    tokens: auth.Tokens = current_app.extensions["longshore"].tokens
    return tokens


@identity.post(
    "/auth/login",
    may=OPEN,
    body=LoginBody,
    reply=TokenPair,
    transaction="none",
    errors=(401, 429),
    name="login",
    example={"email": "admin@localhost", "password": "…"},
)
def log_in(call: Call) -> dict[str, Any]:
    """Log in with e-mail address or name and password."""
    login, password = login_and_password(call.body)
    return _pair(call, _logged_in(call, login, password))


@identity.post(
    "/auth/refresh",
    may=OPEN,
    body=RefreshBody,
    reply=TokenPair,
    transaction="read",
    errors=(401,),
    name="refresh_token",
)
def refresh(call: Call) -> dict[str, Any]:
    """Exchange a refresh token for a new pair of tokens."""
    claims = _tokens().open(call.body["refresh_token"], "refresh")
    found = service.find_active(call.tx, claims["sub"])
    if found is None:
        raise Unauthenticated("the token is not valid")
    return _pair(call, found)


@identity.post(
    "/auth/login",
    may=OPEN,
    body=V0LoginBody,
    reply=V0Token,
    transaction="none",
    versions=("v0",),
    errors=(401, 429),
    name="login",
    example={"user": "admin", "pass": "…"},
)
def log_in_by_name(call: Call) -> dict[str, Any]:
    """Log in with name and password."""
    principal = _logged_in(call, call.body["user"], call.body["pass"])
    seconds = call.resources.settings.v0_token_seconds
    return {
        "token": _tokens().mint("access", principal.id, seconds=seconds),
        "token_type": "Bearer",
        "expires_at": auth.expiry(call.resources.clock.now(), seconds),
        "user": principal.name,
        "role": principal.role,
    }


@identity.get("/auth/me", may="account:read", reply=UserView)
def get_me(call: Call) -> dict[str, Any]:
    """Who the caller is."""
    found = service.find_active(call.tx, call.actor.id)
    if found is None:
        raise Unauthenticated("the credential is not valid")
    return _user(found)


@identity.get("/auth/me", may="account:read", reply=V0Me, versions=("v0",), name="get_me")
def get_me_by_name(call: Call) -> dict[str, Any]:
    """Who the caller is."""
    return {"user": call.actor.name, "namespace": None, "type": "ServiceAccount"}


def _logged_in(call: Call, login: str, password: str) -> Principal:
    hasher = passwords(call.resources.settings.password_cost)
    return service.log_in(login, password, read=call.read, write=call.write, hasher=hasher)


def _pair(call: Call, principal: Principal) -> dict[str, Any]:
    settings = call.resources.settings
    tokens = _tokens()
    return {
        "access_token": tokens.mint("access", principal.id, seconds=settings.access_token_seconds),
        "refresh_token": tokens.mint("refresh", principal.id, seconds=settings.refresh_token_seconds),
        "token_type": "bearer",
        "expires_in": settings.access_token_seconds,
        "expires_at": auth.expiry(call.resources.clock.now(), settings.access_token_seconds),
        "user": _user(principal),
    }


def _user(principal: Principal) -> dict[str, Any]:
    return {
        "id": principal.id,
        "kind": principal.kind,
        "name": principal.name,
        "email": principal.email,
        "full_name": principal.full_name,
        "role": principal.role,
        "is_active": principal.active,
        "created_at": principal.created_at,
        "updated_at": principal.updated_at,
        "last_login_at": principal.last_login_at,
    }
