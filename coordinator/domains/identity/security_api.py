"""Endpoints for the security settings and for sessions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coordinator.domains.identity import security, sessions, users
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.security import RegistrationPolicy, Security
from coordinator.domains.identity.security_schemas import (
    PasswordPolicyBody,
    PasswordPolicyView,
    SecurityBody,
    SecurityView,
    SessionView,
)
from coordinator.domains.identity.sessions import SessionRow
from coordinator.http.slice import Call, ListOf, Page, Slice
from shared.errors import NotFound

security_endpoints = Slice("security", "Passwords, second factors, sessions, lock-outs, registration")


@security_endpoints.get("/security", may="security:read", reply=SecurityView)
def get_security(call: Call) -> dict[str, Any]:
    """Show the security settings that are in force."""
    return _view(call, security.stored(call.tx))


@security_endpoints.put(
    "/security", may="security:write", body=SecurityBody, reply=SecurityView, audit="security.changed"
)
def update_security(call: Call) -> dict[str, Any]:
    """Change security settings; sections and fields that are not named stay as they are.

    Other processes follow within two seconds.
    """
    role = call.body.get("registration", {}).get("default_role")
    if role is not None:
        users.require_standing(call.tx, call.actor.id, limits=call.actor.limits, role=Role(role))
    for section in sorted(call.body):
        _change(call, section, call.body[section])
    return _view(call, security.stored(call.tx))


@security_endpoints.get("/security/password-policy", may="security:read", reply=PasswordPolicyView)
def get_password_policy(call: Call) -> dict[str, Any]:
    """Show what a password must be like."""
    return asdict(security.stored(call.tx).password_policy)


@security_endpoints.put(
    "/security/password-policy",
    may="security:write",
    body=PasswordPolicyBody,
    reply=PasswordPolicyView,
    audit="security.changed",
)
def update_password_policy(call: Call) -> dict[str, Any]:
    """Change what a password must be like, from the next one on. Its age counts for those that are, too."""
    return asdict(_change(call, "password_policy", call.body))


def _change(call: Call, section: str, changes: dict[str, Any]) -> Any:
    before, after = security.change(call.tx, section, changes, by=call.actor.id)
    before_told, after_told = {section: asdict(before)}, {section: asdict(after)}
    call.audit("security.changed", resource_id=section, before=before_told, after=after_told)
    return after


@security_endpoints.get("/security/sessions", may="account:read", reply=ListOf("sessions", SessionView))
def list_sessions(call: Call) -> Page[dict[str, Any]]:
    """List sessions that are not over, newest first: one's own, and everybody's for admins."""
    everybody = call.actor.may("security:list")
    page = sessions.page(call.tx, None if everybody else call.actor.id, call.page)
    return Page([_session(call, one) for one in page.items], page.total)


@security_endpoints.delete(
    "/security/sessions/<id:session_id>", may="account:write", status=204, audit="session.ended", errors=(404,)
)
def end_session(call: Call, session_id: str) -> None:
    """End a session with all its tokens: one of one's own, or anybody's for admins."""
    found = sessions.find(call.tx, session_id)
    mine = found is not None and found.principal_id == call.actor.id
    if found is None or not (mine or call.actor.may("security:delete")) or not sessions.end(call.tx, session_id):
        raise NotFound("there is no such session", id=session_id)
    call.audit("session.ended", resource_id=session_id, before={"user_id": found.principal_id})


def _session(call: Call, one: SessionRow) -> dict[str, Any]:
    return {
        "id": one.id,
        "user_id": one.principal_id,
        "kind": one.kind,
        "ip_address": one.address,
        "user_agent": one.user_agent,
        "created_at": one.created_at,
        "last_used_at": one.used_at,
        "expires_at": one.expires_at,
        "is_current": one.id == call.actor.credential_id,
    }


def _view(call: Call, found: Security) -> dict[str, Any]:
    sections = {name: asdict(getattr(found, name)) for name in security.SECTIONS}
    return sections | {"registration": _registration(call, found.registration)}


def _registration(call: Call, policy: RegistrationPolicy) -> dict[str, Any]:
    on_loopback = call.resources.settings.is_loopback
    return {
        "allow_registration": policy.opened(on_loopback=on_loopback),
        "default_role": policy.role(on_loopback=on_loopback).value,
        "is_decided": policy.allow_registration is not None,
    }
