"""Who one request comes from, as its rows in the audit trail will say it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from coordinator.domains.identity import audit
from coordinator.domains.identity.audit import Who
from coordinator.http.actor import ANONYMOUS, Actor
from coordinator.store.database import Transaction


@dataclass(slots=True)
class Witness:
    """Who one request comes from, as far as it is known by now, and whether it has told of itself."""

    remote: str | None
    """The address as the web server has it; behind proxies, as the outermost trusted one told it."""
    request_id: str
    secrets: frozenset[str] = frozenset()
    actor: Actor = ANONYMOUS
    space: str | None = None
    why: str | None = None
    """The reason of a refusal in words that are for the trail and not for the caller."""
    has_recorded: bool = False

    @property
    def address(self) -> str | None:
        return plain_address(self.remote)

    def who(self) -> Who:
        actor = self.actor
        return Who(
            kind=str(actor.kind),
            id=actor.id or None,
            name=actor.name or None,
            credential_id=actor.credential_id,
            address=self.address,
            request_id=self.request_id,
            space=self.space or actor.space,
        )

    def record(self, tx: Transaction, action: str, **facts: Any) -> None:
        """Write a row in the transaction of the act."""
        audit.record(tx, self.who(), action, secrets=self.secrets, **facts)
        self.has_recorded = True


def plain_address(given: str | None) -> str | None:
    """The address alone: some proxies hand on its port, too."""
    if not given:
        return None
    text = given.strip()
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return text
