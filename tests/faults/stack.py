"""Longshore as separate real processes, each of which can be killed, frozen, cut off and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.faults.disk import SmallDisk
from tests.faults.docker import GATEWAY, LastingDaemon
from tests.faults.failing import CONTROL, FACTOR, SKEW, STRUCK, WITHOUT_VARIABLE
from tests.faults.network import Network
from tests.faults.reader import Reader, reader_of
from tests.faults.tempo import Tempo, slowness
from tests.services import processes
from tests.services.ports import free_port
from tests.services.postgres import PostgresCluster
from tests.services.processes import Child, wait_until
from tests.services.redis import RedisServer
from tests.services.sandboxes import inhabitants
from worker.cli import OWNER
from worker.computer.process.driver import ProcessDriver
from worker.home import Home

ROOT = Path(__file__).parents[2]
PASSWORD = "the admin of the faults"
LIVELY = Tempo()
STORE_BYTES, HOME_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
_READY_SECONDS = 60.0
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Plan:
    """What stack a fault needs. Faults with the same plan can share one."""

    database: str = "sqlite"
    nodes: int = 3
    slots: int = 4
    dispatchers: int = 1
    is_networked: bool = False
    """Each node in a network namespace of its own, so that it can be cut off."""
    driver: str = "process"
    live_restore: bool = False
    """Whether containers outlive dockerd."""
    has_shifted_clocks: bool = False
    has_small_disks: bool = False
    """The database, and each node's home, on a file system of its own that can be filled up."""
    without: tuple[str, ...] = ()
    """Rules that are turned off: what the invariants say then shows that they see."""
    settings: tuple[tuple[str, str], ...] = ()
    heal_seconds: float = 120.0
    """How long after healing every accepted job must have ended, in real seconds."""
    tempo: Tempo = LIVELY


class Part:
    """One process of the stack and how it is started, again and again."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, log: Path) -> None:
        self.name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log
        self.kills = 0
        self.child: Child | None = None

    def start(self) -> Child:
        """Start it; when it runs already, that is all."""
        if self.child is None or not self.child.is_running:
            self.child = processes.start(self._argv, env=self._env, log=self._log, cwd=ROOT)
        return self.child

    @property
    def is_running(self) -> bool:
        return self.child is not None and self.child.is_running

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def kill(self) -> None:
        """SIGKILL to the process alone: what it started has to be dealt with by whoever comes after it."""
        assert self.child is not None
        self.kills += 1
        self.child.process.kill()
        self.child.process.wait()

    def kill_all(self) -> None:
        """A power cut: the process and all it started."""
        assert self.child is not None
        self.kills += 1
        self.child.kill()

    def freeze(self) -> None:
        assert self.child is not None
        self.child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.child is not None
        self.child.send(signal.SIGCONT)

    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Node(Part):
    """A node's daemon."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, log: Path, index: int, home: Path):
        super().__init__(name, argv, env, log=log)
        self.index = index
        self.home = home
        self.id = ""

    def clear_away(self) -> None:
        """What its next daemon would do: nothing of a stack that is over stays on the machine."""
        place = Home(self.home / "node")
        if place.path.is_dir():
            ProcessDriver(home=place.path, owner=OWNER, node=place.installation).reap(())


