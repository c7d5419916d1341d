"""What requests leave in the audit trail: acts with their own transaction, refusals and failures after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from coordinator.domains.identity import audit, key_uses
from coordinator.domains.identity.audit import Who
from coordinator.domains.identity.audit_actions import noun_of
from coordinator.http.actor import ANONYMOUS, ActorKind
from coordinator.http.auth import Gatekeeper
from coordinator.http.refusals import WINDOW, RefusalBudget, place_of
from coordinator.http.slice import Endpoint
from coordinator.http.stopping import when_stopping
from coordinator.http.witness import Witness
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Forbidden, LongshoreError, Unauthenticated

USED_AGAIN_AND_AGAIN = frozenset({ActorKind.NODE, ActorKind.API_KEY})
"""Kinds of actor whose credential is no login of its own: its use is told once for each address and day."""

NOTHING_WAS_DONE = frozenset({400, 404, 405, 412, 413, 415, 422})
"""Statuses that say no more than that the request was wrong."""

REMEMBERED_USES = 10_000
GOODBYE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Clerk:
    """Writes what no transaction of an act can hold: refusals, failures, and that a credential is in use."""

    def __init__(self, resources: Resources, gatekeeper: Gatekeeper) -> None:
        self._resources = resources
        self._gatekeeper = gatekeeper
        self._budget = RefusalBudget()
        self._uses: set[tuple[str, str, Any]] = set()
        self._last_uses: dict[str, tuple[datetime, str | None]] = {}
        self._settling: threading.Thread | None = None
        self._settles = False
        self._stop = threading.Event()

    # ---- refusals and failures

    def note(
        self,
        endpoint: Endpoint,
        witness: Witness,
        error: Exception,
        *,
        token: str | None,
        path_args: Mapping[str, str],
    ) -> None:
        """Tell that a request ended in `error`, if it is worth a row and there is one left. Never raises."""
        if witness.actor is ANONYMOUS and token is not None:
            witness.actor = self._gatekeeper.recognised(token) or ANONYMOUS
        outcome = judged(endpoint, witness, error)
        if outcome is None:
            return
        address, actor = witness.address or "", witness.actor.id or None
        unrecorded = self._budget.spend(address=address, actor=actor, now=self._resources.clock.now())
        if unrecorded is None:
            self._settle_later()
            return
        action, about = _about(endpoint, path_args)
        message = witness.why or (error.message if isinstance(error, LongshoreError) else type(error).__name__)
        facts = {**about, "outcome": outcome, "message": message, "unrecorded": unrecorded}

        def write(tx: Transaction) -> None:
            audit.record(tx, audit.named(tx, witness.who()), action, **facts)

        if not self._written(write):
            self._budget.give_back(address=address, count=unrecorded + 1)

    def settle(self) -> None:
        """Tell of the refusals that were left out and that no later one has told of, and when keys were used last."""
        self._note_last_uses()
        for address, count in self._budget.settle():

            def write(tx: Transaction, address: str = address, count: int = count) -> None:
                who = Who(str(ActorKind.ANONYMOUS), address=address)
                told = "further refusals and failures that got no row of their own"
                audit.record(tx, who, "request.refused", outcome="refused", message=told, unrecorded=count)

            if not self._written(write):
                self._budget.give_back(address=address, count=count)

    def settle_by_itself(self) -> None:
        """From now on settle once a minute, beginning with the first thing to tell, and when the process stops."""
        self._settles = True
        when_stopping(self.close)

    def close(self) -> None:
        """Settle a last time."""
        self._stop.set()
        if self._settling is not None:
            self._settling.join(GOODBYE_SECONDS)

    def _settle_later(self) -> None:
        # A thread only once there is something for it to do, and never before the web server has forked.
        if self._settles and self._settling is None:
            self._settling = threading.Thread(target=self._settle_on, name="refusals", daemon=True)
            self._settling.start()

    def _settle_on(self) -> None:
        while not self._stop.wait(WINDOW.total_seconds()):
            self.settle()
        self.settle()

    # ---- uses of credentials

    def note_use(self, witness: Witness) -> None:
        """Tell that a key or a node's credential is in use, once for each address and day. Never raises."""
        credential = witness.actor.credential_id
        if credential is None:
            return
        if witness.actor.kind == ActorKind.API_KEY:
            self._last_uses[credential] = (self._resources.clock.now(), witness.address)
            self._settle_later()
        place = place_of(witness.address or "")
        use = (credential, place, self._resources.clock.now().date())
        if use in self._uses:
            return

        def write(tx: Transaction) -> None:
            audit.record_use(tx, witness.who(), place=place)

        if self._written(write):
            if len(self._uses) >= REMEMBERED_USES:
                self._uses.clear()
            self._uses.add(use)

    def _note_last_uses(self) -> None:
        """Write when keys were used last: once a minute for each key, and in no request's way."""
        noted, self._last_uses = self._last_uses, {}
        uses = [(credential, at, address) for credential, (at, address) in list(noted.items())]
        if uses and not self._written(lambda tx: key_uses.note(tx, uses)):
            self._last_uses = noted | self._last_uses

    def _written(self, write: Callable[[Transaction], None]) -> bool:
        """Whether `write` was committed. The request has its answer: what goes wrong here is for the log."""
        try:
            with self._resources.database.write() as tx:
                write(tx)
        except (LongshoreError, SQLAlchemyError) as error:
            log.warning("audit.not_written", error=type(error).__name__, reason=str(error).partition("\n")[0])
            return False
        return True


def judged(endpoint: Endpoint, witness: Witness, error: Exception) -> Literal["refused", "failed"] | None:
    """What the trail calls this end of a request; None when it says nothing about it.

    A request without any credential is nobody's: whoever shows nothing is told to, and that is all. An act that ends
    in an error has failed, unless the request was wrong in itself.
    """
    if isinstance(error, Forbidden):
        return "refused"
    if isinstance(error, Unauthenticated):
        return None if witness.actor is ANONYMOUS else "refused"
    status = error.status if isinstance(error, LongshoreError) else getattr(error, "code", None) or 500
    is_act = bool(endpoint.audit) and witness.actor is not ANONYMOUS
    return "failed" if is_act and status not in NOTHING_WAS_DONE else None


def _about(endpoint: Endpoint, path_args: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The action that was tried, and on what."""
    if endpoint.audit:
        action = endpoint.audit[0]
        return action, {"resource_type": noun_of(action), "resource_id": last_of(path_args)}
    what = {"resource_type": "endpoint", "resource_id": f"{endpoint.method} {endpoint.path}"}
    return "request.refused", what | {"after": dict(path_args) or None}


def last_of(path_args: Mapping[str, str]) -> str | None:
    """What a path is about: `w` of `/workers/<w>`."""
    return list(path_args.values())[-1] if path_args else None
