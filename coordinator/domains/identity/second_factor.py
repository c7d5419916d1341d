"""The second factor: codes of an authenticator (TOTP, RFC 6238), and recovery codes for when that is lost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal

import pyotp
import segno

from coordinator.domains.identity import factor_store
from coordinator.domains.identity.factor_store import Factor
from coordinator.domains.identity.sealed import SEED
from coordinator.domains.identity.store import Principal
from coordinator.domains.vault.keyring import Keyring
from coordinator.store.database import Transaction

ISSUER = "Longshore"
STEP_SECONDS = 30
DRIFT_STEPS = 1
"""Clocks of telephones are off: one step before and after is good, too."""

RECOVERY_CODES = 10
RECOVERY_BYTES = 10
"""80 bits: too many for a digest to be searched, even by whoever has the database."""

_TOTP = re.compile(r"[0-9]{6}\Z")

Method = Literal["totp", "recovery_code"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is shown once, when a second factor is set up."""

    secret: str
    otpauth_uri: str
    recovery_codes: tuple[str, ...]

    @property
    def qr_code(self) -> str:
        """The address as a picture that an authenticator reads, as a data URI."""
        drawn: str = segno.make(self.otpauth_uri, micro=False).svg_data_uri(scale=4)
        return drawn


def begin(tx: Transaction, keyring: Keyring, principal: Principal) -> Setup:
    """A new seed and new recovery codes, which ask for nothing until a code has confirmed them."""
    secret = pyotp.random_base32()
    codes = tuple(_new_recovery_code() for _ in range(RECOVERY_CODES))
    sealed = keyring.seal(tx, SEED, principal.id, secret.encode())
    digests = [_digest(code) for code in codes]
    factor_store.replace(tx, principal.id, seed=sealed.text, key_id=sealed.key_id, digests=digests)
    uri = pyotp.TOTP(secret).provisioning_uri(name=principal.email or principal.name, issuer_name=ISSUER)
    return Setup(secret, uri, codes)


def accept(tx: Transaction, keyring: Keyring, principal_id: str, code: str) -> Method | None:
    """Use up a code; by which method it was right, None when it was not. The factor need not be confirmed yet."""
    factor = factor_store.find(tx, principal_id)
    if factor is None:
        return None
    plain = re.sub(r"[\s-]", "", code)
    if _TOTP.match(plain):
        step = _step_of(tx, keyring, principal_id, factor, plain)
        return "totp" if step is not None and factor_store.take_step(tx, principal_id, step) else None
    if factor.confirmed_at is not None and factor_store.take_recovery_code(tx, principal_id, _digest(plain)):
        return "recovery_code"
    return None


def _step_of(tx: Transaction, keyring: Keyring, principal_id: str, factor: Factor, code: str) -> int | None:
    """The time step that the code belongs to, the newest if it could be several."""
    seed = keyring.open(tx, SEED, principal_id, factor.seed, factor.key_id).decode()
    totp, now = pyotp.TOTP(seed), int(tx.now.timestamp()) // STEP_SECONDS
    near = range(now + DRIFT_STEPS, now - DRIFT_STEPS - 1, -1)
    right = [step for step in near if hmac.compare_digest(totp.at(step * STEP_SECONDS), code)]
    return right[0] if right else None


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _digest(code: str) -> str:
    return hashlib.sha256(re.sub(r"[\s-]", "", code).lower().encode()).hexdigest()


def is_begun(tx: Transaction, principal_id: str) -> bool:
    """Whether there is a second factor, confirmed or not."""
    return factor_store.find(tx, principal_id) is not None


which_are_confirmed = factor_store.which_are_confirmed
is_confirmed = factor_store.is_confirmed
confirm = factor_store.confirm
remove = factor_store.remove
recovery_codes_left = factor_store.count_recovery_codes
