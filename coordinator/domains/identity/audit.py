"""The audit trail: who did what to what, from where; written with the act, sealed in order, never changed."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import orjson

from coordinator.domains.identity import audit_chain, audit_masking, audit_store
from coordinator.domains.identity.audit_actions import noun_of, require_known
from coordinator.domains.identity.audit_chain import START, Head
from coordinator.domains.identity.audit_store import Sought
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.ids import new_id

__all__ = ["SYSTEM", "Head", "Sought", "Verdict", "Who", "record"]

Outcome = Literal["done", "refused", "failed"]

SEAL_BATCH = 1000
PRUNE_BATCH = 5000
PRUNE_EVERY = timedelta(days=1)
"""Rows are kept for up to so much longer than asked: one pruning a day, and not one with each row that grows old."""

NAME_LENGTH = 255
MESSAGE_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever acts, and from where. A refused caller may be nobody we know."""

    kind: str
    id: str | None = None
    name: str | None = None
    credential_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    space: str | None = None


SYSTEM = Who("system", name="coordinator")
"""The coordinator itself: a breaker that opens, old rows that are removed."""


def record(  # noqa: PLR0913 - one for each thing that a row tells
    tx: Transaction,
    who: Who,
    action: str,
    *,
    resource_type: str | None = None,
    resource_id: str | None = None,
    before: Any = None,
    after: Any = None,
    outcome: Outcome = "done",
    message: str | None = None,
    unrecorded: int = 0,
    secrets: Set[str] = frozenset(),
) -> None:
    """Write one row in the transaction of the act itself: they are committed together or not at all.

    `before` and `after` are any JSON; fields that hold secrets are masked by their names, and `secrets` names further
    ones. Without a `resource_type` it is the action's noun.
    """
    row = {
        "id": new_id(),
        "at": tx.now,
        "actor_kind": who.kind,
        "actor_id": who.id or None,
        "actor_name": _line(who.name, NAME_LENGTH),
        "credential_id": who.credential_id,
        "address": _line(who.address, 64),
        "request_id": _line(who.request_id, 128),
        "space": _line(who.space, NAME_LENGTH),
        "action": require_known(action),
        "resource_type": resource_type or (noun_of(action) if resource_id is not None else None),
        "resource_id": _line(resource_id, NAME_LENGTH),
        "outcome": outcome,
        "before": audit_masking.document(before, secrets),
        "after": audit_masking.document(after, secrets),
        "message": _line(message, MESSAGE_LENGTH),
        "unrecorded": unrecorded,
    }
    audit_store.add(tx, row)


def record_use(tx: Transaction, who: Who, *, place: str) -> bool:
    """Write that a credential is in use, once for each day and place (its address); whether this was the first time."""
    if who.credential_id is None or not audit_store.note_use(tx, who.credential_id, place[:64], tx.now.date()):
        return False
    record(tx, who, "key.used", resource_id=who.credential_id)
    return True


def named(tx: Transaction, who: Who) -> Who:
    """The same, with kind and name of the principal whose id it has."""
    found = audit_store.principal_named(tx, who.id) if who.id is not None and who.name is None else None
    return who if found is None else replace(who, kind=found.kind, name=found.name)


def hinted(name: str) -> str:
    """The name that nobody has, as it may be written down: people type passwords into the wrong field."""
    return f"{name[:2]}… ({len(name)} characters)"


def list_rows(tx: Transaction, sought: Sought, page: PageRequest) -> Page[Any]:
    """Rows of the trail, newest first."""
    return audit_store.page(tx, sought, page)


def count_unsealed(tx: Transaction) -> int:
    """How many rows wait for their place in the chain."""
    return audit_store.count_unsealed(tx)


# ---- the chain


def seal(tx: Transaction, limit: int = SEAL_BATCH) -> tuple[int, Head]:
    """Give committed rows that have none their places after the head; answers how many, and the new head.

    Only the leader may call it, in a transaction that holds the lead. A row whose transaction commits late finds its
    place when it is there: nothing is waited for, and nothing that was given a place moves.
    """
    rows = audit_store.unsealed(tx, limit)
    head = audit_store.head(tx) if rows else START
    places = []
    for row in rows:
        head = audit_chain.seal(head, row._asdict())
        places.append((row.id, head))
    if places and audit_store.set_places(tx, places) != len(places):
        raise RuntimeError("somebody else has sealed rows that this leader was about to seal")
    return len(places), head


def head(tx: Transaction) -> Head:
    """The end of the chain."""
    return audit_store.head(tx)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along the chain found; `problem` is the first thing that is wrong."""

    start: Head
    head: Head
    rows: int
    unsealed: int
    problem: str | None


def verify(tx: Transaction, expected: Head | None = None) -> Verdict:
    """Walk the whole chain; with `expected`, an exported head, it must lead through that.

    The transaction must be fresh: all of it sees one moment.
    """
    audit_store.hold_still(tx)
    start = audit_store.anchor(tx)
    problem = _unexplained(tx, start)
    with audit_store.sealed(tx) as rows:
        walked = audit_chain.walk(rows, start=start, expected=expected)
    return Verdict(start, walked.head, walked.rows, audit_store.count_unsealed(tx), problem or walked.problem)


def _unexplained(tx: Transaction, start: Head) -> str | None:
    """Why the beginning of the kept part is not to be trusted: retention tells in the trail itself what it removes."""
    if start == START:
        return None
    for told in audit_store.prunings(tx, limit=100):
        place = orjson.loads(told or "{}")
        if (place.get("sequence"), place.get("hash")) == (start.sequence, start.hash):
            return None
    return f"rows up to {start.sequence} are gone, and no row tells that retention removed them"


# ---- retention


def prune(tx: Transaction, *, days: float, limit: int = PRUNE_BATCH) -> int:
    """Remove a batch of sealed rows older than `days` from the beginning, none when that is 0; answers how many.

    A row about it goes into the trail, and an anchor stays from which the rest can be verified.
    """
    uses = audit_store.forget_uses(tx)
    if not days:
        return uses
    cutoff = tx.now - timedelta(days=days)
    last = _last_to_go(tx, cutoff, limit)
    if last is None:
        return uses
    count = audit_store.remove_through(tx, last)
    told = {"sequence": last.sequence, "hash": last.hash, "older_than": cutoff, "rows": count}
    record(tx, SYSTEM, "audit.pruned", after=told)
    return count + uses


def _last_to_go(tx: Transaction, cutoff: Any, limit: int) -> Head | None:
    rows = audit_store.oldest(tx, limit)
    if not rows or rows[0].at >= cutoff - PRUNE_EVERY:
        return None
    last = None
    for row in rows:
        if row.at >= cutoff:
            break
        last = Head(row.sequence, row.hash)
    return last


def _line(value: str | None, length: int) -> str | None:
    return None if value is None else audit_masking.line(value, length)
