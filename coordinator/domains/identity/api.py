"""Endpoints of the identity domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app

from coordinator.domains.identity import service
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.audit import hinted
from coordinator.domains.identity.audit_api import trail
from coordinator.domains.identity.ip_rules_api import addresses
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.rights import Role
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
from coordinator.domains.identity.service import LoginRefused, LoginSession, Principal
from coordinator.domains.identity.spaces_api import space_endpoints
from coordinator.http import auth
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.slice import OPEN, Call, Slice
from coordinator.store.database import Transaction
from shared.errors import Unauthenticated

__all__ = ["addresses", "identity", "space_endpoints", "trail"]

identity = Slice("identity", "Who may come in, and as whom")


def _subject(tx: Transaction, claims: Mapping[str, Any], space: str) -> Actor | None:
    session_id = claims.get("sid")
    if not isinstance(session_id, str):
        return None
    found = service.find_in_session(tx, claims["sub"], session_id, space)
    return None if found is None else actor_of(found.principal, session_id, space, space_exists=found.space_exists)


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
    audit="session.opened",
    door="login",
    name="login",
    example={"email": "admin@localhost", "password": "…"},
)
def log_in(call: Call) -> dict[str, Any]:
    """Log in with e-mail address or name and password."""
    login, password = login_and_password(call.body)
    principal = _logged_in(call, login, password)
    session = _opened(call, principal, seconds=call.resources.settings.refresh_token_seconds, refreshable=True)
    return _pair(call, principal, session)


@identity.post(
    "/auth/refresh",
    may=OPEN,
    body=RefreshBody,
    reply=TokenPair,
    transaction="none",
    errors=(401,),
    name="refresh_token",
)
def refresh(call: Call) -> dict[str, Any]:
    """Exchange a refresh token for a new pair of tokens.

    Each refresh token is good for one exchange. Showing one a second time ends the whole login.
    """
    claims = _tokens().open(call.body["refresh_token"], "refresh")
    shown = LoginSession(str(claims.get("sid")), claims["sub"], claims["jti"])
    call.introduce(Actor(id=shown.principal_id, kind=ActorKind.USER, name="", credential_id=shown.id))
    with call.write() as tx:
        seconds = call.resources.settings.refresh_token_seconds
        session = service.renew_session(tx, shown, seconds=seconds, by=call.witness.who())
        principal = service.find_active(tx, shown.principal_id)
    if session is None or principal is None:
        raise Unauthenticated("the token is not valid")
    return _pair(call, principal, session)


@identity.post(
    "/auth/login",
    may=OPEN,
    body=V0LoginBody,
    reply=V0Token,
    transaction="none",
    versions=("v0",),
    errors=(401, 429),
    audit="session.opened",
    door="login",
    name="login",
    example={"user": "admin", "pass": "…"},
)
def log_in_by_name(call: Call) -> dict[str, Any]:
    """Log in with name and password."""
    principal = _logged_in(call, call.body["user"], call.body["pass"])
    seconds = call.resources.settings.v0_token_seconds
    session = _opened(call, principal, seconds=seconds, refreshable=False)
    return {
        "token": _tokens().mint("access", principal.id, seconds=seconds, claims={"sid": session.id}),
        "token_type": "Bearer",
        "expires_at": auth.expiry(call.resources.clock.now(), seconds),
        "user": principal.name,
        "role": principal.role or Role.USER,
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
    try:
        return service.log_in(login, password, read=call.read, write=call.write, hasher=hasher)
    except LoginRefused as refusal:
        call.introduce(_tried(login, refusal.principal), why=refusal.why)
        raise


def _tried(login: str, principal: Principal | None) -> Actor:
    """Whom the trail says a refused login was for. Nobody has proved to be that."""
    if principal is None:
        return Actor(id="", kind=ActorKind.ANONYMOUS, name=hinted(login))
    return Actor(id=principal.id, kind=principal.kind, name=principal.name)


def _opened(call: Call, principal: Principal, *, seconds: int, refreshable: bool) -> LoginSession:
    with call.write() as tx:
        session = service.open_session(tx, principal, seconds=seconds, refreshable=refreshable)
        call.introduce(actor_of(principal, session.id))
        call.audit("session.opened", resource_id=session.id, tx=tx)
    return session


def _pair(call: Call, principal: Principal, session: LoginSession) -> dict[str, Any]:
    settings, tokens = call.resources.settings, _tokens()
    access, refresh = {"sid": session.id}, {"sid": session.id, "jti": session.refresh_id}
    return {
        "access_token": tokens.mint("access", principal.id, seconds=settings.access_token_seconds, claims=access),
        "refresh_token": tokens.mint("refresh", principal.id, seconds=settings.refresh_token_seconds, claims=refresh),
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
