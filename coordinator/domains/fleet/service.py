"""Nodes come, are approved, live and go."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from coordinator.config import Settings
from coordinator.domains.fleet import broker_access, canaries, store
from coordinator.domains.fleet.states import NODE, NodeStatus
from coordinator.domains.fleet.store import Node
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import Pause
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.contracts.node import ENROL_TOKEN_PREFIX, NODE_TOKEN_PREFIX, Enrol, Heartbeat, HeartbeatReply
from shared.errors import Conflict, Forbidden, NotFound, Unauthenticated
from shared.ids import is_id, new_id
from shared.policy.placement import NodeFacts
from shared.queue.names import node_queue

PENDING_BEAT_SECONDS = 1.0
EMITTED = {NodeStatus.online: "worker.online", NodeStatus.offline: "worker.offline"}


def enrol(tx: Transaction, told: Enrol, *, token_id: str | None) -> tuple[Node, str]:
    """A new pending node and its credential, which is shown this once. A name is a label: it replaces nobody."""
    node_id, secret = new_id(), secrets.token_urlsafe(32)
    credential = f"{NODE_TOKEN_PREFIX}{node_id}_{secret}"
    group = told.group
    if token_id is not None:
        token = store.token_by_id(tx, token_id)
        if token is None or not store.use_token(tx, token_id, node_id):
            raise Unauthenticated("the enrolment token was used already")
        group = group or token.group_name
    store.add(
        tx,
        {
            "id": node_id,
            "name": told.name,
            "hostname": told.hostname,
            "ip_address": told.ip_address,
            "status": str(NodeStatus.pending),
            "is_approved": False,
            "is_draining": False,
            "status_reason": "waits for an admin to approve it",
            "group_name": group,
            "labels": told.labels,
            "slots": told.slots,
            "light_slots": told.light_slots,
            "max_agents": told.max_agents,
            "cpu_cores": told.cpu_cores,
            "memory_total_mb": told.memory_total_mb,
            "os_info": told.os_info,
            "software": told.software,
            "computers": told.computers,
            "credential_hash": _digest(credential),
            "created_at": tx.now,
            "updated_at": tx.now,
            "version": 1,
        },
    )
    return get(tx, node_id), credential


def authenticate(tx: Transaction, token: str) -> Node | None:
    """The node that this credential belongs to; None when it is wrong or the node was removed."""
    node_id = token[len(NODE_TOKEN_PREFIX) :][:36]
    if not is_id(node_id):
        return None
    node = store.credential(tx, node_id)
    if node is None or node.status == NodeStatus.removed:
        return None
    return node if hmac.compare_digest(node.credential_hash, _digest(token)) else None


def get(tx: Transaction, node_id: str) -> Node:
    node = store.find(tx, node_id)
    if node is None:
        raise NotFound(f"there is no worker {node_id}")
    return node


def list_nodes(tx: Transaction, page: PageRequest, *, status: str | None, group: str | None) -> Page[Node]:
    return store.page(tx, page, status=status, group=group)


def beat(tx: Transaction, resources: Resources, node_id: str, told: Heartbeat) -> HeartbeatReply:
    """Take a heartbeat in, renew the leases of what the node holds, and say what is wanted of it."""
    node = store.find(tx, node_id, lock=True)
    if node is None:
        raise NotFound(f"there is no worker {node_id}")
    restarted = bool(told.epoch) and node.epoch not in (None, told.epoch)
    hearing = canaries.judge(node, told, restarted=restarted, canary_seconds=resources.settings.canary_seconds)
    if hearing.is_deaf:
        told = replace(told, queue_ok=False)
    store.beat(tx, node_id, _facts_of(tx, told) | dict(hearing.columns))
    without_login = broker_access.is_refused(resources.settings, node)
    status = _move(tx, resources, node, *_standing(node, told, without_login=without_login))
    _remember_vitals(tx, resources.settings, node_id, told)
    if not node.is_approved:
        # Somebody may be about to approve it, and nothing else would tell it so.
        return _soon(_reply(resources.settings, node, status))
    held, present = told.attempts, told.present
    wants = queue.heartbeat(tx, resources, node_id=node_id, held=held, restarted=restarted, present=present)
    url = broker_access.url_of(resources, node)
    reply = replace(
        _reply(resources.settings, node, status),
        broker=url,
        queue=node_queue(node_id),
        drain=bool(node.is_draining),
        drain_in_seconds=None if node.drain_by is None else max(0.0, (node.drain_by - tx.now).total_seconds()),
        restart_consumer=hearing.needs_restart,
        attempts=wants,
        limits=_limits(resources.settings),
    )
    # Its login is being made; until it is, nothing reaches it.
    is_awaited = url is None and not without_login and resources.settings.redis_url
    return _soon(reply) if is_awaited else reply


def approve(
    tx: Transaction,
    resources: Resources,
    node_id: str,
    *,
    is_approved: bool,
    by: str,
    group: str | None = None,
    labels: Mapping[str, str] | None = None,
    slots: int | None = None,
) -> Node:
    """Let a node in, or cut it off at once."""
    node = _locked(tx, node_id)
    changes: dict[str, Any] = {"is_approved": is_approved}
    changes |= {"group_name": group} if group is not None else {}
    changes |= {"labels": dict(labels)} if labels is not None else {}
    changes |= {"slots": slots} if slots is not None else {}
    if is_approved and not node.is_approved:
        # Its login to the broker is bound to this moment.
        changes |= {"approved_at": tx.now, "approved_by": by, "canaries_missed": 0}
        changes |= {"broker_login": broker_access.at_first(resources.settings)}
    if is_approved:
        heard = node.last_seen_at is not None and tx.now - node.last_seen_at <= _patience(resources.settings)
        target = NodeStatus(node.status)
        if not node.is_approved:
            target = NodeStatus.online if heard else NodeStatus.offline
        _move(tx, resources, store.change(tx, node, **changes), target, None if heard else "approved, but not heard of")
    else:
        _move(tx, resources, store.change(tx, node, **changes), NodeStatus.pending, "rejected by an admin")
        queue.abandon_node(tx, resources, node_id, reason_code="node_rejected", message="its node was cut off")
    # Called first: cut off, it hears nothing more.
    queue.call_node(tx, resources, node_id)
    broker_access.settle_after(tx, resources, node_id)
    queue.nudge(tx, resources, "fleet")
    return get(tx, node_id)


def fence(tx: Transaction, resources: Resources, node_id: str, *, by: str, by_name: str) -> Node:
    """Cut a node off because its machine is off: nothing that it had is running any more, whatever it may say later."""
    approve(tx, resources, node_id, is_approved=False, by=by)
    queue.confirm_gone(tx, resources, node_id, by=by_name)
    _move(tx, resources, get(tx, node_id), NodeStatus.pending, f"fenced by {by_name}: its machine is off")
    return get(tx, node_id)


def remove(tx: Transaction, resources: Resources, node_id: str) -> None:
    """Take a node out for good: its credential is void from this commit on."""
    node = _locked(tx, node_id)
    node = store.change(tx, node, is_approved=False, removed_at=tx.now, credential_hash="")
    _move(tx, resources, node, NodeStatus.removed, "removed by an admin")
    queue.abandon_node(tx, resources, node_id, reason_code="node_removed", message="its node was removed")
    queue.confirm_gone(tx, resources, node_id, by="an admin who removed the node")
    queue.call_node(tx, resources, node_id)
    broker_access.settle_after(tx, resources, node_id)


def drain(
    tx: Transaction, resources: Resources, node_id: str, *, is_draining: bool, within_seconds: float | None = None
) -> Node:
    """Let a node finish what it has, for so long if that is said, and take no more; or take work again."""
    node = _locked(tx, node_id)
    if not node.is_approved:
        raise Conflict("only an approved worker can be drained", status=node.status)
    by = None if within_seconds is None else tx.now + timedelta(seconds=within_seconds)
    node = store.change(tx, node, is_draining=is_draining, drain_by=by if is_draining else None)
    if NodeStatus(node.status) in (NodeStatus.online, NodeStatus.maintenance):
        target = NodeStatus.maintenance if is_draining else NodeStatus.online
        _move(tx, resources, node, target, "draining" if is_draining else None)
    queue.call_node(tx, resources, node_id)
    queue.nudge(tx, resources, "fleet")
    return get(tx, node_id)


def miss(tx: Transaction, resources: Resources) -> int:
    """Put the nodes that fell silent offline; answers how many."""
    silent = store.silent_since(tx, tx.now - _patience(resources.settings))
    for node in silent:
        _move(tx, resources, node, NodeStatus.offline, "no heartbeat")
    return len(silent)


def require_ready(*, is_approved: bool, epoch: str | None, asked: str) -> None:
    """The node may claim: it is approved, and it is the daemon whose heartbeat came last that asks."""
    if not is_approved:
        raise Forbidden("this worker is not approved")
    if epoch != asked:
        raise Conflict("send a heartbeat with this epoch first", epoch=asked)


def facts(tx: Transaction) -> list[NodeFacts]:
    """Every node as placement sees it, with what it holds taken off its places, paused or not."""
    load, pauses = queue.load_and_pauses(tx)
    return [_facts(node, load, pauses) for node in store.present(tx)]


def overview(tx: Transaction) -> dict[str, Any]:
    """The fleet in numbers."""
    every = store.present(tx)
    load, _ = queue.load_and_pauses(tx)
    here = [node for node in every if node.status == NodeStatus.online]
    approved = [node for node in every if node.is_approved]
    by_status = {str(status): sum(node.status == status for node in every) for status in NodeStatus}
    by_status.pop(str(NodeStatus.removed))
    return {
        "total_workers": len(every),
        "online_workers": len(here),
        "pending_workers": by_status["pending"],
        "by_status": by_status,
        "total_cpu_cores": sum(node.cpu_cores or 0 for node in approved),
        "total_memory_mb": sum(node.memory_total_mb or 0 for node in approved),
        "total_active_agents": len(queue.busy_agents(tx)),
        "total_slots": sum(node.slots for node in here),
        "slots_used": sum(count for (_, takes_slot), count in load.items() if takes_slot),
    }


def vitals_history(tx: Transaction, node_id: str, *, hours: float, points: int) -> list[dict[str, Any]]:
    """The vitals of the last `hours`, thinned to at most `points` by averaging neighbours."""
    get(tx, node_id)
    rows = store.vitals_between(tx, node_id, tx.now - timedelta(hours=hours))
    size = max(1, -(-len(rows) // points))
    return [_average(rows[start : start + size]) for start in range(0, len(rows), size)]


def create_token(
    tx: Transaction, settings: Settings, *, by: str | None, note: str | None, group: str | None, seconds: int | None
) -> tuple[str, Any]:
    """A one-time enrolment token, shown this once."""
    token = f"{ENROL_TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    token_id = new_id()
    row = {
        "id": token_id,
        "token_hash": _digest(token),
        "note": note,
        "group_name": group,
        "created_by": by,
        "created_at": tx.now,
        "expires_at": tx.now + timedelta(seconds=seconds or settings.enrol_token_seconds),
    }
    store.add_token(tx, row)
    return token, store.token_by_id(tx, token_id)


def find_token(tx: Transaction, token: str) -> Any | None:
    """The row of a usable enrolment token."""
    return store.token(tx, _digest(token))


def list_tokens(tx: Transaction, page: PageRequest) -> Page[Any]:
    return store.tokens(tx, page)


def revoke_token(tx: Transaction, token_id: str) -> None:
    if not store.revoke_token(tx, token_id):
        raise NotFound(f"there is no enrolment token {token_id}")


def prune(tx: Transaction, *, days: float) -> int:
    """Forget vitals older than `days`."""
    return store.prune_vitals(tx, tx.now - timedelta(days=days))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _patience(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.lost_after_seconds)


def _locked(tx: Transaction, node_id: str) -> Node:
    node = store.find(tx, node_id, lock=True)
    if node is None or node.status == NodeStatus.removed:
        raise NotFound(f"there is no worker {node_id}")
    return node


def _move(tx: Transaction, resources: Resources, node: Node, target: NodeStatus, reason: str | None) -> NodeStatus:
    """The only place where a node's status changes; others hear of it coming and going."""
    source = NodeStatus(node.status)
    if source is target and node.status_reason == reason:
        return target
    if source is not target:
        NODE.require(source, target)
        if target in EMITTED:
            data = {"id": node.id, "name": node.name, "status": str(target), "reason": reason}
            queue.emit(tx, EMITTED[target], space="default", subject_id=node.id, data=data)
        queue.nudge(tx, resources, "fleet")
    store.beat(tx, node.id, {"status": str(target), "status_reason": reason})
    return target


