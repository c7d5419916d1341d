"""From a provider's proof to somebody here: the principal it is, made at the first login, and the roles that follow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from coordinator.domains.identity import (
    assertion_store,
    audit,
    binding_store,
    external_oauth2,
    external_oidc,
    external_saml,
    external_store,
    last_admin,
    provider_store,
    service,
    store,
)
from coordinator.domains.identity.audit import Who
from coordinator.domains.identity.external_proof import Proof, ProofRefused, Shown, claim, first_text, texts
from coordinator.domains.identity.providers import Config, Provider, secret_of
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.store import Principal
from coordinator.domains.vault.keyring import Keyring
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Conflict

GREATEST_NAME = 150
_STRANGE = re.compile(r"[^A-Za-z0-9._+-]+")

log = structlog.get_logger(__name__)


class NotLetIn(ProofRefused):
    """The proof is good, but whoever it is about may not come in."""

    def __init__(self, principal: Principal, why: str) -> None:
        super().__init__(why)
        self.principal = principal


def verified(resources: Resources, provider: Provider, shown: Shown) -> Proof:
    """The proof in what somebody shows. May ask the provider, so no transaction may be open."""
    if provider.kind == "oidc":
        return external_oidc.verify(provider, shown, resources.clock)
    if provider.kind == "saml":
        return external_saml.verify(provider, shown, resources.clock)
    with resources.database.read() as tx:
        secret = secret_of(tx, Keyring.of(resources), provider)
    return external_oauth2.verify(provider, shown, secret, resources.clock)


def admit(tx: Transaction, provider: Provider, proof: Proof, *, admin_name: str, by: Who) -> Principal:
    """Whoever the proof is about, with the roles they have from now on. It uses the proof up."""
    if not provider_store.is_still(tx, provider.id, provider.version):
        raise ProofRefused("the identity provider was changed in this moment")
    if not assertion_store.use(tx, proof.once, proof.until):
        raise ProofRefused("the proof was shown before")
    _require_domain(provider.config, proof.claims)
    found = external_store.principal_of(tx, provider.id, proof.subject)
    if found is None:
        principal = _made(tx, provider, proof, admin_name=admin_name, by=by)
    else:
        principal = _known(tx, provider, proof, found, by=by)
    store.record_login(tx, principal.id, None)
    return principal


def _known(tx: Transaction, provider: Provider, proof: Proof, principal_id: str, *, by: Who) -> Principal:
    principal = store.lock(tx, principal_id)
    if principal is None:
        raise ProofRefused("the principal was removed in this moment")
    if not principal.active:
        raise NotLetIn(principal, "the principal is switched off")
    external_store.record_login(tx, provider.id, proof.subject)
    gives, takes = roles_to_change(provider.config, proof.claims, _held(principal))
    if not gives and not takes:
        return principal
    _give(tx, provider, principal, gives, by=by)
    _take(tx, provider, principal, takes, by=by)
    return store.find(tx, principal.id) or principal


def _made(tx: Transaction, provider: Provider, proof: Proof, *, admin_name: str, by: Who) -> Principal:
    name = next(each for each in names(provider, proof, admin_name) if not external_store.is_taken(tx, each))
    email = verified_email(provider.config, proof.claims)
    made = service.add_principal(
        tx,
        kind="user",
        name=name,
        role=None,
        # An address that somebody has already stays theirs: it does not say that these are one person.
        email=None if email is None or external_store.is_taken(tx, email) else email,
        full_name=_printable(first_text(claim(proof.claims, provider.config.full_name_claim))),
        description=f"Came in by the identity provider {provider.name}",
    )
    external_store.link(tx, provider.id, proof.subject, made.id)
    gives, _ = roles_to_change(provider.config, proof.claims, frozenset())
    facts = {"name": made.name, "email": made.email, "provider": provider.name, "subject": proof.subject}
    audit.record(tx, _provider_as(by, provider), "user.created", resource_id=made.id, after=facts)
    default = provider.config.default_role
    _give(tx, provider, made, gives | ({default} if default else set()), by=by)
    return store.find(tx, made.id) or made


# ---- what follows from claims


def verified_email(config: Config, claims: Mapping[str, Any]) -> str | None:
    """The e-mail address that the provider vouches for, in lower case."""
    email = first_text(claim(claims, config.email_claim))
    vouched = config.email_is_verified or claims.get("email_verified") is True
    if email is None or not vouched or not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,255}", email):
        return None
    return email.lower()


def _require_domain(config: Config, claims: Mapping[str, Any]) -> None:
    if not config.allowed_domains:
        return
    email = verified_email(config, claims)
    if email is None or email.rpartition("@")[2] not in config.allowed_domains:
        raise ProofRefused("no verified e-mail address of an allowed domain")


def names(provider: Provider, proof: Proof, admin_name: str) -> Iterator[str]:
    """Names that the new principal could have, the best first; without end.

    What looks like an e-mail address is never taken as a name: it could be somebody's who logs in by it.
    """
    wanted = first_text(claim(proof.claims, provider.name_claim)) or ""
    base = _STRANGE.sub("-", wanted.partition("@")[0]).strip("-.")[:GREATEST_NAME] or "user"
    if base != admin_name and base != "user":
        yield base
    of_provider = f"{base}@{provider.name}"
    yield of_provider
    number = 2
    while True:
        yield f"{of_provider}-{number}"
        number += 1


def roles_to_change(config: Config, claims: Mapping[str, Any], held: frozenset[str]) -> tuple[set[str], set[str]]:
    """Which roles the claims give beyond those held, and which of the mapped ones they give no more."""
    if not config.role_claim or not config.role_map:
        return set(), set()
    claimed = {config.role_map[each] for each in texts(claim(claims, config.role_claim)) if each in config.role_map}
    kept = claimed | ({config.default_role} if config.default_role else set())
    return claimed - held, (set(config.role_map.values()) - kept) & held


def _held(principal: Principal) -> frozenset[str]:
    return frozenset(bound.role for bound in principal.bound if bound.space is None)


def _printable(text: str | None) -> str | None:
    return None if text is None else "".join(each for each in text if each.isprintable())[:255] or None


# ---- roles


def _give(tx: Transaction, provider: Provider, principal: Principal, names_: set[str], *, by: Who) -> None:
    known = external_store.roles_named(tx, names_)
    for name, role_id in sorted(known.items()):
        binding_store.bind(tx, principal_id=principal.id, role_id=role_id, space=None, by=None)
        _tell(tx, provider, "role_binding.created", principal, role=name, by=by)
    for name in sorted(names_ - known.keys()):
        # It was there when the admin named it. Whoever is let in has less than meant, never more.
        log.warning("identity_provider.role_is_gone", provider=provider.name, role=name)


def _take(tx: Transaction, provider: Provider, principal: Principal, names_: set[str], *, by: Who) -> None:
    for name, role_id in sorted(external_store.roles_named(tx, names_).items()):
        if name == Role.ADMIN and _is_last_admin(tx, principal):
            log.warning("identity_provider.last_admin_kept", provider=provider.name, principal=principal.name)
            continue
        binding_store.unbind_everywhere(tx, principal.id, [role_id])
        _tell(tx, provider, "role_binding.deleted", principal, role=name, by=by)


def _is_last_admin(tx: Transaction, principal: Principal) -> bool:
    try:
        last_admin.keep_one(tx, without=principal.id)
    except Conflict:
        return True
    return False


def _tell(tx: Transaction, provider: Provider, action: str, principal: Principal, *, role: str, by: Who) -> None:
    facts = {"role": role, "principal": principal.name, "space": None}
    shown: dict[str, Any] = {"after": facts} if action.endswith("created") else {"before": facts}
    told = f"by what {provider.name} says of {principal.name}"
    who = _provider_as(by, provider)
    audit.record(tx, who, action, resource_type="user", resource_id=principal.id, message=told, **shown)


def _provider_as(by: Who, provider: Provider) -> Who:
    """The provider as who acts, from where the login comes."""
    return replace(by, kind="system", id=None, name=f"identity provider {provider.name}", credential_id=None)
