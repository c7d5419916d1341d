"""The hash chain that sealed rows form, and the walk that finds where it is broken. Nothing here knows a database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

NO_HASH = "0" * 64
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})\Z")

FACTS = (
    "id",
    "at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "credential_id",
    "address",
    "request_id",
    "space",
    "action",
    "resource_type",
    "resource_id",
    "outcome",
    "before",
    "after",
    "message",
    "unrecorded",
)
"""The columns that are sealed, beside the sequence."""


@dataclass(frozen=True, slots=True)
class Head:
    """One place of the chain. Whoever keeps it elsewhere can tell later whether what led there is still the same."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


START = Head(0, NO_HASH)
"""Before the first row."""


def parse_head(text: str) -> Head:
    """A head as it was exported; ValueError when it is none."""
    found = _HEAD.match(text.strip().lower())
    if found is None:
        raise ValueError("a head is SEQUENCE:HASH, as `coordinator audit head` prints it")
    return Head(int(found[1]), found[2])


def seal(previous: Head, facts: Mapping[str, Any]) -> Head:
    """The place of the row with these facts, right after `previous`.

    The hash is SHA-256 over the previous hash's hexadecimal digits and the facts with their sequence as JSON: keys
    sorted, no blanks, UTF-8, the time in UTC with microseconds.
    """
    sequence = previous.sequence + 1
    told = {name: facts[name] for name in FACTS} | {"at": _microseconds(facts["at"]), "sequence": sequence}
    text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    return Head(sequence, hashlib.sha256(previous.hash.encode() + text).hexdigest())


def _microseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk came, and the first thing that is wrong, if anything is."""

    head: Head
    rows: int
    problem: str | None = None


def walk(rows: Iterable[Mapping[str, Any]], *, start: Head, expected: Head | None = None) -> Walked:
    """Follow sealed rows, in order of their sequence, from `start`; stops at the first that does not fit.

    With `expected` the chain must lead through it.
    """
    head, count = start, 0
    if expected is not None and expected.sequence <= start.sequence and expected not in (start, START):
        return Walked(head, count, _before_the_start(expected, start))
    for row in rows:
        following = seal(head, row)
        if problem := _fault(row, following, expected):
            return Walked(head, count, problem)
        head, count = following, count + 1
    if expected is not None and head.sequence < expected.sequence:
        gone = f"the trail ends at {head.sequence}, before {expected.sequence}: rows were removed from its end"
        return Walked(head, count, gone)
    return Walked(head, count)


def _fault(row: Mapping[str, Any], computed: Head, expected: Head | None) -> str | None:
    found = row["sequence"]
    if found != computed.sequence:
        return f"row {computed.sequence} is missing: the next one there is is {found}"
    if row["hash"] != computed.hash:
        return f"row {found} ({row['action']}, {_microseconds(row['at'])}) is not what was sealed, or a row before it"
    if expected is not None and found == expected.sequence and expected.hash != computed.hash:
        return f"row {found} is not the one of the exported head: the trail was rewritten up to here"
    return None


def _before_the_start(expected: Head, start: Head) -> str:
    if expected.sequence == start.sequence:
        return f"row {start.sequence}, the last one that was removed, is not the one of the exported head"
    return f"row {expected.sequence} was removed by retention: what is kept begins after {start.sequence}"