def _standing(node: Node, told: Heartbeat, *, without_login: bool) -> tuple[NodeStatus, str | None]:
    """The node's status and why."""
    if node.is_approved and without_login:
        return NodeStatus.error, "the broker makes no login of its own for it, and no other is allowed"
    return _status_for(node, told), _status_reason(node, told)


def _status_for(node: Node, told: Heartbeat) -> NodeStatus:
    if not node.is_approved:
        return NodeStatus.pending
    if told.queue_ok is False or (told.docker_ok is False and _driver(node, told) == "docker"):
        return NodeStatus.error
    return NodeStatus.maintenance if node.is_draining or told.draining else NodeStatus.online


def _status_reason(node: Node, told: Heartbeat) -> str | None:
    if not node.is_approved:
        return str(node.status_reason)
    if told.queue_ok is False:
        return "it does not hear its queue"
    if told.docker_ok is False:
        return "its Docker daemon does not answer"
    return "draining" if told.draining else None


def _driver(node: Node, told: Heartbeat) -> str | None:
    return (told.computers or node.computers or {}).get("driver")


def _facts_of(tx: Transaction, told: Heartbeat) -> dict[str, Any]:
    """The columns that a heartbeat refreshes; what it leaves out stays."""
    vitals = {
        "cpu_percent": told.cpu_usage_percent,
        "memory_percent": told.memory_usage_percent,
        "disk_percent": told.disk_usage_percent,
        "slots_used": told.slots_used,
        **told.vitals,
    }
    known = {
        "epoch": told.epoch or None,
        "docker_ok": told.docker_ok,
        "queue_ok": told.queue_ok,
        "slots": told.slots,
        "light_slots": told.light_slots,
        "computers": told.computers,
        "software": told.software,
    }
    return {"last_seen_at": tx.now, "vitals": vitals} | {
        key: value for key, value in known.items() if value is not None
    }


