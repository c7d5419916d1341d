"""Endpoints of v1 by which people come in."""

from __future__ import annotations

from typing import Any

from coordinator.domains.identity import entering, logins, password_policy, security, service, sessions, users
from coordinator.domains.identity.login_schemas import (
    LoginAnswer,
    RegisterBody,
    TokenPair,
    V1LoginBody,
    code_of,
)
from coordinator.domains.identity.logins import SecondFactorNeeded
from coordinator.domains.identity.schemas import RefreshBody, UserView, login_and_password
from coordinator.domains.identity.store import LoginSession
from coordinator.http import auth
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.slice import OPEN, Call, Slice
from shared.errors import Forbidden, Unauthenticated

coming_in = Slice("login", "Coming in, and staying in")


@coming_in.post(
    "/auth/login",
    may=OPEN,
    body=V1LoginBody,
    reply=LoginAnswer,
    transaction="none",
    errors=(401, 429),
    audit="session.opened",
    door="login",
    name="login",
    example={"email": "admin@localhost", "password": "…"},
)
def log_in(call: Call) -> dict[str, Any]:
    """Log in with e-mail address or name and password.

    Where a second factor is set up and no `code` came along, the answer is `mfa_required` and a `temp_token` for
    POST /auth/mfa/verify, good for five minutes. Whatever is wrong, the answer is the same 401.
    """
    login, password = login_and_password(call.body)
    try:
        entry = entering.logged_in(call, login, password, code_of(call.body))
    except SecondFactorNeeded as needed:
        return _second_step(call, needed)
    return entering.let_in(call, entry)


def _second_step(call: Call, needed: SecondFactorNeeded) -> dict[str, Any]:
    seconds = logins.STEP_SECONDS
    claims = logins.step_claims(needed)
    with call.write() as tx:
        call.audit("session.begun", resource_id=needed.principal.id, resource_type="user", tx=tx)
    return {
        "mfa_required": True,
        "temp_token": entering.tokens().mint("step", needed.principal.id, seconds=seconds, claims=claims),
        "expires_in": seconds,
        "expires_at": auth.expiry(call.resources.clock.now(), seconds),
    }


@coming_in.post(
    "/auth/register",
    may=OPEN,
    body=RegisterBody,
    reply=UserView,
    status=201,
    location="/auth/me",
    transaction="none",
    audit="user.registered",
    door="register",
    errors=(403, 409, 429),
    name="register",
)
def register(call: Call) -> dict[str, Any]:
    """Make an account for oneself, where an admin lets people, or nobody but this machine can ask.

    Its role is what the settings say. Log in next.
    """
    body = call.body
    _require_open(call)
    names = (body.get("name"), body["email"], body.get("full_name"))
    chosen = password_policy.choose(call.resources, body["password"], names=names)
    with call.write() as tx:
        policy, on_loopback = security.current(tx).registration, call.resources.settings.is_loopback
        made = users.add(
            tx,
            name=body.get("name"),
            email=body["email"],
            full_name=body.get("full_name"),
            role=policy.role(on_loopback=on_loopback),
            chosen=chosen,
        )
        call.introduce(Actor(id=made.id, kind=made.kind, name=made.name))
        facts = {"name": made.name, "email": made.email, "role": made.role}
        call.audit("user.registered", resource_id=made.id, after=facts, tx=tx)
    return entering.person(made)


def _require_open(call: Call) -> None:
    with call.read() as tx:
        policy = security.current(tx).registration
    if not policy.opened(on_loopback=call.resources.settings.is_loopback):
        raise Forbidden("an admin makes accounts here: registration is off", reason="registration_off")


@coming_in.post(
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
    claims = entering.tokens().open(call.body["refresh_token"], "refresh")
    shown = LoginSession(str(claims.get("sid")), claims["sub"], claims["jti"])
    call.introduce(Actor(id=shown.principal_id, kind=ActorKind.USER, name="", credential_id=shown.id))
    with call.write() as tx:
        seconds = call.resources.settings.refresh_token_seconds
        session = sessions.renew(tx, shown, seconds=seconds, by=call.witness.who())
        principal = service.find_active(tx, shown.principal_id)
        entry = None if principal is None else logins.renewed_entry(tx, principal)
    if session is None or entry is None:
        raise Unauthenticated("the token is not valid")
    return entering.pair(call, entry, session)
