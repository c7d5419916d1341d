"""Proofs of OpenID providers: ID tokens."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import JoseError

from coordinator.domains.identity.external_keys import Source, keys_of
from coordinator.domains.identity.external_proof import Proof, ProofRefused, Shown, subject_in
from coordinator.domains.identity.providers import ALGORITHMS, Provider
from shared.clock import Clock

LEEWAY_SECONDS = 60
GREATEST_TOKEN = 32 * 1024
LONGEST_LIFE = timedelta(days=31)
"""No ID token is meant to be good for longer; one that says so would have to be remembered as used for ever."""


def verify(provider: Provider, shown: Shown, clock: Clock) -> Proof:
    """The proof in an ID token, held against its provider's keys and what the admin said; else ProofRefused."""
    raw, now = shown.token.encode(), clock.now()
    header = _header(raw)
    algorithm = header.get("alg")
    allowed = [each for each in provider.config.algorithms if each in ALGORITHMS]
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise ProofRefused("the token is signed in a way that is not accepted")
    claims = _verified(raw, header, provider, algorithm, clock)
    _judge(claims, header, provider, shown.nonce, now)
    expires = datetime.fromtimestamp(claims["exp"], UTC)
    if expires > now + LONGEST_LIFE:
        raise ProofRefused("the token is good for longer than tokens of this kind may be")
    subject = subject_in(claims, provider.config.subject_claim)
    payload = hashlib.sha256(jws.extract_compact(raw).payload).hexdigest()
    return Proof(
        subject, claims, once=f"oidc {provider.id} {payload}", until=expires + timedelta(seconds=LEEWAY_SECONDS)
    )


def _header(raw: bytes) -> dict[str, Any]:
    if len(raw) > GREATEST_TOKEN:
        raise ProofRefused("the token is too long")
    try:
        header = jws.extract_compact(raw).headers()
    except (JoseError, ValueError):
        raise ProofRefused("this is no token") from None
    # What else an issuer signs (access tokens, logout tokens) is not made out to us as a proof of who somebody is.
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise ProofRefused(f"the token is of the type {str(header.get('typ'))[:40]!r}")
    if "crit" in header:
        raise ProofRefused("the token asks for something to be understood that ID tokens do not have")
    return header


def _verified(raw: bytes, header: dict[str, Any], provider: Provider, algorithm: str, clock: Clock) -> dict[str, Any]:
    source = Source(provider.config.issuer, provider.config.allow_insecure)
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise ProofRefused("the token names its key in a way that is none")
    key = keys_of(source, clock.monotonic).fitting(key_id, algorithm)
    if key is None:
        raise ProofRefused("the token is signed by a key that the provider does not have")
    try:
        return jwt.decode(raw, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError):
        raise ProofRefused("the signature of the token is wrong") from None


def _judge(
    claims: dict[str, Any], header: dict[str, Any], provider: Provider, nonce: str | None, now: datetime
) -> None:
    config = provider.config
    wanted: dict[str, Any] = {
        "iss": {"essential": True, "value": config.issuer},
        "aud": {"essential": True, "value": config.client_id},
    }
    token = CodeIDToken(claims, header, wanted, {"client_id": config.client_id, "nonce": nonce})
    try:
        token.validate(now=int(now.timestamp()), leeway=LEEWAY_SECONDS)
    except JoseError as error:
        raise ProofRefused(f"the token does not hold: {error.error} {error.description or ''}".strip()) from None