@dataclass
class Stack:
    """All parts, the admin's client, and the auditor's view of the database."""

    plan: Plan
    url: str
    host: str
    """The address under which nodes reach the coordinator, Redis and the ledger."""
    env: Mapping[str, str]
    directory: Path
    redis: RedisServer
    database_url: str
    reader: Reader
    http: httpx.Client
    serve: Part
    dispatchers: list[Part]
    postgres: PostgresCluster | None = None
    network: Network | None = None
    docker: LastingDaemon | None = None
    disks: dict[str, SmallDisk] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    @property
    def tempo(self) -> Tempo:
        return self.plan.tempo

    @property
    def control(self) -> Path:
        """Where places are armed."""
        return self.directory / "control"

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.http.post(path, json=body or {}).raise_for_status().json()

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def agent(self, **facts: Any) -> str:
        made: str = self.post("/api/v1/agents", facts)["id"]
        return made

    def log_in(self) -> None:
        body = {"email": "admin@localhost", "password": PASSWORD}
        told = self.post("/api/v1/auth/login", body)
        self.http.headers["Authorization"] = f"Bearer {told['access_token']}"

    def is_ready(self) -> bool:
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def is_up(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self) -> None:
        """Everything is up: the coordinator, and every node hears its queue."""
        self.serve.start().wait_until(self.is_ready, what="readiness", seconds=_READY_SECONDS * slowness())
        wait_until(self.hears_all, what="nodes that all hear their queues", seconds=_READY_SECONDS * slowness())

    def hears_all(self) -> bool:
        with suppress(httpx.HTTPError):
            found = {node["id"]: node for node in self.get("/api/v1/workers")["workers"]}
            return all(found[node.id]["status"] == "online" and found[node.id]["queue_ok"] for node in self.nodes)
        return False

    def start_nodes(self, count: int) -> None:
        """Start nodes side by side, approve them, and wait until they hear."""
        fresh = [self._make_node(len(self.nodes) + 1 + number) for number in range(count)]
        for node in fresh:
            node.start()
        for node in fresh:
            assert node.child is not None
            node.id = (
                node.child.wait_until(
                    partial(self._enrolled, node.name), what="enrolment", seconds=_READY_SECONDS * slowness()
                )
                or ""
            )
            self._approve(node.id)
        self.nodes += fresh
        self.wait_ready()

    def heal(self) -> None:
        """Start whatever does not run."""
        for part in (self.serve, *self.dispatchers, *self.nodes):
            part.start()
        for path in self.control.iterdir():
            if not path.name.startswith((SKEW, STRUCK)):
                path.unlink(missing_ok=True)

    def arm(self, point: str) -> None:
        """Whoever comes by this place next dies there."""
        (self.control / STRUCK).unlink(missing_ok=True)
        (self.control / point).touch()

    def has_struck(self) -> bool:
        return (self.control / STRUCK).exists()

    def stop(self) -> None:
        self.http.close()
        # What is left of a fault is not what a clean stop is about: that has tests of its own.
        for part in (*self.nodes, *self.dispatchers, self.serve):
            if part.child is not None:
                part.kill_all()
        for node in self.nodes:
            node.clear_away()
        if self.network is not None:
            self.network.close()
        if self.postgres is not None:
            self.postgres.stop()
        if self.docker is not None:
            self.docker.stop()
        self.redis.stop()
        for disk in self.disks.values():
            disk.close()

    @property
    def ledger_host(self) -> str:
        """The address under which jobs reach the ledger."""
        return self.host if self.docker is None else GATEWAY

    def computers(self) -> list[psutil.Process]:
        """Processes of sandboxes that are on the machine, whoever still knows of them."""
        ours = {row["id"] for row in self.reader.rows("SELECT id FROM attempts")}
        return [process for computer, process in inhabitants() if computer in ours]

    def _approve(self, node_id: str) -> None:
        self.http.patch(f"/api/v1/admin/workers/{node_id}/approve", json={"is_approved": True}).raise_for_status()

    def _enrolled(self, name: str) -> str | None:
        found = self.get("/api/v1/workers?status=pending")["workers"]
        return next((node["id"] for node in found if node["name"] == name), None)

    def _make_node(self, index: int) -> Node:
        name = f"node-{index}"
        token = self.post("/api/v1/admin/enrolment-tokens")["token"]
        home = self.directory / name
        home.mkdir()
        if self.plan.has_small_disks:
            self.disks[name] = SmallDisk(home, HOME_BYTES)
        words = ["--coordinator", f"http://{self.host}:{self.url.rpartition(':')[2]}", "--name", name]
        words += ["--home", str(home), "--slots", str(self.plan.slots), "--driver", self.plan.driver]
        prefix = self.network.join(name) if self.network is not None else []
        env = {**self.env, "LONGSHORE_ENROL_TOKEN": token}
        argv = [*prefix, *_program("worker"), "start", *words]
        return Node(name, argv, env, log=self.directory / f"{name}.log", index=index, home=home)


