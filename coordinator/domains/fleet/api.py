"""Endpoints of the fleet: workers for people and programs, the node protocol for nodes."""

from __future__ import annotations

from typing import Any

from coordinator.domains.fleet import pausing, schemas, service
from coordinator.domains.fleet.gauges import gauges
from coordinator.domains.fleet.pausing import Standing, standing
from coordinator.domains.fleet.store import Node
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.gauges import gauges as queue_gauges
from coordinator.domains.queue.service import Author, Pause, Scope
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.auth import register_authenticator
from coordinator.http.metrics import register_gauges
from coordinator.http.slice import ENROL, NODE, Call, ListOf, Page, Reply, Slice
from coordinator.store.database import Transaction
from shared.clock import rfc3339
from shared.contracts.node import ENROL_TOKEN_PREFIX, NODE_TOKEN_PREFIX, Enrol, Heartbeat, Sync

fleet = Slice("workers", "Worker nodes: enrolment, approval, heartbeats, and what they run")
_PRIORITY = {number: word for word, number in queue.PRIORITIES.items()}


def _node_actor(tx: Transaction, token: str, _space: str) -> Actor | None:
    node = service.authenticate(tx, token)
    if node is None:
        return None
    facts = {"is_approved": bool(node.is_approved), "epoch": node.epoch}
    return Actor(id=node.id, kind=ActorKind.NODE, name=node.name, credential_id=node.id, facts=facts)


def _enrolment_actor(tx: Transaction, token: str, _space: str) -> Actor | None:
    row = service.find_token(tx, token)
    return Actor(id=row.id, kind=ActorKind.ENROLMENT, name="enrolment", credential_id=row.id) if row else None


register_gauges(gauges)
register_gauges(queue_gauges)
register_authenticator(NODE_TOKEN_PREFIX, _node_actor)
register_authenticator(ENROL_TOKEN_PREFIX, _enrolment_actor)


@fleet.post(
    "/workers/register",
    may=ENROL,
    body=schemas.EnrolBody,
    reply=schemas.EnrolledView,
    status=201,
    location="/workers/{id}",
    example={"name": "rack-1", "hostname": "rack-1.local", "ip_address": "10.0.0.11", "cpu_cores": 8},
    audit="worker.enrolled",
)
def register_worker(call: Call) -> Reply:
    """Enrol a worker node.

    Needs a one-time enrolment token, or a principal who may enrol workers. The node is pending until an admin approves
    it; the answer holds its own credential, shown this once. A name is a label: registering it again makes another
    node.
    """
    token_id = call.actor.id if call.actor.kind == ActorKind.ENROLMENT else None
    node, credential = service.enrol(call.tx, Enrol.from_json(call.body), token_id=token_id)
    call.audit("worker.enrolled", resource_id=node.id, after=_told_of(node))
    value = {
        "id": node.id,
        "status": node.status,
        "is_approved": bool(node.is_approved),
        "credential": credential,
        "heartbeat_seconds": call.resources.settings.heartbeat_seconds,
    }
    return Reply(value, secret_fields=("credential",))


@fleet.post(
    "/workers/<id:worker_id>/heartbeat",
    may=NODE,
    body=schemas.HeartbeatBody,
    reply=schemas.HeartbeatView,
    idempotent=False,
    quiet=True,
    example={"cpu_usage_percent": 12.5, "memory_usage_percent": 40.0, "disk_usage_percent": 61.0},
)
def heartbeat(call: Call, worker_id: str) -> dict[str, Any]:
    """Tell that a node lives, and learn what is wanted of it."""
    return service.beat(call.tx, call.resources, worker_id, Heartbeat.from_json(call.body)).to_json()


