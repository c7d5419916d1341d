"""`Idempotency-Key`: the same request again gets the stored answer instead of being done twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Request

from coordinator.domains.system import service
from coordinator.domains.system.service import StoredAnswer, StoredKey
from coordinator.http.actor import Actor
from coordinator.http.answering import Answer, Handled, dump
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import BadRequest

REPLAYED = "Idempotency-Replayed"
_SANE_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's claim to its key."""

    which: StoredKey
    body_hash: str
    seconds: int

    @classmethod
    def of(cls, request: Request, key: str, *, actor: Actor, asked: Sequence[Any], resources: Resources) -> Claim:
        """The claim of `actor` to `key`; `asked` is what the request says, compared whenever the key comes again."""
        if not _SANE_KEY.match(key):
            raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
        place = f"{request.method} {request.path.rstrip('/')} {request.headers.get('X-Space', '')}"
        return cls(
            which=StoredKey(actor.id, _digest(place.encode()), key),
            body_hash=_digest(orjson.dumps(asked, default=str, option=orjson.OPT_SORT_KEYS)),
            seconds=resources.settings.idempotency_seconds,
        )

    def stored(self, tx: Transaction) -> Answer | None:
        """The answer given before, marked as a replay."""
        found = service.recall_answer(tx, self.which, body_hash=self.body_hash, lock=self._lock_number())
        return None if found is None else _replayed(found)

    def reserve(self, tx: Transaction) -> Answer | None:
        """The same for work that has no one transaction: the key is taken before the work begins."""
        if (answer := self.stored(tx)) is None:
            service.reserve_answer(tx, self.which, body_hash=self.body_hash)
        return answer

    def release(self, tx: Transaction) -> None:
        """Give the key back, as the work failed."""
        service.release_answer(tx, self.which)

    def keep(self, tx: Transaction, handled: Handled) -> None:
        """Store the answer, without the secrets in it."""
        answer, shaped = handled.answer, handled.shaped
        if shaped is None:
            raise TypeError("an endpoint that builds its own response cannot be idempotent")
        body = answer.body
        if shaped.secret_fields and isinstance(shaped.value, Mapping):
            body = dump({name: each for name, each in shaped.value.items() if name not in shaped.secret_fields})
        headers = {**answer.headers, "Content-Type": answer.media_type}
        stored = StoredAnswer(self.body_hash, answer.status, headers, body)
        service.store_answer(tx, self.which, stored, seconds=self.seconds)

    def _lock_number(self) -> int:
        name = f"{self.which.principal_id} {self.which.request} {self.which.key}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _replayed(found: StoredAnswer) -> Answer:
    headers = {name: text for name, text in found.headers.items() if name != "Content-Type"}
    return Answer(found.status, found.body, found.headers["Content-Type"], {**headers, REPLAYED: "true"})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
