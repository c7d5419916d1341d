"""Changes keys under stored secrets: another data key, or the same ones wrapped by another master key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.domains.vault import sealing, store
from coordinator.domains.vault.keyring import Keyring, shown
from coordinator.domains.vault.sealing import SealBroken
from coordinator.domains.vault.store import DataKey, SealedRow
from coordinator.store.database import Database, Transaction
from coordinator.store.migrate import load_models
from coordinator.store.schema import SealedColumn, sealed_columns

BATCH = 100


@dataclass(frozen=True, slots=True)
class Holding:
    """One data key, and how many texts of each purpose it has sealed."""

    key: DataKey
    known: bool
    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Beginning:
    """The data key that everything is to be sealed by, and whether an earlier rotation has made it."""

    key: DataKey
    resumed: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction of a rotation did: so many texts sealed anew, these subjects' could not be opened."""

    purpose: str
    sealed: int
    broken: tuple[str, ...] = ()


def status(tx: Transaction, keyring: Keyring) -> list[Holding]:
    """Every data key, the oldest first, with what hangs on it."""
    load_models()
    by_purpose = {column.purpose: store.counts(tx, column) for column in sealed_columns()}
    return [_holding(key, keyring, by_purpose) for key in store.all_keys(tx)]


def _holding(key: DataKey, keyring: Keyring, by_purpose: dict[str, dict[str, int]]) -> Holding:
    counts = {purpose: found[key.id] for purpose, found in by_purpose.items() if key.id in found}
    masters = {master.fingerprint for master in (keyring.master, *keyring.old)}
    return Holding(key, key.master in masters, counts)


def missing_masters(tx: Transaction, keyring: Keyring) -> list[str]:
    """Master keys that wrapped data keys and that this process does not have, as people see them."""
    known = {master.fingerprint for master in (keyring.master, *keyring.old)}
    return sorted({shown(key.master) for key in store.all_keys(tx) if key.master not in known})


def begin(database: Database, keyring: Keyring, *, fresh: bool = False) -> Beginning:
    """A new data key in the place of the one that seals now, or the one of a rotation that has not ended.

    Raises, and changes nothing, unless every data key can be unwrapped. Of two rotations that begin at once the
    second goes along with the first. A `fresh` one makes a new key although an earlier one has left texts behind.
    """
    with database.read() as tx:
        seen = store.newest_id(tx)
    with database.write() as tx:
        store.lock_makers(tx)
        holdings = status(tx, keyring)
        for holding in holdings:
            keyring.data_key(holding.key)
        current = next((each.key for each in reversed(holdings) if each.key.retired_at is None), None)
        left = not fresh and any(each.total for each in holdings if each.key.retired_at is not None)
        if current is not None and (left or current.id != seen):
            return Beginning(current, resumed=True)
        store.retire_all(tx)
        return Beginning(keyring.make_data_key(tx), resumed=False)


def seal_anew(database: Database, keyring: Keyring, key: DataKey, *, size: int = BATCH) -> Iterator[Batch]:
    """Seal by `key` what other data keys have sealed, a batch a transaction; it can be left after each of them."""
    load_models()
    for column in sealed_columns():
        after: str | None = None
        while True:
            with database.write() as tx:
                rows = store.rows_by_other_keys(tx, column, key.id, after=after, limit=size)
                done = _sealed_anew(tx, keyring, key, column, rows)
            if not rows:
                break
            after = rows[-1].subject_id
            yield done


def _sealed_anew(tx: Transaction, keyring: Keyring, key: DataKey, column: SealedColumn, rows: list[SealedRow]) -> Batch:
    data_key, rewritten, broken = keyring.data_key(key), [], []
    for row in rows:
        try:
            plaintext = keyring.open(tx, column.purpose, row.subject_id, row.text, row.key_id)
        except SealBroken:
            # It stays as it is, and everybody is told: one bad row keeps no other on the old key.
            broken.append(row.subject_id)
            continue
        text = sealing.close(data_key, column.purpose, row.subject_id, plaintext)
        rewritten.append(SealedRow(row.subject_id, text, key.id))
    store.rewrite(tx, column, rewritten)
    return Batch(column.purpose, len(rewritten), tuple(broken))


def wrap_anew(tx: Transaction, keyring: Keyring) -> int:
    """Wrap by today's master key what older ones wrapped; how many data keys that were.

    All or nothing: WrongMasterKey, before anything is changed, when one of them cannot be unwrapped.
    """
    store.lock_makers(tx)
    by_others = [key for key in store.all_keys(tx) if key.master != keyring.master.fingerprint]
    opened = [(key, keyring.data_key(key)) for key in by_others]
    for key, data_key in opened:
        wrapped = sealing.wrap(keyring.master, key.id, data_key)
        if sealing.unwrap(keyring.master, key.id, wrapped) != data_key:
            raise SealBroken("a data key that was wrapped anew does not come out again", data_key=key.id)
        store.rewrap(tx, key.id, wrapped=wrapped, master=keyring.master.fingerprint)
    return len(opened)