@fleet.post(
    "/workers/<id:worker_id>/sync",
    may=NODE,
    body=schemas.SyncBody,
    reply=schemas.SyncView,
    idempotent=False,
    quiet=True,
    errors=(409,),
)
def sync_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Claim attempts and report how others ended, many at a time."""
    service.require_ready(**call.actor.facts, asked=call.body["epoch"])
    return queue.sync(call.tx, call.resources, node_id=worker_id, request=Sync.from_json(call.body)).to_json()


@fleet.post(
    "/workers/<id:worker_id>/logs",
    may=NODE,
    body=schemas.LogsBody,
    reply=schemas.LogsView,
    idempotent=False,
    quiet=True,
)
def store_logs(call: Call, worker_id: str) -> dict[str, Any]:
    """Hand in log lines of running attempts. Sending a batch twice stores it once."""
    stored, stale = queue.store_lines(call.tx, node_id=worker_id, lines=call.body["lines"])
    return {"stored": stored, "stale": stale}


@fleet.get("/workers", may="workers:read", query=schemas.NodesQuery, reply=ListOf("workers", schemas.NodeView))
def list_workers(call: Call) -> Page[dict[str, Any]]:
    """List workers, newest first."""
    return _page(call)


@fleet.get("/admin/workers", may="workers:admin", query=schemas.NodesQuery, reply=ListOf("workers", schemas.NodeView))
def list_workers_for_admins(call: Call) -> Page[dict[str, Any]]:
    """List workers with their metrics, for admins."""
    return _page(call)


@fleet.get("/workers/overview", may="workers:read", reply=schemas.OverviewView)
def get_fleet_overview(call: Call) -> dict[str, Any]:
    """The fleet in numbers."""
    return service.overview(call.tx)


@fleet.get("/workers/<id:worker_id>", may=("workers:read", NODE), reply=schemas.NodeView, etag=True, errors=(404,))
def get_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """One worker."""
    return _view(service.get(call.tx, worker_id), standing(call.tx))


@fleet.get(
    "/workers/<id:worker_id>/tasks",
    may=("workers:read", NODE),
    reply=ListOf("tasks", schemas.WorkView),
    errors=(404,),
)
def list_worker_tasks(call: Call, worker_id: str) -> Page[dict[str, Any]]:
    """What a worker runs, what is on its way to it, and what waits for it alone; nothing until it is approved."""
    node = service.get(call.tx, worker_id)
    items = queue.work_of(call.tx, worker_id, call.page.limit + call.page.offset) if node.is_approved else []
    views = [item | {"priority": _PRIORITY[item["priority"]]} for item in items]
    return Page([_timed(item) for item in views[call.page.offset :]], len(views))


@fleet.get(
    "/workers/<id:worker_id>/vitals",
    may="workers:read",
    query=schemas.VitalsQuery,
    reply=schemas.VitalsView,
    errors=(404,),
)
def get_worker_vitals(call: Call, worker_id: str) -> dict[str, Any]:
    """The history of a worker's vitals, thinned for a chart."""
    hours, points = call.query["hours"], call.query["points"]
    return {"points": [_timed(p) for p in service.vitals_history(call.tx, worker_id, hours=hours, points=points)]}


@fleet.post(
    "/workers/<id:worker_id>/drain",
    may=("workers:write", NODE),
    body=schemas.DrainBody,
    reply=schemas.NodeView,
    errors=(404, 409),
    example={"within_seconds": 600},
    audit="worker.drained",
)
def drain_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Let a worker finish what it has and take no more.

    With `within_seconds`, what still runs when that time is over is stopped, handed back, and runs elsewhere; it counts
    as no failure. Draining again sets the time anew, or takes it away.
    """
    within = call.body["within_seconds"]
    node = service.drain(call.tx, call.resources, worker_id, is_draining=True, within_seconds=within)
    return _view(node, standing(call.tx))


@fleet.post(
    "/workers/<id:worker_id>/resume",
    may=("workers:write", NODE),
    reply=schemas.NodeView,
    errors=(404, 409),
    audit="worker.resumed",
)
def resume_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Let a drained or paused worker take work again.

    A pause of its group or of the fleet goes on.
    """
    lifts_pause = call.actor.kind is not ActorKind.NODE
    node = pausing.resume_node(call.tx, call.resources, worker_id, lifts_pause=lifts_pause)
    return _view(node, standing(call.tx))


