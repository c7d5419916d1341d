"""Endpoints for one's own API keys, and the way in for whoever comes with one."""

from __future__ import annotations

from typing import Any

from coordinator.domains.identity import keys
from coordinator.domains.identity.account_api import require_login
from coordinator.domains.identity.key_schemas import KeyBody, KeyView, NewKeyView
from coordinator.domains.identity.key_store import Key
from coordinator.domains.identity.keys import Wanted
from coordinator.http import auth
from coordinator.http.slice import Call, ListOf, Page, Reply, Slice

key_endpoints = Slice("api-keys", "One's own API keys")

auth.register_authenticator(keys.PREFIX, keys.authenticate)


@key_endpoints.get("/security/api-keys", may="account:read", reply=ListOf("api_keys", KeyView))
def list_api_keys(call: Call) -> Page[dict[str, Any]]:
    """List one's own keys, newest first; the keys themselves are shown when they are made and never again."""
    page = keys.page(call.tx, call.actor.id, call.page)
    return Page([_view(one) for one in page.items], page.total)


@key_endpoints.post(
    "/security/api-keys",
    may="account:write",
    body=KeyBody,
    reply=NewKeyView,
    status=201,
    audit="key.created",
    errors=(409,),
)
def create_api_key(call: Call) -> Reply:
    """Make a key for a program. The answer holds the key, this once.

    It comes as `Authorization: Bearer` or `X-API-Key`. It may what its scopes say, and never more than its owner.
    """
    require_login(call.actor)
    body = call.body
    wanted = Wanted(body["name"], tuple(dict.fromkeys(body["scopes"])), body.get("expires_at"), body.get("plan"))
    made, text = keys.make(call.tx, call.actor, wanted)
    call.audit("key.created", resource_id=made.id, after=_view(made))
    return Reply({**_view(made), "key": text}, secret_fields=("key",))


@key_endpoints.delete(
    "/security/api-keys/<id:key_id>", may="account:write", status=204, audit="key.revoked", errors=(404,)
)
def revoke_api_key(call: Call, key_id: str) -> None:
    """Revoke a key: it is good for nothing from now on. Admins may revoke anybody's."""
    owner = None if call.actor.may("security:delete") else call.actor.id
    whose = keys.revoke(call.tx, key_id, owner=owner)
    call.audit("key.revoked", resource_id=key_id, before={"owner": whose})


def _view(one: Key) -> dict[str, Any]:
    names = ("id", "name", "prefix", "plan", "created_at", "expires_at", "last_used_at", "last_used_address")
    return {name: getattr(one, name) for name in names} | {"scopes": list(one.scopes)}
