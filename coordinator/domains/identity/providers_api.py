"""Endpoints by which admins say whose word about people is taken."""

from __future__ import annotations

from typing import Any

from coordinator.domains.identity import providers
from coordinator.domains.identity.providers import Provider
from coordinator.domains.identity.providers_schemas import ProviderBody, ProviderChanges, ProviderView
from coordinator.domains.vault.keyring import Keyring
from coordinator.http.slice import Call, ListOf, Page, Slice

provider_endpoints = Slice("identity providers", "Whose word about who somebody is we take")

_EXAMPLE = {
    "name": "corporate",
    "kind": "oidc",
    "config": {"issuer": "https://login.example.org/realms/main", "client_id": "longshore"},
}


@provider_endpoints.get(
    "/identity-providers", may="identity_providers:read", reply=ListOf("identity_providers", ProviderView)
)
def list_identity_providers(call: Call) -> Page[dict[str, Any]]:
    """List identity providers, newest first."""
    found = providers.list_page(call.tx, call.page)
    return Page([_view(one) for one in found.items], found.total)


@provider_endpoints.post(
    "/identity-providers",
    may="identity_providers:write",
    body=ProviderBody,
    reply=ProviderView,
    status=201,
    errors=(409,),
    audit="identity_provider.created",
    example=_EXAMPLE,
)
def create_identity_provider(call: Call) -> dict[str, Any]:
    """Let people come in by the word of a provider (`POST /api/v0/auth/external`)."""
    secret = call.body.get("client_secret")
    made = providers.add(call.tx, Keyring.of(call.resources), facts=call.body, secret=secret, by=call.actor.id)
    call.audit("identity_provider.created", resource_id=made.id, after=_told(made))
    return _view(made)


@provider_endpoints.get(
    "/identity-providers/<string:provider>", may="identity_providers:read", reply=ProviderView, etag=True
)
def get_identity_provider(call: Call, provider: str) -> dict[str, Any]:
    """One identity provider, by id or name."""
    return _view(providers.get(call.tx, provider))


@provider_endpoints.put(
    "/identity-providers/<string:provider>",
    may="identity_providers:write",
    body=ProviderChanges,
    reply=ProviderView,
    etag=True,
    errors=(409,),
    audit="identity_provider.changed",
    example={"is_active": False},
)
def update_identity_provider(call: Call, provider: str) -> dict[str, Any]:
    """Change a provider. Switching it off ends the sessions that its word has opened.

    `config` is replaced as a whole; a secret that is not given stays. Once people have come in, the issuer stays, too.
    """
    before = providers.get_to_change(call.tx, provider)
    call.require_version(before.version)
    secret, keyring = call.body.get("client_secret"), Keyring.of(call.resources)
    after = providers.change(call.tx, keyring, before, facts=call.body, secret=secret)
    changed = {"secret_changed": True} if secret is not None else {}
    call.audit("identity_provider.changed", resource_id=after.id, before=_told(before), after=_told(after) | changed)
    return _view(after)


@provider_endpoints.delete(
    "/identity-providers/<string:provider>",
    may="identity_providers:write",
    status=204,
    etag=True,
    audit="identity_provider.deleted",
)
def delete_identity_provider(call: Call, provider: str) -> None:
    """Delete a provider, and end the sessions that its word has opened. Who came in by it stays, without this door."""
    doomed = providers.get_to_change(call.tx, provider)
    call.require_version(doomed.version)
    ended = providers.remove(call.tx, doomed)
    call.audit("identity_provider.deleted", resource_id=doomed.id, before=_told(doomed) | {"sessions_ended": ended})


def _view(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        "name": provider.name,
        "kind": provider.kind,
        "is_active": provider.active,
        "has_secret": provider.secrets is not None,
        "config": provider.config.kept(),
        "created_at": provider.created_at,
        "updated_at": provider.updated_at,
        "version": provider.version,
    }


def _told(provider: Provider) -> dict[str, Any]:
    facts = {"name": provider.name, "kind": provider.kind, "is_active": provider.active}
    return facts | {"config": provider.config.kept(), "has_a_secret": provider.secrets is not None}
