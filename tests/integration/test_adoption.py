"""A daemon that is killed, and the next one that goes on with what it ran: real daemons, a real Docker, no mercy."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest
import redis as redis_library

from tests.fakes.coordinator import FakeAttempt, FakeCoordinator, Refusal
from tests.services import processes
from tests.services.dockerd import DockerDaemon, DockerMissing
from tests.services.node import Node
from tests.services.redis import RedisServer

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.xdist_group("dockerd")]

COUNT = "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; sleep {pause}; done"


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    try:
        made = DockerDaemon()
    except DockerMissing as reason:
        pytest.skip(str(reason))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def engine(daemon: DockerDaemon) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(daemon.socket_url)
    yield client
    client.close()


@pytest.fixture
def coordinator(redis_server: RedisServer) -> Iterator[FakeCoordinator]:
    redis_server.flushall()
    # A lease that a start of a daemon fits into, on a machine that has other things to do as well.
    with FakeCoordinator(broker=redis_server.url(), heartbeat_seconds=0.5, lease_seconds=90) as fake:
        yield fake


@pytest.fixture
def node(
    tmp_path: Path,
    coordinator: FakeCoordinator,
    redis: redis_library.Redis,
    daemon: DockerDaemon,
    engine: docker.DockerClient,
) -> Iterator[Node]:
    made = Node(tmp_path / "home", coordinator, redis, docker_url=daemon.socket_url)
    yield made
    made.kill_all()
    for container in engine.containers.list(all=True, ignore_removed=True):
        container.remove(force=True, v=True)


def computers(engine: docker.DockerClient, attempt: FakeAttempt) -> list[str]:
    """The containers of an attempt that exist."""
    label = f"longshore.attempt={attempt.ticket.attempt}"
    return [str(found.id) for found in engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)]


def wait_lines(node: Node, attempt: FakeAttempt, count: int) -> None:
    node.coordinator.wait(lambda: len(attempt.lines) >= count, what=f"line {count}", seconds=60)


def begin(node: Node, script: str, **spec: Any) -> FakeAttempt:
    attempt = node.coordinator.add("command", script=script, **spec)
    node.send(attempt)
    wait_lines(node, attempt, 1)
    return attempt


def crash(node: Node) -> None:
    node.kill()
    node.start()


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


class TestGoingOn:
    def test_a_job_runs_on_while_no_daemon_is_there_and_nothing_of_it_is_lost_or_doubled(
        self, node: Node, engine: docker.DockerClient
    ) -> None:
        node.start_and_listen()
        attempt = begin(node, COUNT.format(lines=60, pause=0.1), timeout_seconds=120)
        before = computers(engine, attempt)
        crash(node)
        node.coordinator.wait_ended(attempt, seconds=60)
        assert attempt.state == "succeeded", attempt.report
        assert attempt.text == numbered(60)
        assert attempt.report["result"] == "\n".join(numbered(60))
        assert (attempt.claims, len(before)) == (1, 1)
        assert attempt.report["usage"]["wall_ms"] >= 6000
        node.child.wait_until(lambda: not computers(engine, attempt), what="removal of the computer")

    def test_it_is_taken_over_as_often_as_the_daemon_is_killed(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        script = COUNT.format(lines=80, pause=0.1) + '; printf \'{"attempt": %s}\' "$ATTEMPT" > "$WORK/result.json"'
        attempt = begin(node, script, timeout_seconds=120)
        container = computers(engine, attempt)
        crash(node)
        node.child.wait_for_text("attempt_resumed", seconds=60)
        crash(node)
        node.coordinator.wait_ended(attempt, seconds=60)
        assert attempt.report["result"] == {"attempt": 1}
        assert attempt.text == numbered(80)
        assert len(container) == 1

    def test_a_flood_of_output_arrives_whole(self, node: Node) -> None:
        node.start_and_listen()
        script = "echo line 0; i=0; while [ $i -lt 40 ]; do i=$((i+1)); seq 1 2000; sleep 0.05; done"
        attempt = begin(node, script, timeout_seconds=120)
        crash(node)
        node.coordinator.wait_ended(attempt, seconds=90)
        assert attempt.state == "succeeded", attempt.report
        assert attempt.text == ["line 0", *[str(number) for _ in range(40) for number in range(1, 2001)]]

    def test_one_that_ended_while_nobody_was_there_has_succeeded_though_its_time_is_over_by_now(
        self, node: Node, engine: docker.DockerClient
    ) -> None:
        node.start_and_listen()
        script = "echo line 1; sleep 1; mkdir -p artifacts; echo a > artifacts/a; echo line 2"
        over_at = time.monotonic() + 6
        attempt = begin(node, script, timeout_seconds=5)
        node.kill()
        (container,) = computers(engine, attempt)
        processes.wait_until(lambda: len(engine.containers.get(container).top()["Processes"]) <= 2, what="end")
        processes.wait_until(lambda: time.monotonic() > over_at, what="end of its time")
        node.start()
        node.coordinator.wait_ended(attempt, seconds=60)
        assert (attempt.state, attempt.text) == ("succeeded", numbered(2))
        assert attempt.artifacts == {"a": b"a\n"}

    def test_the_slot_of_a_job_that_goes_on_is_taken(self, node: Node) -> None:
        node.start_and_listen("--slots", "1")
        attempt = begin(node, "echo line 1; sleep 60", timeout_seconds=120)
        node.kill()
        beats = len(node.coordinator.beats)
        node.start("--slots", "1")
        node.wait_listening(since=beats)
        assert node.coordinator.beats[-1]["slots_used"] == 1
        assert attempt.ticket.attempt in (node.coordinator.beats[beats]["present"] or [])
        attempt.want = "stop"
        node.coordinator.wait_ended(attempt, seconds=60)


class TestStopping:
    def test_a_job_that_was_being_cancelled_ends_cancelled(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        script = "trap 'echo asked to stop' TERM; echo line 1; while :; do sleep 0.1; done"
        attempt = begin(node, script, cancel_grace_seconds=5)
        attempt.want = "stop"
        node.nudge()
        wait_lines(node, attempt, 2)
        node.kill()
        node.start()
        node.coordinator.wait_ended(attempt, seconds=90)
        assert (attempt.state, computers(engine, attempt)) == ("cancelled", [])

    def test_a_timeout_counts_from_the_beginning(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        attempt = begin(node, "echo line 1; sleep 600", timeout_seconds=6)
        crash(node)
        node.coordinator.wait_ended(attempt, seconds=60)
        assert (attempt.state, attempt.report["reason_code"]) == ("failed", "timeout")
        assert attempt.report["usage"]["wall_ms"] >= 6000

    def test_what_the_coordinator_gave_to_others_meanwhile_is_killed_without_a_word(
        self, node: Node, engine: docker.DockerClient
    ) -> None:
        node.start_and_listen()
        attempt = begin(node, "echo line 1; sleep 600")
        node.kill()
        attempt.want = "kill"
        node.start()
        node.child.wait_until(lambda: not computers(engine, attempt), what="removal of the computer", seconds=60)
        assert attempt.reports == []


class TestNobodyComes:
    def test_what_runs_is_gone_before_the_coordinator_gives_it_to_others(
        self, node: Node, engine: docker.DockerClient
    ) -> None:
        node.coordinator.lease_seconds = 6
        node.start_and_listen()
        attempt = begin(node, "echo line 1; sleep 600")
        node.wait_held(attempt)
        node.kill()
        processes.wait_until(lambda: not engine.containers.list(all=True), what="end of all", seconds=10)
        # It says so once the engine has answered; the container is gone a moment before that.
        log, told = node.home / "node" / "keeper.log", f"removed: {attempt.ticket.attempt}"
        processes.wait_until(lambda: told in log.read_text(), what="the keeper's word", seconds=10)
        # The next daemon finds nothing to go on with, and says so.
        node.start()
        node.coordinator.wait_ended(attempt, seconds=60)
        assert (attempt.state, attempt.report["reason_code"]) == ("lost", "node_restarted")

    def test_a_keeper_that_holds_nothing_ends_with_its_daemon(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        keeper = _keeper(node)
        node.kill()
        assert psutil.wait_procs([keeper], timeout=20)[1] == []
        assert engine.containers.list(all=True) == []

    def test_a_node_that_stops_leaves_neither_keeper_nor_container(
        self, node: Node, engine: docker.DockerClient
    ) -> None:
        node.start_and_listen()
        attempt = begin(node, "echo line 1; sleep 600", cancel_grace_seconds=0.2)
        keeper = _keeper(node)
        node.child.send(signal.SIGTERM)
        assert node.child.wait(seconds=60) == 0
        assert (attempt.state, engine.containers.list(all=True)) == ("returned", [])
        assert not keeper.is_running()


class TestBeginningAnew:
    def test_a_restart_keeps_what_runs_and_the_process_id(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        attempt = begin(node, COUNT.format(lines=80, pause=0.1), timeout_seconds=120)
        epoch = node.coordinator.epoch
        restart = processes.start(
            [sys.executable, "-m", "worker", "restart", "--home", str(node.home)], log=node.home.parent / "restart.log"
        )
        assert restart.wait(seconds=60) == 0, restart.output()
        node.coordinator.wait_ended(attempt, seconds=60)
        assert attempt.state == "succeeded", attempt.report
        assert attempt.text == numbered(80)
        assert node.coordinator.epoch != epoch
        assert node.child.is_running
        assert node.run("echo", input=1).state == "succeeded"

    def test_a_result_that_could_not_be_told_before_is_told_after(self, node: Node) -> None:
        node.start_and_listen()
        attempt = begin(node, "echo line 1; sleep 1; echo line 2")
        with node.coordinator.failing("", lambda: Refusal(503, "UNAVAILABLE")):
            node.coordinator.wait(lambda: '"is":"ended"' in node.journal(), what="result in the journal", seconds=60)
            crash(node)
            node.child.wait_for_text("heartbeat_missed", seconds=60)
        node.coordinator.wait_ended(attempt, seconds=60)
        assert attempt.report["result"] == "line 1\nline 2"
        assert attempt.text == numbered(2)


class TestExclusive:
    def test_an_exclusive_job_is_told_once_its_computer_is_gone(self, node: Node, engine: docker.DockerClient) -> None:
        node.start_and_listen()
        attempt = node.coordinator.add("command", script="echo done", is_exclusive=True)
        seen: list[list[str]] = []

        def look() -> None:
            if '"is":"ended"' in node.journal() and attempt.state == "running":
                seen.append(computers(engine, attempt))

        with node.coordinator.failing("/sync", look):
            node.send(attempt)
            node.coordinator.wait_ended(attempt, seconds=60)
        assert attempt.state == "succeeded"
        assert seen == [[]]


def _keeper(node: Node) -> psutil.Process:
    """The keeper that a node's daemon started."""
    return next(child for child in psutil.Process(node.child.pid).children() if "worker.keeper" in child.cmdline())
