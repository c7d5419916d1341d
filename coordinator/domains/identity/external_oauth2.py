"""Proofs of OAuth 2 servers that say nothing of OpenID: access tokens, which the server is asked about (RFC 7662)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.auth import ClientAuth

from coordinator.domains.identity.external_fetch import post_form
from coordinator.domains.identity.external_proof import (
    Proof,
    ProofRefused,
    ProviderUnreachable,
    Shown,
    subject_in,
    texts,
)
from coordinator.domains.identity.providers import Provider
from shared.clock import Clock

LEEWAY_SECONDS = 60
WITHOUT_END = timedelta(days=365)
"""How long a token is remembered as used whose server does not say when it ends."""
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")


def verify(provider: Provider, shown: Shown, secret: str | None, clock: Clock) -> Proof:
    """The proof in what the server says of an access token; else ProofRefused."""
    if not _TOKEN.match(shown.token):
        raise ProofRefused("this is no token")
    said = _asked(provider, shown.token, secret or "")
    now = clock.now()
    if said.get("active") is not True:
        raise ProofRefused("the server says that the token is not good")
    expires = _moment(said, "exp")
    if expires is not None and expires + timedelta(seconds=LEEWAY_SECONDS) <= now:
        raise ProofRefused("the token has expired")
    begins = _moment(said, "nbf")
    if begins is not None and begins - timedelta(seconds=LEEWAY_SECONDS) > now:
        raise ProofRefused("the token is not valid yet")
    _require_ours(said, provider)
    subject = subject_in(said, provider.config.subject_claim)
    until = now + WITHOUT_END if expires is None else expires + timedelta(seconds=LEEWAY_SECONDS)
    return Proof(subject, said, once=f"oauth2 {provider.id} {_name_of(said, shown.token)}", until=until)


def _asked(provider: Provider, token: str, secret: str) -> dict[str, Any]:
    config = provider.config
    url, body = config.introspection_url or "", urlencode({"token": token, "token_type_hint": "access_token"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url, headers, body = ClientAuth(config.client_id, secret).prepare("POST", url, headers, body)
    return post_form(url, allow_insecure=config.allow_insecure, headers=headers, body=body)


def _require_ours(said: Mapping[str, Any], provider: Provider) -> None:
    """A token that somebody gave to another application must not open this one."""
    config = provider.config
    if config.client_id not in (*texts(said.get("client_id")), *texts(said.get("aud"))):
        raise ProofRefused("the token was made out to another client")
    if "iss" in said and said["iss"] != config.issuer:
        raise ProofRefused("the token is of another issuer")


def _moment(said: Mapping[str, Any], name: str) -> datetime | None:
    value = said.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ProviderUnreachable(f"it answers with something that is no time ({name})")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        raise ProviderUnreachable(f"it answers with something that is no time ({name})") from None


def _name_of(said: Mapping[str, Any], token: str) -> str:
    """What makes a token this one: the server's own name of it, as a text may be written in more than one way."""
    named = said.get("jti")
    told = f"jti {named}" if isinstance(named, str) and named else f"token {token.rstrip('=')}"
    return hashlib.sha256(told.encode()).hexdigest()
