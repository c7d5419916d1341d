"""One start of everything, step by step: broker, database, the coordinator's processes, nodes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from coordinator.config import Settings
from coordinator.domains.fleet.states import NodeStatus
from coordinator.domains.identity.service import Principal
from coordinator.resources import Resources, make_resources
from coordinator.starting import ensure_admin
from coordinator.store import migrate
from coordinator.up import broker, ports, probes, programs
from coordinator.up.broker import Embedded
from coordinator.up.child import Program
from coordinator.up.nodes import LocalNode
from coordinator.up.plan import DISPATCH, FLOWER, REDIS, SERVE, Plan
from coordinator.up.supervisor import Say, StartFailed, Supervisor
from coordinator.up.telling import NodeTold, Told
from shared.clock import SystemClock
from shared.queue.broker import parse_broker

REDIS_SECONDS = 20.0
READY_SECONDS = 60.0
ENROL_SECONDS = 60.0
ONLINE_SECONDS = 15.0


class Start:
    """The steps, and what they made: it must stay open for as long as the supervisor supervises."""

    def __init__(self, settings: Settings, plan: Plan, supervisor: Supervisor, say: Say) -> None:
        self._settings = settings
        self._plan = plan
        self._supervisor = supervisor
        self._say = say
        self._embedded: Embedded | None = None
        self._resources: Resources | None = None

    def bring_up(self, *, require_approval: bool) -> Told:
        """Start everything and wait until it is ready."""
        began, since = time.monotonic(), SystemClock().now()
        self._require_ports()
        resources = self._bring_redis()
        migrate.upgrade(resources.database)
        admin = ensure_admin(resources.database, self._settings)
        self._supervisor.check_stop()
        self._start_core()
        nodes = self._start_nodes(resources)
        self._wait_for_nodes(nodes.values(), None if require_approval else admin, since=since)
        self._wait_for_core()
        return replace(self._told(nodes), seconds=round(time.monotonic() - began, 2))

    def close(self) -> None:
        if self._resources is not None:
            self._resources.redis.close()
            self._resources.database.dispose()

    # -- the steps

    def _require_ports(self) -> None:
        for address in self._plan.binds:
            ports.require_free(address, "--bind HOST:PORT")
        if self._plan.flower:
            ports.require_free(self._plan.flower, "--flower-port PORT (or --no-flower)")

    def _bring_redis(self) -> Resources:
        if self._settings.redis_url:
            return self._with_given_redis()
        self._embedded = broker.prepare(self._settings.home)
        self._settings = self._settings.model_copy(update={"redis_url": self._embedded.url})
        self._resources = make_resources(self._settings)
        try:
            self._start_redis(self._embedded)
        except StartFailed as failure:
            self._start_redis_afresh(self._embedded, failure)
        return self._resources

    def _with_given_redis(self) -> Resources:
        self._resources = make_resources(self._settings)
        if not probes.redis_answers(self._resources.redis):
            shown = parse_broker(self._settings.redis_url).shown
            raise StartFailed(f"LONGSHORE_REDIS_URL: the Redis at {shown} does not answer, or not to this password")
        return self._resources

    def _start_redis(self, embedded: Embedded) -> None:
        resources = self._resources
        assert resources is not None
        self._supervisor.start(programs.redis(self._settings, embedded))
        self._supervisor.wait_until(
            lambda: probes.redis_answers(resources.redis), what="an answer of the embedded Redis", seconds=REDIS_SECONDS
        )

    def _start_redis_afresh(self, embedded: Embedded, failure: StartFailed) -> None:
        """Once more without what an earlier server kept: another version may not be able to read it."""
        self._supervisor.stop_one(REDIS)
        aside = broker.set_aside(embedded)
        if aside is None:
            raise failure
        self._say(f"The embedded Redis could not start on what it kept: that lies in {aside} now, and it starts anew")
        self._start_redis(embedded)

    def _start_core(self) -> None:
        core: list[Program] = [programs.serve(self._settings, self._plan), programs.dispatch(self._settings)]
        if self._plan.flower:
            core.append(programs.flower(self._settings, self._plan.flower))
        for program in core:
            self._supervisor.start(program)

    def _start_nodes(self, resources: Resources) -> dict[str, LocalNode]:
        nodes = {
            program: LocalNode(
                name, self._settings.home / "nodes" / program, self._plan.url, self._plan.wish, resources
            )
            for program, name in zip(self._plan.node_programs, self._plan.node_names, strict=True)
        }
        # Who is known already knocks until it is let in; who has to enrol needs an open door.
        known = [program for program, node in nodes.items() if node.is_known()]
        self._start_some(known, nodes)
        if len(known) < len(nodes):
            self._wait_for_door()
        self._start_some([program for program in nodes if program not in known], nodes)
        return nodes

    def _wait_for_door(self) -> None:
        health = f"{self._plan.url}/health"
        self._supervisor.wait_until(
            lambda: probes.answers(health), what=f"an answer of {health}", seconds=READY_SECONDS
        )

    def _start_some(self, names: list[str], nodes: dict[str, LocalNode]) -> None:
        for name in names:
            self._supervisor.start(programs.node(self._settings, name, nodes[name]))

    def _wait_for_nodes(self, nodes: Collection[LocalNode], admin: Principal | None, *, since: datetime) -> None:
        for node in nodes:
            self._supervisor.wait_until(
                partial(_id_of, node), what=f"the enrolment of {node.name}", seconds=ENROL_SECONDS
            )
            if admin is not None:
                node.approve(admin.id)
        # A node that takes longer to be heard of is no reason not to be ready: it is shown as it is. What counts is its
        # time before an open door; how long the door takes is not its fault, and it would be shown as it was.
        if nodes:
            self._wait_for_door()
        deadline = time.monotonic() + ONLINE_SECONDS
        self._supervisor.wait_until(
            lambda: all(_has_settled(node, since) for node in nodes) or time.monotonic() > deadline,
            what="heartbeats of the nodes",
            seconds=ONLINE_SECONDS * 2,
        )

    def _wait_for_core(self) -> None:
        url = self._plan.url
        self._supervisor.wait_until(
            lambda: probes.missing_parts(url) == [], what=f"{url}/health/ready saying ready", seconds=READY_SECONDS
        )
        if self._plan.flower:
            health = f"http://{self._plan.flower}/healthcheck"
            self._supervisor.wait_until(
                lambda: probes.answers(health), what="an answer of Flower", seconds=READY_SECONDS
            )

    # -- what there is now

    def _told(self, nodes: Mapping[str, LocalNode]) -> Told:
        settings, plan = self._settings, self._plan
        kept_password = settings.home / "admin_password"
        names = [SERVE, DISPATCH, FLOWER, REDIS, *plan.node_programs]
        return Told(
            url=plan.url,
            binds=plan.binds,
            swagger_ui=f"{plan.url}/swagger-ui/",
            flower=f"http://{plan.flower}/" if plan.flower else None,
            home=settings.home,
            database=self._database_told(),
            redis=self._redis_told(),
            storage=settings.storage_url,
            admin=settings.admin_name,
            admin_password_file=kept_password if _holds(kept_password, settings) else None,
            logs=settings.home / "logs",
            nodes=tuple(self._node_told(program, node) for program, node in nodes.items()),
            pids={name: pid for name in names if (pid := self._supervisor.pid(name))},
        )

    def _database_told(self) -> str:
        assert self._resources is not None
        return self._resources.database.url.render_as_string(hide_password=True)

    def _redis_told(self) -> str:
        if self._embedded is None:
            return parse_broker(self._settings.redis_url).shown
        return f"127.0.0.1:{self._embedded.port} (embedded, {self._embedded.program})"

    def _node_told(self, program_name: str, node: LocalNode) -> NodeTold:
        found = node.seen()
        assert found is not None
        computers = found.computers or {}
        return NodeTold(
            id=found.id,
            name=found.name,
            status=found.status,
            is_approved=bool(found.is_approved),
            driver=computers.get("driver", "unknown"),
            isolation=computers.get("isolation", "unknown"),
            reason=computers.get("reason", ""),
            slots=found.slots,
            pid=self._supervisor.pid(program_name),
        )


def _id_of(node: LocalNode) -> str | None:
    return node.id


def _has_settled(node: LocalNode, since: datetime) -> bool:
    """Whether the coordinator has heard of it in this run, and since its approval if it has one."""
    found = node.seen()
    if found is None or found.last_seen_at is None or found.last_seen_at < since:
        return False
    return not found.is_approved or found.status in (NodeStatus.online, NodeStatus.maintenance, NodeStatus.error)


def _holds(path: Path, settings: Settings) -> bool:
    try:
        return path.read_text().strip() == settings.admin_password.get_secret_value()
    except OSError:
        return False
