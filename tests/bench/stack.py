"""A whole Longshore of real processes: PostgreSQL, Redis, web tier, dispatcher and nodes, on free loopback ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from coordinator.store.database import normalise
from tests.services import processes
from tests.services.ports import free_port
from tests.services.postgres import PostgresCluster
from tests.services.processes import Child
from tests.services.redis import RedisServer

BIN = Path(sys.executable).parent
PASSWORD = "the admin of the bench"


@dataclass
class Stack:
    """The running parts, and a client that is logged in as the admin."""

    url: str
    database_url: str
    redis: RedisServer
    http: httpx.Client
    env: Mapping[str, str]
    logs: Path
    children: list[Child] = field(default_factory=list)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self.http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    @property
    def _dsn(self) -> str:
        url = normalise(self.database_url).set(drivername="postgresql")
        return url.render_as_string(hide_password=False)

    def agent(self, **facts: Any) -> str:
        made: str = self.post("/api/v1/agents", facts)["id"]
        return made

    def start_node(self, home: Path, *options: str, name: str = "bench") -> str:
        """Start, approve and await a node; answers its id."""
        token = self.post("/api/v1/admin/enrolment-tokens", {})["token"]
        argv = [str(BIN / "worker"), "start", "--coordinator", self.url, "--name", name, "--home", str(home), *options]
        env = {**self.env, "LONGSHORE_ENROL_TOKEN": token}
        child = processes.start(argv, env=env, log=self.logs / f"{name}.log")
        self.children.append(child)
        node_id = child.wait_until(lambda: self._pending(name), what="the node's enrolment") or ""
        self.http.patch(f"/api/v1/admin/workers/{node_id}/approve", json={"is_approved": True}).raise_for_status()
        child.wait_until(lambda: self.get(f"/api/v1/workers/{node_id}")["queue_ok"], what="the node's ear on its queue")
        return node_id

    def _pending(self, name: str) -> str | None:
        found = self.get("/api/v1/workers?status=pending")["workers"]
        return next((node["id"] for node in found if node["name"] == name), None)


@contextmanager
def running(**settings: str) -> Iterator[Stack]:
    """A stack without nodes; everything ends with the block."""
    directory = processes.scratch_directory("bench")
    redis, postgres = RedisServer(), PostgresCluster(durable=True)
    url = f"http://127.0.0.1:{(port := free_port())}"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LONGSHORE_")},
        "LONGSHORE_HOME": str(directory / "home"),
        "LONGSHORE_DATABASE_URL": (database_url := postgres.create_database("bench")),
        "LONGSHORE_REDIS_URL": redis.url(),
        "LONGSHORE_ADMIN_PASSWORD": PASSWORD,
        "LONGSHORE_BIND": f"127.0.0.1:{port}",
        "LONGSHORE_LOG_FORMAT": "json",
        **settings,
    }
    subprocess.run([BIN / "coordinator", "db", "upgrade"], env=env, check=True, stdout=subprocess.DEVNULL)
    http = httpx.Client(base_url=url, timeout=60)
    stack = Stack(url, database_url, redis, http, env, directory)
    try:
        for command in ("serve", "dispatch"):
            stack.children.append(
                processes.start([str(BIN / "coordinator"), command], env=env, log=directory / f"{command}.log")
            )
        stack.children[0].wait_until(lambda: _is_ready(http), what="readiness")
        login = http.post("/api/v1/auth/login", json={"email": "admin@localhost", "password": PASSWORD})
        http.headers["Authorization"] = f"Bearer {login.raise_for_status().json()['access_token']}"
        yield stack
    finally:
        http.close()
        for child in reversed(stack.children):
            child.stop(seconds=15)
        postgres.stop()
        redis.stop()


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """CPU seconds used so far by each part and all it started."""
    used: dict[str, float] = {}
    for child in stack.children:
        process = psutil.Process(child.pid)
        family = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
        used[child.log.stem] = sum(one.user + one.system for one in family)
    return used


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True)
