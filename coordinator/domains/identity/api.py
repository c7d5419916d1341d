"""Endpoints of the identity domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.domains.identity import service
from coordinator.domains.identity.account_api import own_account
from coordinator.domains.identity.accounts_api import operators, service_accounts
from coordinator.domains.identity.acting import actor_of
from coordinator.domains.identity.audit_api import trail
from coordinator.domains.identity.bindings_api import binding_endpoints
from coordinator.domains.identity.external_api import external_endpoints
from coordinator.domains.identity.ip_rules_api import addresses
from coordinator.domains.identity.keys_api import key_endpoints
from coordinator.domains.identity.login_api import coming_in
from coordinator.domains.identity.page_api import log_in_page
from coordinator.domains.identity.providers_api import provider_endpoints
from coordinator.domains.identity.roles_api import role_endpoints
from coordinator.domains.identity.security_api import security_endpoints
from coordinator.domains.identity.spaces_api import space_endpoints
from coordinator.domains.identity.users_api import user_endpoints
from coordinator.domains.identity.v0_logins_api import identity
from coordinator.http import auth
from coordinator.http.actor import Actor
from coordinator.store.database import Transaction

__all__ = [
    "addresses",
    "binding_endpoints",
    "coming_in",
    "external_endpoints",
    "identity",
    "key_endpoints",
    "log_in_page",
    "operators",
    "own_account",
    "provider_endpoints",
    "role_endpoints",
    "security_endpoints",
    "service_accounts",
    "space_endpoints",
    "trail",
    "user_endpoints",
]


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
