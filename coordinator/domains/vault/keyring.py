"""Seals secrets for the database and opens them again: data keys seal, the master key wraps the data keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from coordinator.config import Settings
from coordinator.domains.vault import sealing, store
from coordinator.domains.vault.sealing import Master, SealBroken
from coordinator.domains.vault.store import DataKey
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Unavailable
from shared.ids import new_id

__all__ = ["Keyring", "SealBroken", "Sealed", "WrongMasterKey", "shown"]


class WrongMasterKey(Unavailable):
    """A data key was wrapped by a master key that this process does not have."""

    def __init__(self, key: DataKey) -> None:
        super().__init__(
            "a stored secret cannot be opened: its data key was wrapped by another master key; give that one as "
            "LONGSHORE_MASTER_KEY, or among LONGSHORE_OLD_MASTER_KEYS",
            reason="wrong_master_key",
            master=shown(key.master),
            data_key=key.id,
        )


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed text and the data key that opens it; both belong into the row."""

    text: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Keyring:
    """The master keys of this process, and the data keys that it has unwrapped so far."""

    master: Master
    old: tuple[Master, ...] = ()
    _unwrapped: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, resources: Resources) -> Keyring:
        return cls.from_settings(resources.settings)

    @classmethod
    def from_settings(cls, settings: Settings) -> Keyring:
        return _keyring(settings.master_key.get_secret_value(), settings.old_master_keys.get_secret_value())

    def seal(self, tx: Transaction, purpose: str, subject_id: str, plaintext: bytes) -> Sealed:
        """`plaintext`, good for this purpose and subject alone. `tx` may write; it costs one query."""
        key = store.newest(tx) or store.newest(tx) or self._first(tx)
        return Sealed(sealing.close(self.data_key(key), purpose, subject_id, plaintext), key.id)

    def open(self, tx: Transaction, purpose: str, subject_id: str, text: str, key_id: str) -> bytes:
        """What was sealed; no query once this process knows the data key."""
        known = self._unwrapped.get(key_id)
        if known is None:
            key = store.find(tx, key_id)
            if key is None:
                raise SealBroken("the data key of a sealed text is gone", data_key=key_id)
            known = self.data_key(key)
        return sealing.open_(known, purpose, subject_id, text)

    def data_key(self, key: DataKey) -> bytes:
        """The key itself, unwrapped by whichever master key wrapped it."""
        known = self._unwrapped.get(key.id)
        if known is None:
            known = self._unwrapped[key.id] = sealing.unwrap(self.wrapper_of(key), key.id, key.wrapped)
        return known

    def wrapper_of(self, key: DataKey) -> Master:
        """The master key that wrapped a data key; WrongMasterKey when we have not got it."""
        for master in (self.master, *self.old):
            if master.fingerprint == key.master:
                return master
        raise WrongMasterKey(key)

    def make_data_key(self, tx: Transaction) -> DataKey:
        """A new data key, which seals from now on. The caller has locked the makers."""
        made = new_id()
        wrapped = sealing.wrap(self.master, made, sealing.new_data_key())
        key = DataKey(made, wrapped, self.master.fingerprint, created_at=tx.now, retired_at=None)
        store.add(tx, key)
        return key

    def _first(self, tx: Transaction) -> DataKey:
        # `seal` has looked twice: a key that was retired while the first look waited for its row has a successor,
        # which only a second statement sees. Whoever was faster than us here has committed once we hold the lock.
        store.lock_makers(tx)
        return store.newest(tx) or self.make_data_key(tx)


def shown(fingerprint: str) -> str:
    """As much of a master key's fingerprint as people compare."""
    return fingerprint[:12]


@lru_cache(maxsize=16)
def _keyring(master: str, old: str) -> Keyring:
    if not master:
        raise Unavailable("there is no master key: set LONGSHORE_MASTER_KEY", reason="no_master_key")
    return Keyring(Master.of(master), tuple(Master.of(each) for each in old.replace(",", " ").split()))
