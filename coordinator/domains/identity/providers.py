"""Identity providers: what an admin has said about each, and how that is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from coordinator.domains.identity import provider_store
from coordinator.domains.identity.external_fetch import require_fetchable
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.sealed import PROVIDER_SECRETS
from coordinator.domains.vault.keyring import Keyring
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Duplicate, Invalid, NotFound
from shared.ids import new_id

__all__ = ["Config", "Provider", "add", "change", "find_shown", "get", "list_page", "remove", "secret_of"]

KINDS = ("oidc", "oauth2", "saml")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures that only the holder of a private key can make: no `none`, and nothing that a public key could sign."""

_NAMES = {"oidc": "preferred_username", "oauth2": "username", "saml": "NameID"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is known about a provider; all but the secret."""

    issuer: str
    client_id: str
    allow_insecure: bool = False
    nonce_required: bool = False
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "Ed25519")
    introspection_url: str | None = None
    certificates: tuple[str, ...] = ()
    recipient: str | None = None
    subject_claim: str = "sub"
    name_claim: str | None = None
    full_name_claim: str = "name"
    email_claim: str = "email"
    email_is_verified: bool = False
    """Whether the provider vouches for its e-mail addresses without saying so in each proof (`email_verified`)."""
    allowed_domains: tuple[str, ...] = ()
    default_role: str | None = Role.USER.value
    role_claim: str | None = None
    role_map: Mapping[str, str] | None = None

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Config:
        """A configuration as a row or a body has it."""
        known = {name: value for name, value in kept.items() if name in cls.__dataclass_fields__}
        plain: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in known.items()}
        return cls(**plain)

    def kept(self) -> dict[str, Any]:
        """What a row keeps."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Provider:
    """One identity provider."""

    id: str
    name: str
    kind: str
    config: Config
    secrets: str | None
    key_id: str | None
    active: bool
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def name_claim(self) -> str:
        return self.config.name_claim or _NAMES[self.kind]


def get(tx: Transaction, id_or_name: str) -> Provider:
    return _provider(provider_store.find(tx, id_or_name), id_or_name)


def get_to_change(tx: Transaction, id_or_name: str) -> Provider:
    """The provider, and nobody else changes it until the transaction ends."""
    return _provider(provider_store.find(tx, id_or_name, lock=True), id_or_name)


def list_page(tx: Transaction, page: PageRequest) -> Page[Provider]:
    found = provider_store.list_page(tx, page)
    return Page([_of(row) for row in found.items], found.total)


def find_shown(tx: Transaction, name: str, claimed: Mapping[str, Any]) -> Provider | None:
    """The active provider of this name; else the only one of this kind that has the issuer and client claimed."""
    named = provider_store.find_named(tx, name)
    if named is not None:
        return _of(named) if named["active"] else None
    if name not in KINDS:
        return None
    fitting = [one for one in map(_of, provider_store.active_of_kind(tx, name)) if differs(one, claimed) is None]
    return fitting[0] if len(fitting) == 1 else None


def differs(provider: Provider, claimed: Mapping[str, Any]) -> str | None:
    """The first thing that a caller says about a provider and its admin does not; None when they agree."""
    known = provider.config.kept()
    return next((name for name, value in claimed.items() if name not in known or known[name] != value), None)


def add(tx: Transaction, keyring: Keyring, *, facts: Mapping[str, Any], secret: str | None, by: str | None) -> Provider:
    """A new provider of name, kind and configuration; the secret is sealed."""
    kind, config = facts["kind"], Config.of(facts["config"])
    _require_whole(tx, kind, config, has_secret=secret is not None)
    if provider_store.find_named(tx, facts["name"]) is not None:
        raise Duplicate("there is an identity provider of this name", name=facts["name"])
    made = Provider(
        id=new_id(),
        name=facts["name"],
        kind=kind,
        config=config,
        secrets=None,
        key_id=None,
        active=facts.get("is_active", True),
        created_by=by,
        created_at=tx.now,
        updated_at=tx.now,
        version=1,
    )
    made = _with_secret(tx, keyring, made, secret)
    provider_store.add(tx, _row(made))
    return made


def change(
    tx: Transaction, keyring: Keyring, before: Provider, *, facts: Mapping[str, Any], secret: str | None
) -> Provider:
    """The provider that the caller has locked, changed; a secret that is not given stays."""
    config = before.config if "config" not in facts else Config.of(facts["config"])
    _require_whole(tx, before.kind, config, has_secret=secret is not None or before.secrets is not None)
    if config.issuer != before.config.issuer and provider_store.has_identities(tx, before.id):
        raise Conflict(
            "people have come in by this issuer: another issuer may know others by their subjects, and is another "
            "identity provider",
            field="config.issuer",
        )
    after = replace(
        before,
        config=config,
        active=facts.get("is_active", before.active),
        updated_at=tx.now,
        version=before.version + 1,
    )
    after = _with_secret(tx, keyring, after, secret)
    provider_store.write(tx, _row(after))
    if not after.active:
        provider_store.end_sessions(tx, before.id)
    return after


def remove(tx: Transaction, provider: Provider) -> int:
    """Forget a provider, and end the sessions that its word has opened; how many. Its people stay, without a door."""
    ended = provider_store.end_sessions(tx, provider.id)
    provider_store.delete_provider(tx, provider.id)
    return ended


def secret_of(tx: Transaction, keyring: Keyring, provider: Provider) -> str | None:
    """What we show the provider to be believed."""
    if provider.secrets is None or provider.key_id is None:
        return None
    return keyring.open(tx, PROVIDER_SECRETS, provider.id, provider.secrets, provider.key_id).decode()


def _with_secret(tx: Transaction, keyring: Keyring, provider: Provider, secret: str | None) -> Provider:
    if secret is None:
        return provider
    sealed = keyring.seal(tx, PROVIDER_SECRETS, provider.id, secret.encode())
    return replace(provider, secrets=sealed.text, key_id=sealed.key_id)


def _require_whole(tx: Transaction, kind: str, config: Config, *, has_secret: bool) -> None:
    """Raise unless this kind of provider can work like that."""
    if kind == "oidc":
        _require_url("issuer", config.issuer, config)
    if kind == "oauth2":
        _require(config.introspection_url, "introspection_url", "an oauth2 provider is asked there")
        _require_url("introspection_url", config.introspection_url or "", config)
        _require(has_secret, "client_secret", "introspection answers only those who authenticate")
    if kind == "saml":
        _require(config.certificates, "config.certificates", "a saml provider signs with one of them")
        _require(config.recipient, "config.recipient", "assertions are made out to an address")
    wanted = {config.default_role, *(config.role_map or {}).values()} - {None}
    missing = sorted(str(role) for role in wanted - provider_store.known_roles(tx, wanted))
    _require(not missing, "config.role_map", f"there is no role {', '.join(missing)}")
    _require(not config.role_map or config.role_claim, "config.role_claim", "role_map maps what this claim says")


def _require_url(name: str, url: str, config: Config) -> None:
    try:
        require_fetchable(url, allow_insecure=config.allow_insecure)
    except ValueError as error:
        raise Invalid(str(error), field=f"config.{name}") from None


def _require(holds: object, field: str, reason: str) -> None:
    if not holds:
        raise Invalid(f"{field} is missing or wrong: {reason}", field=field, reason=reason)


def _provider(row: Mapping[str, Any] | None, id_or_name: str) -> Provider:
    if row is None:
        raise NotFound("there is no such identity provider", provider=id_or_name)
    return _of(row)


def _of(row: Mapping[str, Any]) -> Provider:
    return Provider(**{**row, "config": Config.of(row["config"])})


def _row(provider: Provider) -> dict[str, Any]:
    return {name: getattr(provider, name) for name in Provider.__dataclass_fields__} | {
        "config": provider.config.kept()
    }
