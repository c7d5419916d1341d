"""The endpoint by which people come in whom an identity provider vouches for."""

from __future__ import annotations

from typing import Any

from flask import request
from sqlalchemy.exc import IntegrityError

from coordinator.domains.identity import entering, external, providers, sessions
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.external import NotLetIn
from coordinator.domains.identity.external_proof import Proof, ProofRefused, Shown
from coordinator.domains.identity.logins import Entry
from coordinator.domains.identity.providers import Provider
from coordinator.domains.identity.providers_schemas import ExternalLoginBody, ExternalToken
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.store import LoginSession, Principal
from coordinator.http import auth
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.slice import OPEN, Call, Slice
from coordinator.store.database import Transaction
from shared.errors import BadRequest, Invalid

external_endpoints = Slice("external login", "Coming in by the word of an identity provider")

TRIES = 3
"""Two first logins at once may want one name, or be one person: the second of them finds what the first has made."""


@external_endpoints.post(
    "/auth/external",
    may=OPEN,
    body=ExternalLoginBody,
    reply=ExternalToken,
    transaction="none",
    versions=("v0",),
    errors=(400, 401, 429, 503),
    audit="session.opened",
    door="login",
    name="log_in_externally",
    example={
        "provider": "corporate",
        "token": "eyJ…",
        "provider_config": {"issuer": "https://login.example.org/realms/main", "client_id": "longshore"},
    },
)
def log_in_externally(call: Call) -> dict[str, Any]:
    """Log in by the proof of an identity provider that an admin has set up.

    A proof opens one session. Somebody who comes for the first time gets an account without a password. 400 when there
    is no such provider, 401 when the proof or the configuration is wrong, 503 when the provider cannot be asked.
    """
    provider = _provider(call)
    try:
        _require_agreed(call, provider)
        proof = external.verified(call.resources, provider, Shown(call.body["token"], call.body.get("nonce")))
        principal, session = _came_in(call, provider, proof)
    except NotLetIn as refusal:
        known = refusal.principal
        call.introduce(Actor(id=known.id, kind=known.kind, name=known.name), why=refusal.why)
        raise
    except ProofRefused as refusal:
        call.introduce(Actor(id="", kind=ActorKind.ANONYMOUS, name=f"somebody of {provider.name}"), why=refusal.why)
        raise
    return _token(call, provider, principal, session)


def _provider(call: Call) -> Provider:
    with call.read() as tx:
        found = providers.find_shown(tx, call.body["provider"], call.body.get("provider_config") or {})
    if found is None:
        raise BadRequest("there is no such identity provider, or more than one", provider=call.body["provider"])
    return found


def _require_agreed(call: Call, provider: Provider) -> None:
    other = providers.differs(provider, call.body.get("provider_config") or {})
    if other is not None:
        raise ProofRefused(f"{other[:100]!r} of provider_config is not what the admin has said")
    if provider.config.nonce_required and "nonce" not in call.body:
        raise Invalid("this identity provider's logins need the nonce that they began with", field="nonce")


def _came_in(call: Call, provider: Provider, proof: Proof) -> tuple[Principal, LoginSession]:
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            with call.write() as tx:
                return _opened(tx, call, provider, proof)
        except IntegrityError:
            if last:
                raise
    raise AssertionError("the last try returns or raises")


def _opened(tx: Transaction, call: Call, provider: Provider, proof: Proof) -> tuple[Principal, LoginSession]:
    """The proof used up, its principal and a session, in one transaction: a proof is never lost without a token."""
    settings = call.resources.settings
    who = call.witness.who()
    principal = external.admit(tx, provider, proof, admin_name=settings.admin_name, by=who)
    session = sessions.open_session(
        tx,
        principal,
        seconds=settings.v0_token_seconds,
        refreshable=False,
        kind="external",
        address=call.witness.address,
        user_agent=request.headers.get("User-Agent"),
    )
    call.introduce(actor_of(principal, session.id))
    facts = {"kind": "external", "provider": provider.name}
    call.audit("session.opened", resource_id=session.id, after=facts, tx=tx)
    return principal, session


def _token(call: Call, provider: Provider, principal: Principal, session: LoginSession) -> dict[str, Any]:
    seconds = call.resources.settings.v0_token_seconds
    token, good_for = entering.access_token(call, Entry(principal, method="external"), session, seconds=seconds)
    return {
        "token": token,
        "token_type": "Bearer",
        "expires_at": auth.expiry(call.resources.clock.now(), good_for),
        "user": principal.name,
        "role": principal.role or Role.USER,
        "service_account": {"user": principal.name, "namespace": None, "provider": provider.name},
    }
