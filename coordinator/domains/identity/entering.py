"""What all doors do that people come in by: judge the login, open a session, mint its tokens, tell the trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app, request

from coordinator.domains.identity import logins, sessions, store
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.audit import hinted
from coordinator.domains.identity.logins import Entry, LoginRefused
from coordinator.domains.identity.store import LoginSession, Principal
from coordinator.http import auth
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.call import Call
from coordinator.store.database import Transaction


def tokens() -> auth.Tokens:
    """What mints and opens this app's tokens."""
    found: auth.Tokens = current_app.extensions["longshore"].tokens
    return found


def logged_in(call: Call, login: str, password: str, code: str | None = None) -> Entry:
    """Whoever the login and password are of. A refusal leaves the reason in the trail, and not with the caller."""
    try:
        return logins.log_in(call.resources, login, password, code=code, address=call.witness.address)
    except LoginRefused as refusal:
        call.introduce(_tried(login, refusal.principal), why=refusal.why)
        raise


def went_on(call: Call, claims: Mapping[str, Any], code: str) -> Entry:
    """Whoever goes on with a login by the claims of its token."""
    try:
        return logins.log_in_second_step(call.resources, claims, code, address=call.witness.address)
    except LoginRefused as refusal:
        call.introduce(_tried("", refusal.principal), why=refusal.why)
        raise


def _tried(login: str, principal: Principal | None) -> Actor:
    """Whom the trail says a refused login was for. Nobody has proved to be that."""
    if principal is None:
        return Actor(id="", kind=ActorKind.ANONYMOUS, name=hinted(login))
    return Actor(id=principal.id, kind=principal.kind, name=principal.name)


def opened(call: Call, entry: Entry, *, seconds: int, refreshable: bool, kind: str) -> LoginSession:
    """A session for somebody who came in, told in the trail; none if their account is another by now."""
    with call.write() as tx:
        _require_unchanged(call, tx, entry.principal)
        session = sessions.open_session(
            tx,
            entry.principal,
            seconds=seconds,
            refreshable=refreshable,
            kind=kind,
            address=call.witness.address,
            user_agent=request.headers.get("User-Agent"),
        )
        call.introduce(actor_of(entry.principal, session.id))
        facts = {"kind": kind, "method": entry.method} | ({"restricted": True} if entry.is_restricted else {})
        call.audit("session.opened", resource_id=session.id, after=facts, tx=tx)
    return session


def _require_unchanged(call: Call, tx: Transaction, judged: Principal) -> None:
    """Raise LoginRefused when the password was changed, or the account switched off, since the login was judged.

    Both end all sessions: one that was opened a moment later with the old password would outlive them.
    """
    held = store.lock(tx, judged.id)
    if held is None or not held.active or held.password_changed_at != judged.password_changed_at:
        refusal = LoginRefused(judged, "the account was changed while it was logging in")
        call.introduce(_tried("", judged), why=refusal.why)
        raise refusal


def let_in(call: Call, entry: Entry) -> dict[str, Any]:
    """Tokens of a new session that can be renewed."""
    seconds = call.resources.settings.refresh_token_seconds
    return pair(call, entry, opened(call, entry, seconds=seconds, refreshable=True, kind="v1"))


def access_token(call: Call, entry: Entry, session: LoginSession, *, seconds: int) -> tuple[str, int]:
    """A token to call with, and for how many seconds it is good."""
    good_for = session.seconds_of(seconds, call.resources.clock.now())
    claims = {"sid": session.id, **entry.claims}
    return tokens().mint("access", entry.principal.id, seconds=good_for, claims=claims), good_for


def pair(call: Call, entry: Entry, session: LoginSession) -> dict[str, Any]:
    """A token to call with and one to renew both, and what stands between the caller and their rights."""
    settings, now = call.resources.settings, call.resources.clock.now()
    access, good_for = access_token(call, entry, session, seconds=settings.access_token_seconds)
    renewable_for = session.seconds_of(settings.refresh_token_seconds, now)
    claims = {"sid": session.id, "jti": session.refresh_id}
    return {
        "access_token": access,
        "refresh_token": tokens().mint("refresh", entry.principal.id, seconds=renewable_for, claims=claims),
        "token_type": "bearer",
        "expires_in": good_for,
        "expires_at": auth.expiry(now, good_for),
        "user": person(entry.principal),
        "mfa_required": False,
        **standing(entry),
    }


def standing(entry: Entry) -> dict[str, Any]:
    """What somebody has to do before their tokens are good for everything."""
    return {
        "restricted": entry.is_restricted,
        "password_expired": entry.password_expired,
        "mfa_setup_required": entry.mfa_setup_required,
        "mfa_grace_ends_at": entry.mfa_grace_ends_at,
    }


def person(principal: Principal) -> dict[str, Any]:
    """A principal as it sees itself."""
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