def _program(package: str) -> list[str]:
    return [sys.executable, "-m", "tests.faults.failing", package]


@contextmanager
def running(plan: Plan, **variables: str) -> Iterator[Stack]:
    """A stack by this plan, until the block ends."""
    directory = processes.scratch_directory("faults", below=_MEMORY if _MEMORY.is_dir() else None)
    (directory / "control").mkdir()
    if plan.has_shifted_clocks:
        for package in ("coordinator", "worker"):
            (directory / "control" / f"{SKEW}{package}").write_text("0")
    redis = RedisServer()
    postgres = PostgresCluster(durable=True) if plan.database == "postgresql" else None
    network = Network() if plan.is_networked else None
    docker = LastingDaemon(live_restore=plan.live_restore) if plan.driver == "docker" else None
    if docker is not None:
        variables = {**variables, "LONGSHORE_DOCKER_SOCKET": docker.socket_url}
    host = "127.0.0.1" if network is None else network.host
    stack = _make(plan, directory, redis, postgres, network, host, variables)
    stack.docker = docker
    try:
        _begin(stack)
        yield stack
    finally:
        stack.stop()


def _make(
    plan: Plan,
    directory: Path,
    redis: RedisServer,
    postgres: PostgresCluster | None,
    network: Network | None,
    host: str,
    variables: Mapping[str, str],
) -> Stack:
    port = free_port()
    database = postgres.create_database() if postgres else f"sqlite:///{directory / 'store' / 'longshore.db'}"
    (directory / "store").mkdir()
    disks = {"store": SmallDisk(directory / "store", STORE_BYTES)} if plan.has_small_disks else {}
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LONGSHORE_")},
        **plan.tempo.variables(),
        "LONGSHORE_HOME": str(directory / "home"),
        "LONGSHORE_DATABASE_URL": database,
        "LONGSHORE_REDIS_URL": redis.url(),
        "LONGSHORE_NODE_REDIS_URL": redis.url().replace("127.0.0.1", host),
        "LONGSHORE_ADMIN_PASSWORD": PASSWORD,
        "LONGSHORE_PASSWORD_COST": "low",
        "LONGSHORE_ACCESS_TOKEN_SECONDS": "86400",
        "LONGSHORE_BIND": ",".join(f"{one}:{port}" for one in {"127.0.0.1": 1, host: 1}),
        "LONGSHORE_WEB_THREADS": "16",
        "LONGSHORE_LOG_FORMAT": "json",
        "LONGSHORE_COMPUTER_IMAGE": "longshore-computer",
        FACTOR: str(plan.tempo.factor),
        CONTROL: str(directory / "control"),
        WITHOUT_VARIABLE: ",".join(plan.without),
        **dict(plan.settings),
        **variables,
    }
    if network is not None:
        network.let_in(redis)
    make: Callable[[str, str], Part] = lambda name, word: Part(  # noqa: E731
        name, [*_program("coordinator"), word], env, log=directory / f"{name}.log"
    )
    url = f"http://127.0.0.1:{port}"
    return Stack(
        plan=plan,
        url=url,
        host=host,
        env=env,
        directory=directory,
        redis=redis,
        database_url=database,
        reader=reader_of(database),
        http=httpx.Client(base_url=url, timeout=60),
        serve=make("serve", "serve"),
        dispatchers=[make(f"dispatch-{number + 1}", "dispatch") for number in range(plan.dispatchers)],
        postgres=postgres,
        network=network,
        disks=disks,
    )


def _begin(stack: Stack) -> None:
    upgrade = [sys.executable, "-m", "coordinator", "db", "upgrade"]
    subprocess.run(upgrade, env=dict(stack.env), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for part in (stack.serve, *stack.dispatchers):
        part.start()
    assert stack.serve.child is not None
    stack.serve.child.wait_until(stack.is_up, what="an answer", seconds=_READY_SECONDS * slowness())
    stack.log_in()
    stack.start_nodes(stack.plan.nodes)
