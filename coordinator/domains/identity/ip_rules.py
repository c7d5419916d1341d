"""Which addresses may call at all: what an admin listed, remembered by each process for two seconds."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from coordinator.domains.identity import security
from coordinator.store.database import Database, Transaction
from shared.errors import Conflict, Forbidden, Unavailable

SECTION = "ip_rules"
ALLOW, DENY = "allow", "deny"
GREATEST_COUNT = 1000
REMEMBERED_ADDRESSES = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the list."""

    network: IPv4Network | IPv6Network
    action: str
    description: str | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Rule:
        return cls(ipaddress.ip_network(stored["cidr"]), stored["action"], stored.get("description"))

    @property
    def view(self) -> dict[str, Any]:
        return {"cidr": str(self.network), "action": self.action, "description": self.description}


def lets_in(rules: Sequence[Rule], address: str | None) -> bool:
    """Whether somebody at this address may call.

    A rule that denies wins over all that allow; as soon as one rule allows, whatever none allows is shut out. This
    machine itself always may: there must be a way back.
    """
    if not rules or not address:
        # A local socket has no address.
        return True
    try:
        parsed = _parsed(address)
    except ValueError:
        return False
    if parsed.is_loopback:
        return True
    matching = {rule.action for rule in rules if parsed.version == rule.network.version and parsed in rule.network}
    if DENY in matching:
        return False
    return ALLOW in matching or all(rule.action == DENY for rule in rules)


def _parsed(address: str) -> IPv4Address | IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed


@dataclass(frozen=True, slots=True)
class Known:
    """The rules as they were at a time."""

    at: datetime
    rules: tuple[Rule, ...]


_known: WeakKeyDictionary[Engine, Known] = WeakKeyDictionary()
_judged = lru_cache(maxsize=REMEMBERED_ADDRESSES)(lets_in)


def require_let_in(database: Database, address: str | None) -> None:
    """Raise Forbidden for an address that the rules shut out."""
    if not _judged(_current(database), address):
        raise Forbidden("requests from this address are not taken")


def _current(database: Database) -> tuple[Rule, ...]:
    known, now = _known.get(database.engine), database.clock.now()
    # A clock that was set back must not keep old rules for as long as it was set back.
    if known is not None and timedelta() <= now - known.at < security.REMEMBERED_FOR:
        return known.rules
    try:
        with database.read() as tx:
            rules = stored(tx)
    except Unavailable:
        # What needs no database goes on without one, under the rules that were known last.
        if known is None:
            raise
        return known.rules
    _known[database.engine] = Known(now, rules)
    return rules


def stored(tx: Transaction) -> tuple[Rule, ...]:
    """The rules as they are in force."""
    section = security.current(tx).others.get(SECTION) or {}
    return tuple(Rule.of(each) for each in section.get("rules", ()))


def replace(
    tx: Transaction, rules: Sequence[Rule], *, by: str | None, address: str | None, confirmed: bool
) -> tuple[Rule, ...]:
    """Put these rules in the place of all others; the rules that were. Refuses to shut their author out unawares."""
    if not confirmed and not lets_in(rules, address):
        raise Conflict(
            "these rules would shut out your own address; send confirm: true if you mean it", address=address
        )
    before = stored(tx)
    security.put(tx, SECTION, {"rules": [rule.view for rule in rules]}, by=by)
    engine = tx.conn.engine
    tx.after_commit(lambda: _forget(engine))
    return before


def _forget(engine: Engine) -> None:
    _known.pop(engine, None)
