"""Fencing tokens: who may speak for an attempt."""

from __future__ import annotations

import hashlib
import hmac


def attempt_token(key: bytes, *, attempt_id: str, epoch: str, nonce: str) -> str:
    """The token of a claim. The same claim asked again gets the same token, so a lost reply costs nothing."""
    message = f"{attempt_id}|{epoch}|{nonce}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def token_hash(token: str) -> str:
    """What the attempt's row keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
