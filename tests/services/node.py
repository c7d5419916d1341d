"""A node for tests: its home, and the real daemon that runs from it against a coordinator of the test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import redis as redis_library

from shared.queue.tickets import nudge_message, publish, run_message
from tests.fakes.coordinator import ENROL_TOKEN, FakeAttempt, FakeCoordinator
from tests.services import processes

START = (sys.executable, "-m", "worker", "start")
RUNNING_MARK = "sleep 61.5"


class Node:
    """A node's home, and the daemon that runs from it."""

    def __init__(
        self, home: Path, coordinator: FakeCoordinator, redis: redis_library.Redis, *, docker_url: str | None = None
    ) -> None:
        self.home = home
        self.coordinator = coordinator
        self._redis = redis
        self._driver = "docker" if docker_url else "process"
        self._environment = (
            {"LONGSHORE_DOCKER_SOCKET": docker_url} if docker_url else {"LONGSHORE_ALLOW_UNSANDBOXED": "1"}
        )
        self.children: list[processes.Child] = []
        self.child: processes.Child

    def start(self, *options: str, **environment: str) -> processes.Child:
        argv = [*START, "--coordinator", self.coordinator.url, "--enrol-token", ENROL_TOKEN]
        argv += ["--home", str(self.home), "--driver", self._driver, "--name", "tester", *options]
        env = {"PATH": "/usr/bin:/bin", **self._environment, **environment}
        log = self.home.parent / f"worker-{len(self.children) + 1}.log"
        self.child = processes.start(argv, log=log, env=env)
        self.children.append(self.child)
        return self.child

    def kill(self) -> None:
        """End the daemon alone, as a crash does."""
        self.child.process.kill()
        self.child.process.wait()

    def kill_all(self) -> None:
        """End every daemon and all that they started."""
        for child in self.children:
            child.kill()

    def start_and_listen(self, *options: str, **environment: str) -> processes.Child:
        beats = len(self.coordinator.beats)
        child = self.start(*options, **environment)
        self.wait_listening(since=beats)
        return child

    def wait_listening(self, *, since: int = 0) -> None:
        beats = self.coordinator.beats
        self.child.wait_until(
            lambda: any(beat["queue_ok"] for beat in beats[since:]), what="consumer that listens", seconds=60
        )

    def send(self, *attempts: FakeAttempt) -> None:
        self.push(*(run_message(attempt.ticket) for attempt in attempts))

    def run(self, runtime: str, **spec: Any) -> FakeAttempt:
        """One job from its ticket to its report."""
        attempt = self.coordinator.add(runtime, **spec)
        self.send(attempt)
        self.coordinator.wait_ended(attempt)
        return attempt

    def run_endless(self, script: str = RUNNING_MARK, **spec: Any) -> FakeAttempt:
        """A job that prints a line once it runs and then goes on for a minute."""
        attempt = self.coordinator.add("command", script=f"echo here; {script}", **spec)
        self.send(attempt)
        self.coordinator.wait(lambda: attempt.lines, what="first line")
        return attempt

    def wait_held(self, attempt: FakeAttempt) -> None:
        """Until a heartbeat has named the attempt."""
        self.coordinator.wait(
            lambda: any(
                item["attempt_id"] == attempt.ticket.attempt for item in self.coordinator.beats[-1]["attempts"]
            ),
            what="beat with the attempt",
        )

    def push(self, *messages: bytes) -> None:
        assert self.coordinator.node_id is not None
        publish(self._redis, {self.coordinator.node_id: messages})

    def nudge(self) -> None:
        self.push(nudge_message(self.coordinator.node_id or ""))

    def journal(self) -> str:
        return (self.home / "node" / "journal.jsonl").read_text()
