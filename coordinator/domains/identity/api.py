"""Endpoints of the identity domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.domains.identity import entering, service
from coordinator.domains.identity.account_api import own_account
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.audit_api import trail
from coordinator.domains.identity.bindings_api import binding_endpoints
from coordinator.domains.identity.bindings_api import binding_endpoints
from coordinator.domains.identity.ip_rules_api import addresses
from coordinator.domains.identity.login_api import coming_in
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.schemas import V0LoginBody, V0Me, V0Token
from coordinator.domains.identity.roles_api import role_endpoints
from coordinator.domains.identity.roles_api import role_endpoints
from coordinator.domains.identity.spaces_api import space_endpoints
from coordinator.http import auth
from coordinator.http.actor import Actor
from coordinator.http.slice import OPEN, Call, Slice
from coordinator.store.database import Transaction

__all__ = ["addresses", "binding_endpoints", "coming_in", "identity", "own_account", "role_endpoints", "binding_endpoints", "role_endpoints", "space_endpoints", "trail"]

identity = Slice("identity", "Who may come in, and as whom")


def _subject(tx: Transaction, claims: Mapping[str, Any], space: str) -> Actor | None:
    session_id = claims.get("sid")
    if not isinstance(session_id, str):
        return None
    found = service.find_in_session(tx, claims["sub"], session_id, space)
    if found is None:
        return None
    limits = None if claims.get("lim") is None else frozenset(claims["lim"])
    return actor_of(found.principal, session_id, space, space_exists=found.space_exists, limits=limits)


auth.register_subject_loader(_subject)


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
    entry = entering.logged_in(call, call.body["user"], call.body["pass"])
    seconds = call.resources.settings.v0_token_seconds
    session = entering.opened(call, entry, seconds=seconds, refreshable=False, kind="v0")
    token, good_for = entering.access_token(call, entry, session, seconds=seconds)
    return {
        "token": token,
        "token_type": "Bearer",
        "expires_at": auth.expiry(call.resources.clock.now(), good_for),
        "user": entry.principal.name,
        "role": entry.principal.role or Role.USER,
    }


@identity.get("/auth/me", may="account:read", reply=V0Me, versions=("v0",), name="get_me")
def get_me_by_name(call: Call) -> dict[str, Any]:
    """Who the caller is."""
    return {"user": call.actor.name, "namespace": None, "type": "ServiceAccount"}
