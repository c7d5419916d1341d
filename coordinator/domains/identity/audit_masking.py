"""What of a value may be written down for ever: no secrets, no endless texts, nothing that a database refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any

import orjson

from shared.clock import rfc3339
from shared.logs import MASK, names_secret, redact_text

GREATEST_DOCUMENT = 16 * 1024
GREATEST_TEXT = 2000
GREATEST_LIST = 100
DEEPEST = 8
_GREATEST_INTEGER = 2**53

SECRET_NAMES = frozenset(
    {
        "credential_hash",
        "otpauth_uri",
        "passphrase",
        "password_hash",
        "qr_code",
        "recovery_codes",
        "seed",
        "token_hash",
        "totp_secret",
    }
)
"""Names of fields that are never written down, beside those whose last word says it (`…_token`, `…_password`)."""


def document(value: Any, secrets: Set[str] = frozenset()) -> str | None:
    """`value` as canonical JSON, with secrets masked; `secrets` are names of fields that hold further ones.

    What is too large is told by its size and its SHA-256 alone.
    """
    if value is None:
        return None
    text = orjson.dumps(_clean(value, secrets, DEEPEST), option=orjson.OPT_SORT_KEYS)
    if len(text) > GREATEST_DOCUMENT:
        told = {"left_out": "too large", "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    return text.decode()


def line(value: object, length: int) -> str:
    """A text of at most `length` characters that any database takes, without what looks like a secret."""
    return _storable(redact_text(str(value)))[:length]


def _clean(value: Any, secrets: Set[str], depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < _GREATEST_INTEGER else str(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _clean_inside(value, secrets, depth - 1) if depth else "…"
    return _shortened(_storable(redact_text(str(value))))


def _clean_inside(value: Any, secrets: Set[str], depth: int) -> Any:
    if isinstance(value, Mapping):
        return {line(name, 255): _clean_field(str(name), each, secrets, depth) for name, each in value.items()}
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    kept = [_clean(each, secrets, depth) for each in items[:GREATEST_LIST]]
    return kept if len(items) <= GREATEST_LIST else [*kept, f"… {len(items) - GREATEST_LIST} more"]


def _clean_field(name: str, value: Any, secrets: Set[str], depth: int) -> Any:
    # Whether there is a secret may be told, what it is may not.
    if value and (name in secrets or name.lower() in SECRET_NAMES or names_secret(name)):
        return MASK
    return _clean(value, secrets, depth)


def _shortened(text: str) -> str:
    return text if len(text) <= GREATEST_TEXT else f"{text[:GREATEST_TEXT]}… {len(text)} characters"


def _storable(text: str) -> str:
    # PostgreSQL takes no U+0000, and neither database takes half a surrogate pair.
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