def _remember_vitals(tx: Transaction, settings: Settings, node_id: str, told: Heartbeat) -> None:
    network = told.vitals.get("network") or {}
    load = told.vitals.get("load") or [None]
    row = {
        "node_id": node_id,
        "at": tx.now,
        "cpu_percent": told.cpu_usage_percent,
        "memory_percent": told.memory_usage_percent,
        "disk_percent": told.disk_usage_percent,
        "load_1m": load[0],
        "network_sent_bytes": network.get("sent_bytes"),
        "network_received_bytes": network.get("received_bytes"),
        "slots_used": told.slots_used,
    }
    store.add_vitals(tx, row, every_seconds=settings.vitals_every_seconds)


def _soon(reply: HeartbeatReply) -> HeartbeatReply:
    """The same, with the next heartbeat wanted soon."""
    return replace(reply, heartbeat_seconds=min(reply.heartbeat_seconds, PENDING_BEAT_SECONDS))


def _reply(settings: Settings, node: Node, status: NodeStatus) -> HeartbeatReply:
    return HeartbeatReply(
        status=str(status),
        is_approved=bool(node.is_approved),
        heartbeat_seconds=settings.heartbeat_seconds,
        lease_seconds=settings.lease_seconds,
    )


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "max_artifacts": settings.max_artifacts,
        "max_artifacts_bytes": settings.max_artifacts_bytes,
        "max_file_bytes": settings.max_file_bytes,
        "max_result_bytes": settings.max_result_bytes,
        "max_log_bytes": settings.max_log_bytes,
    }


