"""Logins of nodes on the broker: who has one, and what the broker is told after an approval or its end.

What the broker has follows from the rows of nodes. It is changed only while those rows are locked, by their state at
that moment, so that of an approval and a withdrawal that cross the later one counts, whoever comes to the broker first.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import redis
import structlog

from coordinator.config import Settings
from coordinator.domains.fleet import store
from coordinator.domains.fleet.store import Node
from coordinator.resources import LOCAL_REDIS, Resources
from coordinator.store.database import Transaction
from shared.errors import LongshoreError
from shared.queue import logins
from shared.queue.broker import parse_broker, with_login
from shared.queue.logins import LoginsRefused
from shared.queue.names import node_queue

BATCH = 100
"""Rows that are locked while the broker is asked once."""

log = structlog.get_logger(__name__)


class Login(StrEnum):
    """What an approved node has to come to the broker with; nothing until the broker was asked."""

    own = "own"
    """A login of its own: it reads its queue, and nothing else."""
    shared = "shared"
    """The login that all nodes have: the broker makes no others, or the settings want it so."""
    refused = "refused"
    """The broker makes no others, and the settings allow no shared one."""


def drift(
    wanted: Mapping[str, str], on_broker: Mapping[str, str], *, ours: Collection[str], unsure: Collection[str]
) -> list[str]:
    """The nodes whose login on the broker is not what their row says; `wanted` and `on_broker` are digests by node.

    Of the logins that nobody wants, only those of `ours` count: others may be another fleet's on the same server.
    `unsure` are nodes whose row does not say yet that their login is made.
    """
    missing = {node_id for node_id, digest in wanted.items() if on_broker.get(node_id) != digest}
    surplus = (on_broker.keys() & set(ours)) - wanted.keys()
    return sorted(missing | surplus | set(unsure))


def at_first(settings: Settings) -> Login | None:
    """What a node has with its approval, before the broker was asked."""
    return Login.shared if settings.node_broker_logins == "shared" else None


def is_refused(settings: Settings, node: Node) -> bool:
    """Whether the broker makes no login for this node, and nothing else is allowed."""
    return settings.node_broker_logins == "own" and node.broker_login == Login.refused


def url_of(resources: Resources, node: Node) -> str | None:
    """The broker's URL for this approved node, with its own login in it where it has one; None while there is none."""
    settings = resources.settings
    url = settings.node_redis_url or settings.redis_url
    if not url:
        return None
    if settings.node_broker_logins == "shared":
        return url
    if node.broker_login == Login.own:
        return with_login(url, username=logins.username_of(node.id), password=_password(resources, node))
    is_shared = node.broker_login == Login.shared and settings.node_broker_logins == "auto"
    return url if is_shared else None


def settle_after(tx: Transaction, resources: Resources, node_id: str) -> None:
    """Bring the broker up to date once this transaction is durable; what fails is repaired by the leader."""
    if resources.settings.node_broker_logins == "shared":
        return
    tx.after_commit(lambda: _settle_quietly(resources, node_id), once=f"login {node_id}")


def settle(resources: Resources, node_ids: Sequence[str]) -> None:
    """Give each of these nodes the login that it should have now, or take it away.

    Raises what redis raises, and LoginsRefused; rows then still say what the broker has, or nothing.
    """
    refused: LoginsRefused | None = None
    settings = resources.settings
    ordered = sorted(node_ids)
    for start in range(0, len(ordered), BATCH):
        with resources.database.write() as tx:
            nodes = store.locked(tx, ordered[start : start + BATCH])
            entitled = _entitled(resources, nodes)
            try:
                _apply(resources, nodes, entitled)
                made = Login.own
            except LoginsRefused as error:
                made, refused = _without(settings), error
            given = dict.fromkeys(entitled, made)
            first = at_first(settings)
            store.note_logins(tx, {node.id: given.get(node.id, first) if node.is_approved else None for node in nodes})
    if refused is not None:
        raise refused


def find_drift(tx: Transaction, resources: Resources, on_broker: Mapping[str, str]) -> list[str]:
    """Whose login is not what it should be, of what the broker was found to have."""
    approved = store.approved(tx)
    wanted = {node_id: logins.digest(password) for node_id, password in _entitled(resources, approved).items()}
    unsure = [node.id for node in approved if node.id in wanted and node.broker_login != Login.own]
    ours = store.existing(tx, on_broker.keys() - wanted.keys())
    return drift(wanted, on_broker, ours=ours, unsure=unsure)


def note_refusal(tx: Transaction, settings: Settings) -> None:
    """The broker makes no logins: no approved node counts on one."""
    store.note_logins(tx, {node.id: _without(settings) for node in store.approved(tx)})


def in_words(tx: Transaction, settings: Settings) -> str | None:
    """What is worth saying of the logins of the fleet; None when every node has its own, or none is wanted."""
    if settings.node_broker_logins == "shared":
        return None
    found = {node.broker_login for node in store.approved(tx)}
    if Login.refused in found:
        return "makes no logins for nodes, and no other is allowed: they hear nothing"
    return "makes no logins for nodes: they share one" if Login.shared in found else None


def _without(settings: Settings) -> Login:
    """What a node has when the broker makes no login for it."""
    return Login.refused if settings.node_broker_logins == "own" else Login.shared


def _entitled(resources: Resources, nodes: Sequence[Node]) -> dict[str, str]:
    """The passwords of those that should have a login of their own."""
    if resources.settings.node_broker_logins == "shared":
        return {}
    return {node.id: _password(resources, node) for node in nodes if node.is_approved}


def _apply(resources: Resources, nodes: Sequence[Node], entitled: Mapping[str, str]) -> None:
    others = [node.id for node in nodes if node.id not in entitled]
    if others:
        logins.withdraw(resources.redis, others)
    if gone := [node_queue(node.id) for node in nodes if not node.is_approved]:
        resources.redis.delete(*gone)
    if entitled:
        database = parse_broker(resources.settings.redis_url or LOCAL_REDIS).database
        logins.grant(resources.redis, entitled, database=database)


def _settle_quietly(resources: Resources, node_id: str) -> None:
    if resources.signals.is_away:
        log.warning("broker_login.postponed", node_id=node_id, reason="the broker is away")
        return
    try:
        settle(resources, [node_id])
    except LoginsRefused as error:
        log.warning("broker_login.refused", node_id=node_id, reason=str(error))
    except (redis.RedisError, OSError, LongshoreError) as error:
        # The request is answered by what was committed. The leader finds the difference as soon as it can.
        log.warning("broker_login.postponed", node_id=node_id, reason=type(error).__name__)


def _password(resources: Resources, node: Node) -> str:
    """Derived, so that it is kept nowhere; another approval has another one."""
    told = f"{node.id} {node.approved_at.isoformat()}"
    return hmac.new(resources.key("broker"), told.encode(), hashlib.sha256).hexdigest()