@fleet.post(
    "/workers/<id:worker_id>/pause",
    may="workers:write",
    body=schemas.PauseBody,
    reply=schemas.NodeView,
    errors=(404,),
    example={"reason": "a disk is being replaced"},
    audit="worker.paused",
)
def pause_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Pause a worker: what runs goes on, nothing new starts there."""
    node = pausing.pause_node(call.tx, call.resources, worker_id, by=_author(call), reason=call.body["reason"])
    return _view(node, standing(call.tx))


@fleet.get("/workers/pauses", may="workers:read", reply=ListOf("pauses", schemas.PauseView))
def list_pauses(call: Call) -> Page[dict[str, Any]]:
    """List what is paused: the fleet, groups, workers."""
    found = queue.every_pause(call.tx)
    shown = found[call.page.offset : call.page.offset + call.page.limit]
    return Page([_pause_view(each) for each in shown], len(found))


@fleet.post(
    "/workers/pause", may="workers:write", body=schemas.PauseBody, reply=schemas.PausedView, audit="fleet.paused"
)
def pause_fleet(call: Call) -> dict[str, Any]:
    """Pause the whole fleet: what runs goes on, nothing new starts anywhere."""
    return _pause(call, Scope.fleet, pausing.EVERY)


@fleet.post("/workers/resume", may="workers:write", reply=schemas.PausedView, audit="fleet.resumed")
def resume_fleet(call: Call) -> dict[str, Any]:
    """Resume the fleet.

    Groups and workers that were paused on their own stay so.
    """
    return _resume(call, Scope.fleet, pausing.EVERY)


@fleet.post(
    "/workers/groups/<path:group>/pause",
    may="workers:write",
    body=schemas.PauseBody,
    reply=schemas.PausedView,
    audit="group.paused",
)
def pause_group(call: Call, group: str) -> dict[str, Any]:
    """Pause a group of workers, those that join it later included."""
    return _pause(call, Scope.group, group)


@fleet.post("/workers/groups/<path:group>/resume", may="workers:write", reply=schemas.PausedView, audit="group.resumed")
def resume_group(call: Call, group: str) -> dict[str, Any]:
    """Resume a group of workers."""
    return _resume(call, Scope.group, group)


@fleet.patch(
    "/admin/workers/<id:worker_id>/approve",
    may="workers:approve",
    body=schemas.ApproveBody,
    reply=schemas.NodeView,
    errors=(404,),
    example={"is_approved": True, "group": "default"},
    audit=("worker.approved", "worker.rejected"),
)
def approve_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Approve a worker, or cut it off at once."""
    before = service.get(call.tx, worker_id)
    call.require_version(before.version)
    node = service.approve(call.tx, call.resources, worker_id, by=call.actor.id, **call.body)
    action = "worker.approved" if call.body["is_approved"] else "worker.rejected"
    call.audit(action, resource_id=worker_id, before=_told_of(before), after=_told_of(node))
    return _view(node, standing(call.tx))


@fleet.post(
    "/admin/workers/<id:worker_id>/fence",
    may="workers:approve",
    reply=schemas.NodeView,
    errors=(404,),
    audit="worker.fenced",
)
def fence_worker(call: Call, worker_id: str) -> dict[str, Any]:
    """Say that a worker's machine is off.

    It is cut off at once, and exclusive work that waited until its old computer there is gone may run elsewhere. Only
    for machines that are really off: what still runs on one would then run twice.
    """
    node = service.fence(call.tx, call.resources, worker_id, by=call.actor.id, by_name=call.actor.name)
    return _view(node, standing(call.tx))


@fleet.delete("/admin/workers/<id:worker_id>", may="workers:approve", status=204, errors=(404,), audit="worker.removed")
def remove_worker(call: Call, worker_id: str) -> None:
    """Remove a worker for good: its credential is void at once, its work goes elsewhere."""
    before = service.get(call.tx, worker_id)
    call.require_version(before.version)
    service.remove(call.tx, call.resources, worker_id)
    call.audit("worker.removed", resource_id=worker_id, before=_told_of(before))


@fleet.post(
    "/admin/enrolment-tokens",
    may="workers:enrol",
    body=schemas.TokenBody,
    reply=schemas.TokenView,
    status=201,
    audit="enrolment_token.created",
)
def create_enrolment_token(call: Call) -> Reply:
    """Make a one-time token with which a worker can enrol; shown this once."""
    token, row = service.create_token(
        call.tx,
        call.resources.settings,
        by=call.actor.id,
        note=call.body["note"],
        group=call.body["group"],
        seconds=call.body["expires_in_seconds"],
    )
    return Reply(_token_view(row) | {"token": token}, secret_fields=("token",))


@fleet.get("/admin/enrolment-tokens", may="workers:enrol", reply=ListOf("enrolment_tokens", schemas.TokenView))
def list_enrolment_tokens(call: Call) -> Page[dict[str, Any]]:
    """List enrolment tokens, without the tokens themselves."""
    page = service.list_tokens(call.tx, call.page)
    return Page([_token_view(row) for row in page.items], page.total)


