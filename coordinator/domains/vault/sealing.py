"""How a secret is sealed, and how the key that seals it is wrapped: AES-256-GCM both times, no database."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coordinator.resources import derive_key
from shared.errors import LongshoreError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = "v1."
_PURPOSE = re.compile(r"[a-z][a-z0-9_]*\Z")


class SealBroken(LongshoreError):
    """A sealed text that was changed, cut, or moved from another row: nobody can open it."""


@dataclass(frozen=True, slots=True, repr=False)
class Master:
    """A key that wraps data keys, and the name by which rows say which one it was."""

    key: bytes
    fingerprint: str

    @classmethod
    def of(cls, text: str) -> Master:
        """The master key that a setting's text stands for. Its fingerprint is derived apart and tells nothing of it."""
        return cls(derive_key(text, "vault/wrap"), derive_key(text, "vault/fingerprint").hex())

    def __repr__(self) -> str:
        return f"Master({self.fingerprint[:12]})"


def new_data_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def wrap(master: Master, key_id: str, data_key: bytes) -> str:
    """The data key as its row keeps it."""
    return _closed(master.key, _about("data_key", key_id), data_key)


def unwrap(master: Master, key_id: str, wrapped: str) -> bytes:
    """The data key of a row that this master key wrapped."""
    return _opened(master.key, _about("data_key", key_id), wrapped)


def close(data_key: bytes, purpose: str, subject_id: str, plaintext: bytes) -> str:
    """The sealed text: good for this purpose and this subject, and nowhere else."""
    return _closed(data_key, _about(_known(purpose), subject_id), plaintext)


def open_(data_key: bytes, purpose: str, subject_id: str, text: str) -> bytes:
    """What `close` was given; SealBroken when anything about it is another."""
    return _opened(data_key, _about(_known(purpose), subject_id), text)


def _known(purpose: str) -> str:
    if not _PURPOSE.match(purpose) or purpose == "data_key":
        raise ValueError(f"{purpose!r} is no purpose: use lower-case words with underscores between them")
    return purpose


def _about(purpose: str, subject_id: str) -> bytes:
    # A purpose has no NUL in it, so that no two pairs ever read alike.
    return f"longshore\0{purpose}\0{subject_id}".encode()


def _closed(key: bytes, about: bytes, plaintext: bytes) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORMAT + base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext, about)).decode()


def _opened(key: bytes, about: bytes, text: str) -> bytes:
    if not text.startswith(_FORMAT):
        raise SealBroken("the sealed text is of no format that this version knows")
    try:
        raw = base64.b64decode(text.removeprefix(_FORMAT), altchars=b"-_", validate=True)
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError, binascii.Error):
        raise SealBroken("the sealed text was changed, or belongs to another row") from None