def _facts(node: Node, load: Mapping[tuple[str, bool], int], pauses: Sequence[Pause]) -> NodeFacts:
    vitals = node.vitals or {}
    held = queue.pauses_of(node.id, node.group_name, pauses) if pauses else []
    return NodeFacts(
        id=node.id,
        name=node.name,
        status=node.status,
        is_approved=bool(node.is_approved),
        group=node.group_name,
        labels=node.labels or {},
        driver=(node.computers or {}).get("driver"),
        isolation=(node.computers or {}).get("isolation") or "none",
        slots=node.slots,
        free_slots=node.slots - load.get((node.id, True), 0),
        light_slots=node.light_slots,
        free_light=node.light_slots - load.get((node.id, False), 0),
        cpu_percent=vitals.get("cpu_percent"),
        memory_percent=vitals.get("memory_percent"),
        paused=held[0].in_words(node.name) if held else None,
    )


def _average(rows: Sequence[Any]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return round(sum(values) / len(values), 2) if values else None

    names = ("cpu_percent", "memory_percent", "disk_percent", "load_1m", "slots_used")
    last = rows[-1]
    counters = {name: getattr(last, name) for name in ("network_sent_bytes", "network_received_bytes")}
    return {"at": last.at, **{name: mean(name) for name in names}, **counters}
