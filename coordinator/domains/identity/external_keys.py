"""The public keys of OpenID providers: found by discovery, remembered, and not fetched at everybody's call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from coordinator.domains.identity.external_fetch import get_document
from coordinator.domains.identity.external_proof import ProviderUnreachable

FRESH_SECONDS = 3600.0
"""Within this time what is remembered is not asked for again, unless a token names a key that is not in it."""
STALE_SECONDS = 24 * 3600.0
"""A provider that does not answer is taken at its last word for this long."""
PAUSE_SECONDS = 30.0
"""Between two fetches at least: whoever sends tokens with keys nobody knows makes us ask once, not each time."""
GREATEST_SET = 100

PublicKey = RSAKey | ECKey | OKPKey

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Whose keys they are."""

    issuer: str
    allow_insecure: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    keys: tuple[PublicKey, ...]
    at: float


class Keys:
    """The keys of one issuer, as far as this process knows them. Of callers that miss the same key one asks."""

    def __init__(self, source: Source, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._asked: float | None = None
        self._fault: ProviderUnreachable | None = None

    def fitting(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """The key that a token names, else the only one that can have signed so; None when there is none."""
        known = self._known
        if known is None or self._age(known) > FRESH_SECONDS:
            known = self._renewed(known)
        found = _find(known.keys, key_id, algorithm)
        if found is None:
            found = _find(self._renewed(known).keys, key_id, algorithm)
        return found

    def _age(self, known: _Known) -> float:
        return self._monotonic() - known.at

    def _renewed(self, seen: _Known | None) -> _Known:
        """What is known after asking again, or after finding that it is too early for that."""
        with self._lock:
            known = self._known
            if known is not None and known is not seen:
                return known
            if self._asked is None or self._monotonic() - self._asked >= PAUSE_SECONDS:
                self._ask()
            known = self._known
            if known is not None and self._age(known) <= STALE_SECONDS:
                return known
            raise ProviderUnreachable(self._fault.message if self._fault else "it was asked a moment ago")

    def _ask(self) -> None:
        self._asked = self._monotonic()
        try:
            self._known, self._fault = _Known(_fetched(self._source), self._monotonic()), None
        except ProviderUnreachable as fault:
            self._fault = fault
            log.warning("identity_provider.unreachable", issuer=self._source.issuer, reason=fault.message)


_by_source: dict[tuple[Source, Callable[[], float]], Keys] = {}
_GREATEST_NUMBER = 256


def keys_of(source: Source, monotonic: Callable[[], float]) -> Keys:
    """This process's knowledge of an issuer's keys."""
    found = _by_source.get((source, monotonic))
    if found is None:
        if len(_by_source) >= _GREATEST_NUMBER:
            _by_source.clear()
        found = _by_source.setdefault((source, monotonic), Keys(source, monotonic))
    return found


def _fetched(source: Source) -> tuple[PublicKey, ...]:
    place = get_well_known_url(source.issuer, external=True)
    about = OpenIDProviderMetadata(get_document(place, allow_insecure=source.allow_insecure))
    if about.get("issuer") != source.issuer:
        raise ProviderUnreachable("the document at its address is about another issuer")
    address = about.get("jwks_uri")
    if not isinstance(address, str):
        raise ProviderUnreachable("its document names no address of keys")
    _require_as_safe(source.issuer, address)
    listed = get_document(address, allow_insecure=source.allow_insecure).get("keys")
    return tuple(_public(listed if isinstance(listed, list) else []))


def _require_as_safe(issuer: str, address: str) -> None:
    """Keys may lie on another host, as some large providers have it, but then that host has to prove itself."""
    here, there = urlsplit(issuer), urlsplit(address)
    if there.scheme != "https" and (here.scheme, here.hostname) != (there.scheme, there.hostname):
        raise ProviderUnreachable("its keys lie on another host without https")


def _public(listed: Iterable[Any]) -> Iterable[PublicKey]:
    """The keys of a list that can verify. Symmetric ones are no keys of an issuer, and broken ones hide no others."""
    for each in list(listed)[:GREATEST_SET]:
        if not isinstance(each, dict) or each.get("kty") not in ("RSA", "EC", "OKP") or each.get("use") == "enc":
            continue
        try:
            key = JWKRegistry.import_key({name: value for name, value in each.items() if name != "d"})
        except (JoseError, ValueError, TypeError, KeyError):
            log.warning("identity_provider.broken_key", kid=str(each.get("kid"))[:100])
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            yield key


_KINDS: dict[str, type[PublicKey]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


def _find(keys: tuple[PublicKey, ...], key_id: str | None, algorithm: str) -> PublicKey | None:
    able = [key for key in keys if isinstance(key, _KINDS[algorithm[:2]]) and key.alg in (None, algorithm)]
    fitting = able if key_id is None else [key for key in able if key.kid == key_id]
    return fitting[0] if len(fitting) == 1 else None
