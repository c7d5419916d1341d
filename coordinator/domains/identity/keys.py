"""API keys: made, shown once, recognised, revoked. A key may never more than its owner."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from coordinator.domains.identity import key_store, scopes
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.key_store import Key
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.limiting_rules import OWNERS_PLAN
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Forbidden, Invalid, NotFound
from shared.ids import new_id

PREFIX = "lsk_"
_KEY = re.compile(r"lsk_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")

SHOWN = 16
"""So many characters of a key tell it from others; they are of its id and none of its secret."""

GREATEST_COUNT = 100
"""Keys that one principal may have at a time."""

PLANS = ("free", "pro", "enterprise")
"""From the smallest to the largest."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new key is to be."""

    name: str
    scopes: tuple[str, ...] = scopes.DEFAULT
    expires_at: datetime | None = None
    plan: str | None = None
    """None is its owner's."""


def make(tx: Transaction, actor: Actor, wanted: Wanted) -> tuple[Key, str]:
    """A new key of the actor's own, and its text, which is nowhere kept."""
    beyond = [scope for scope in wanted.scopes if not _may_give(actor, scope)]
    if beyond:
        raise Forbidden("a key cannot be given what you may not do yourself", scopes=beyond)
    if wanted.plan is not None and PLANS.index(wanted.plan) > PLANS.index(actor.plan):
        raise Forbidden("a key cannot be given a larger plan than your own", plan=actor.plan)
    if wanted.expires_at is not None and wanted.expires_at <= tx.now:
        raise Invalid("expires_at: must be in the future", field="expires_at", reason="must be in the future")
    if page(tx, actor.id, PageRequest(limit=1)).total >= GREATEST_COUNT:
        raise Conflict(f"nobody may have more than {GREATEST_COUNT} keys: revoke one first")
    id_ = new_id()
    text = f"{PREFIX}{id_.replace('-', '')}_{secrets.token_urlsafe(32)}"
    made = Key(
        id=id_,
        principal_id=actor.id,
        name=wanted.name,
        prefix=text[:SHOWN],
        digest=_digest(text),
        scopes=wanted.scopes,
        plan=wanted.plan,
        created_at=tx.now,
        expires_at=wanted.expires_at,
        last_used_at=None,
        last_used_address=None,
        revoked_at=None,
    )
    key_store.add(tx, made)
    return made, text


def _may_give(actor: Actor, scope: str) -> bool:
    """Whether the actor may hand on this scope: the general words follow its owner's rights by themselves."""
    if scopes.is_general(scope) and actor.limits is None:
        return True
    return all(actor.may(right) for right in scopes.spelt_out(scope))


def page(tx: Transaction, principal_id: str, request: PageRequest) -> Page[Key]:
    """The keys of a principal, newest first."""
    return key_store.page_of(tx, principal_id, request)


def revoke(tx: Transaction, key_id: str, *, owner: str | None) -> str:
    """Revoke a key, of this owner if one is named; whose it was."""
    found = key_store.revoke(tx, key_id, owner)
    if found is None:
        raise NotFound("there is no such key", id=key_id)
    return found


def authenticate(tx: Transaction, token: str, space: str) -> Actor | None:
    """Whoever comes with this key, in the space they ask for; None when it is not good."""
    parts = _KEY.match(token)
    if parts is None:
        return None
    held = key_store.find_with_owner(tx, str(uuid.UUID(parts.group(1))), space)
    # The digest is compared in the same time whatever is wrong with the text.
    if held is None or not hmac.compare_digest(held.key.digest, _digest(token)):
        return None
    if not held.owner.active or (held.key.expires_at is not None and held.key.expires_at <= tx.now):
        return None
    actor = actor_of(
        held.owner,
        held.key.id,
        space,
        space_exists=held.space_exists,
        kind=ActorKind.API_KEY,
        limits=scopes.rights_of(held.key.scopes),
        plan=held.key.plan,
    )
    # With a plan of its own it is counted by itself as well.
    return actor if held.key.plan is None else replace(actor, facts={OWNERS_PLAN: held.owner.plan})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
