"""Endpoints of v0 by which one comes in by name, and learns who one is."""

from __future__ import annotations

from typing import Any

from flask import request

from coordinator.domains.identity import entering, service, v0_logins
from coordinator.domains.identity.login_schemas import code_of
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.schemas import V0Me, V0Token
from coordinator.domains.identity.store import LoginSession, Principal
from coordinator.domains.identity.v0_logins_schemas import OperatorLoginBody, TokenForBody, V0LoginBody
from coordinator.http import auth
from coordinator.http.slice import OPEN, Call, Reply, Slice
from shared.errors import BadRequest, Unauthenticated

identity = Slice("identity", "Who may come in by name, and as whom")

_OPENED: dict[str, Any] = {
    "may": OPEN,
    "reply": V0Token,
    "transaction": "none",
    "versions": ("v0",),
    "audit": "session.opened",
    "door": "login",
}
_EXAMPLE = {"user": "admin", "pass": "…"}


@identity.post("/auth/login", body=V0LoginBody, errors=(401, 429), name="login", example=_EXAMPLE, **_OPENED)
def log_in_by_name(call: Call) -> dict[str, Any]:
    """Log in with name and password."""
    return _logged_in(call, call.body["user"])


@identity.post(
    "/auth/internal", body=V0LoginBody, errors=(401, 429), name="login_internally", example=_EXAMPLE, **_OPENED
)
def log_in_internally(call: Call) -> dict[str, Any]:
    """Log in with name and password, as the first generation of clients does. A `namespace` means nothing."""
    return _logged_in(call, call.body["user"])


@identity.post(
    "/operators/<string:name>/login",
    body=OperatorLoginBody,
    errors=(400, 401, 429),
    name="login_operator",
    example={"pass": "…"},
    **_OPENED,
)
def log_in_as_operator(call: Call, name: str) -> dict[str, Any]:
    """Log in with the name in the path and a password."""
    if call.body.get("user") not in (None, name):
        raise BadRequest("the body names another user than the path", field="user")
    return _logged_in(call, name)


@identity.post(
    "/auth/token",
    may="tokens:create",
    body=TokenForBody,
    reply=V0Token,
    versions=("v0",),
    idempotent=False,
    errors=(404, 409),
    audit="token.issued",
    name="issue_token",
    example={"principal": "ada", "type": "User"},
)
def issue_token(call: Call) -> Reply:
    """Get a token that acts as somebody else.

    A user that nobody has heard of is made, without a password, holding the role `user`. 403 for somebody who may do
    more than the caller.
    """
    limits, type_ = call.actor.limits, call.body["type"]
    found = v0_logins.subject(call.tx, call.body["principal"], type_, actor_id=call.actor.id, limits=limits)
    seconds = call.resources.settings.v0_token_seconds
    agent = request.headers.get("User-Agent")
    session = v0_logins.open_for(call.tx, found, seconds=seconds, address=call.witness.address, user_agent=agent)
    told = {"principal": found.name, "type": type_, "session": session.id}
    call.audit("token.issued", resource_type="user", resource_id=found.id, after=told)
    good_for = session.seconds_of(seconds, call.resources.clock.now())
    token = entering.tokens().mint("access", found.id, seconds=good_for, claims={"sid": session.id})
    return Reply(_token(call, found, token, good_for), secret_fields=("token",))


@identity.get("/auth/me", may="account:read", reply=V0Me, versions=("v0",), name="get_me")
def get_me_by_name(call: Call) -> dict[str, Any]:
    """Who the caller is, in the words of the first two generations."""
    return _me(call, "ServiceAccount")


@identity.get("/auth", may="account:read", reply=V0Me, versions=("v0",), name="get_auth")
def get_auth(call: Call) -> dict[str, Any]:
    """Who the caller is, in the words of the third generation."""
    return _me(call, "Operator")


def _me(call: Call, account: str) -> dict[str, Any]:
    found = service.find_active(call.tx, call.actor.id)
    if found is None:
        raise Unauthenticated("the credential is not valid")
    return {"user": found.name, "namespace": None, "type": v0_logins.type_of(found, account)}


def _logged_in(call: Call, name: str) -> dict[str, Any]:
    entry = entering.logged_in(call, name, call.body["pass"], code_of(call.body))
    seconds = call.resources.settings.v0_token_seconds
    session: LoginSession = entering.opened(call, entry, seconds=seconds, refreshable=False, kind="v0")
    token, good_for = entering.access_token(call, entry, session, seconds=seconds)
    return _token(call, entry.principal, token, good_for)


def _token(call: Call, found: Principal, token: str, seconds: int) -> dict[str, Any]:
    return {
        "token": token,
        "token_type": "Bearer",
        "expires_at": auth.expiry(call.resources.clock.now(), seconds),
        "user": found.name,
        "role": found.role or Role.USER,
    }
