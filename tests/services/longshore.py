"""A whole Longshore, started the way a user starts it: `coordinator up`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.services import processes
from tests.services.ports import free_port
from tests.services.processes import Child

PASSWORD = "the admin of these tests"
BIN = Path(sys.executable).parent
ENDED = ("completed", "failed", "cancelled")


@dataclass
class Longshore:
    """One that runs: where it listens, and a client that is logged in as the admin."""

    url: str
    flower: str
    home: Path
    child: Child
    env: Mapping[str, str]
    http: httpx.Client
    nodes: list[Child] = field(default_factory=list)

    @property
    def login(self) -> tuple[str, str]:
        return "admin", PASSWORD

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.http.post(path, json=body or {}).raise_for_status().json()

    def agent(self, **facts: Any) -> str:
        made: str = self.post("/api/v1/agents", facts)["id"]
        return made

    def task(self, agent_id: str, script: str, **facts: Any) -> str:
        body = {"title": "a task", "instructions": script, "agent_id": agent_id} | facts
        made: str = self.post("/api/v1/tasks", body)["id"]
        return made

    def ended(self, task_id: str, *, seconds: float = 60) -> dict[str, Any]:
        """The task once it is over."""
        view: dict[str, Any] = processes.wait_until(
            partial(self._if_ended, task_id), what=f"the end of task {task_id}", seconds=seconds
        )
        return view

    def _if_ended(self, task_id: str) -> dict[str, Any] | None:
        view: dict[str, Any] = self.get(f"/api/v1/tasks/{task_id}")
        return view if view["status"] in ENDED else None

    def start_node(self, name: str, *options: str, approve: bool = True) -> str:
        """Enrol another node on this machine; its id."""
        token = self.post("/api/v1/admin/enrolment-tokens")["token"]
        argv = [str(BIN / "worker"), "start", "--coordinator", self.url, "--name", name, *options]
        home = self.home / "more" / name
        child = processes.start(
            [*argv, "--home", str(home)],
            env={**self.env, "LONGSHORE_ENROL_TOKEN": token},
            log=self.home / f"{name}.log",
        )
        self.nodes.append(child)
        node_id: str = child.wait_until(partial(self._node_named, name), what="its enrolment")
        if approve:
            url = f"/api/v1/admin/workers/{node_id}/approve"
            self.http.patch(url, json={"is_approved": True}).raise_for_status()
            child.wait_until(lambda: self.get(f"/api/v1/workers/{node_id}")["queue_ok"], what="its ear on its queue")
        return node_id

    def _node_named(self, name: str) -> str | None:
        found = self.get("/api/v1/workers")["workers"]
        return next((node["id"] for node in found if node["name"] == name), None)

    def stop(self) -> int:
        """Stop it all; the exit code of `coordinator up`."""
        self.http.close()
        for node in self.nodes:
            node.stop(seconds=20)
        return self.child.stop(seconds=40)


@contextmanager
def up(*options: str, **variables: str) -> Iterator[Longshore]:
    """`coordinator up` with these options on free ports, in a home of its own, until the block ends."""
    home = processes.scratch_directory("up")
    port, flower_port = free_port(), free_port()
    argv = [str(BIN / "coordinator"), "up", "--home", str(home), "--json", "--bind", f"127.0.0.1:{port}"]
    flower = [] if "--no-flower" in options else ["--flower-port", str(flower_port)]
    env = {**os.environ, "LONGSHORE_ADMIN_PASSWORD": PASSWORD, "LONGSHORE_PASSWORD_COST": "low", **variables}
    child = processes.start([*argv, *flower, *options], env=env, log=home / "up.log")
    child.wait_until(lambda: _said_ready(child.output()), what="the line that says ready", seconds=90)
    url = f"http://127.0.0.1:{port}"
    http = httpx.Client(base_url=url, timeout=60)
    login = http.post("/api/v1/auth/login", json={"email": "admin@localhost", "password": PASSWORD})
    http.headers["Authorization"] = f"Bearer {login.raise_for_status().json()['access_token']}"
    running = Longshore(url, f"http://127.0.0.1:{flower_port}", home, child, env, http)
    try:
        yield running
    finally:
        running.stop()


def _said_ready(output: str) -> bool:
    return any("url" in json.dumps(json.loads(line)) for line in output.splitlines() if line.startswith("{"))