@fleet.delete(
    "/admin/enrolment-tokens/<id:token_id>",
    may="workers:enrol",
    status=204,
    errors=(404,),
    audit="enrolment_token.revoked",
)
def revoke_enrolment_token(call: Call, token_id: str) -> None:
    """Revoke an enrolment token that was not used."""
    service.revoke_token(call.tx, token_id)


def _told_of(node: Node) -> dict[str, Any]:
    """What the audit trail says of a worker before and after an act."""
    return {
        "name": node.name,
        "hostname": node.hostname,
        "ip_address": node.ip_address,
        "status": node.status,
        "is_approved": bool(node.is_approved),
        "group": node.group_name,
        "labels": node.labels,
        "slots": node.slots,
    }


def _author(call: Call) -> Author:
    return Author(call.actor.id, call.actor.name)


def _pause(call: Call, scope: Scope, subject: str) -> dict[str, Any]:
    made = pausing.pause(call.tx, call.resources, scope, subject, by=_author(call), reason=call.body["reason"])
    return {**_pause_view(made), "is_paused": True, "workers": pausing.concerned(call.tx, scope, subject)}


def _resume(call: Call, scope: Scope, subject: str) -> dict[str, Any]:
    pausing.resume(call.tx, call.resources, scope, subject)
    nobody = dict.fromkeys(("reason", "paused_by", "paused_by_name", "paused_at"))
    named = {"scope": str(scope), "subject": subject or None}
    return {**named, **nobody, "is_paused": False, "workers": pausing.concerned(call.tx, scope, subject)}


def _pause_view(each: Pause) -> dict[str, Any]:
    return {
        "scope": str(each.scope),
        "subject": each.subject or None,
        "reason": each.reason,
        "paused_by": each.paused_by,
        "paused_by_name": each.paused_by_name,
        "paused_at": rfc3339(each.paused_at),
    }


def _page(call: Call) -> Page[dict[str, Any]]:
    page = service.list_nodes(call.tx, call.page, status=call.query.get("status"), group=call.query.get("group"))
    now = standing(call.tx)
    return Page([_view(node, now) for node in page.items], page.total)


def _view(node: Node, now: Standing) -> dict[str, Any]:
    vitals = node.vitals or {}
    pauses = now.pauses_of(node)
    seen = rfc3339(node.last_seen_at) if node.last_seen_at else None
    return {
        "id": node.id,
        "name": node.name,
        "hostname": node.hostname,
        "ip_address": node.ip_address,
        "status": node.status,
        "status_reason": node.status_reason,
        "is_approved": bool(node.is_approved),
        "is_draining": bool(node.is_draining),
        "drain_by": rfc3339(node.drain_by) if node.drain_by else None,
        "is_paused": bool(pauses),
        "pauses": [_pause_view(each) for each in pauses],
        "group": node.group_name,
        "labels": node.labels,
        "slots": node.slots,
        "slots_used": now.slots_used.get(node.id, 0),
        "light_slots": node.light_slots,
        "max_agents": node.max_agents,
        "cpu_cores": node.cpu_cores,
        "memory_total_mb": node.memory_total_mb,
        "cpu_usage_percent": vitals.get("cpu_percent"),
        "memory_usage_percent": vitals.get("memory_percent"),
        "disk_usage_percent": vitals.get("disk_percent"),
        "os_info": node.os_info,
        "software": node.software,
        "computers": node.computers,
        "vitals": node.vitals,
        "docker_ok": node.docker_ok,
        "queue_ok": node.queue_ok,
        "broker_login": node.broker_login if node.is_approved else None,
        "last_seen_at": seen,
        "last_heartbeat": seen,
        "approved_at": rfc3339(node.approved_at) if node.approved_at else None,
        "created_at": rfc3339(node.created_at),
        "updated_at": rfc3339(node.updated_at),
        "version": node.version,
    }


def _token_view(row: Any) -> dict[str, Any]:
    return _timed(
        {
            "id": row.id,
            "note": row.note,
            "group": row.group_name,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "used_at": row.used_at,
            "used_by": row.used_by,
        }
    )


def _timed(item: dict[str, Any]) -> dict[str, Any]:
    """The item with its moments as RFC 3339 text."""
    times = {key: rfc3339(value) for key, value in item.items() if value is not None and key in _TIMES}
    return item | times


_TIMES = frozenset({"at", "created_at", "started_at", "expires_at", "used_at"})
