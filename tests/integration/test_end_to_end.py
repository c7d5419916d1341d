"""The whole of it as a user meets it: tasks over REST, run by real nodes in real Docker computers."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from tests.services import processes
from tests.services.dockerd import DockerDaemon
from tests.services.longshore import BIN, Longshore, up
from tests.services.processes import wait_until

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "README.md"
BUSY = {"max_attempts": 1}


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    with DockerDaemon() as started:
        yield started


@pytest.fixture(scope="module")
def longshore(daemon: DockerDaemon) -> Iterator[Longshore]:
    options = ("--nodes", "2", "--slots", "2", "--driver", "docker", "--no-flower")
    with up(*options, DOCKER_HOST=daemon.socket_url, LONGSHORE_HEARTBEAT_SECONDS="1") as running:
        yield running


@pytest.fixture(scope="module")
def agent(longshore: Longshore) -> str:
    return longshore.agent(name="shell", runtime="command", retry=BUSY)


def containers(daemon: DockerDaemon, *, attempt_id: str) -> list[Any]:
    client = docker.DockerClient(base_url=daemon.socket_url)
    try:
        return list(client.containers.list(all=True, filters={"name": attempt_id}))
    finally:
        client.close()


def test_a_task_works_on_a_file_and_its_result_log_and_artifact_come_back(longshore: Longshore, agent: str) -> None:
    with README.open("rb") as file:
        sent = longshore.http.post("/api/v1/files/upload", files={"file": ("notes.md", file)}).raise_for_status().json()
    script = """
        echo "reading"
        sha256sum < /work/input/notes.md | cut -d' ' -f1 > /work/artifacts/sum.txt
        printf '{"sum": "%s", "uid": %s}' "$(cat /work/artifacts/sum.txt)" "$(id -u)" > /work/result.json
    """
    view = longshore.ended(longshore.task(agent, script, input_files=[sent["id"]]))
    assert view["status"] == "completed", view["error"]
    content = README.read_bytes()
    assert view["result"] == {"sum": hashlib.sha256(content).hexdigest(), "uid": 1000}
    (artifact,) = view["output_files"]
    fetched = longshore.http.get(f"/api/v1/files/{artifact['id']}/download").raise_for_status()
    assert (artifact["filename"], fetched.text.strip()) == ("sum.txt", hashlib.sha256(content).hexdigest())
    (attempt,) = view["attempts"]
    assert attempt["computer"]["isolation"] == "container"
    events = longshore.get(f"/api/v1/tasks/{view['id']}/events?after=0")["events"]
    assert [item["message"] for item in events if item["type"] == "log"] == ["reading"]
    assert view["usage"]["wall_ms"] > 0


def test_two_nodes_share_the_work(longshore: Longshore, agent: str) -> None:
    ids = [longshore.task(agent, "sleep 1") for _ in range(4)]
    nodes = [longshore.ended(task_id)["attempts"][0]["node_id"] for task_id in ids]
    assert sorted(nodes.count(node) for node in set(nodes)) == [2, 2]


def test_a_pinned_task_runs_where_it_is_pinned(longshore: Longshore, agent: str) -> None:
    for node in longshore.get("/api/v1/workers?status=online")["workers"]:
        view = longshore.ended(longshore.task(agent, "true", placement={"worker_id": node["id"]}))
        assert view["attempts"][0]["node_id"] == node["id"]


def test_an_unapproved_node_gets_nothing_and_the_task_says_why(longshore: Longshore, agent: str) -> None:
    node_id = longshore.start_node("stranger", "--driver", "process", approve=False)
    task_id = longshore.task(agent, "true", placement={"worker_id": node_id})
    reason = wait_until(lambda: longshore.get(f"/api/v1/tasks/{task_id}")["hold_reason"], what="a reason")
    assert reason == "no_node: node stranger is not approved"
    assert longshore.get(f"/api/v1/workers/{node_id}/tasks")["tasks"] == []
    told = longshore.get(f"/api/v1/workers/{node_id}")
    assert (told["status"], told["is_approved"], told["queue_ok"]) == ("pending", False, None)
    assert longshore.post(f"/api/v1/tasks/{task_id}/cancel")["status"] == "cancelled"


def test_cancelling_means_that_the_computer_is_gone(longshore: Longshore, daemon: DockerDaemon, agent: str) -> None:
    task_id = longshore.task(agent, "trap '' TERM; echo started; while true; do sleep 1; done")
    wait_until(lambda: _logged(longshore, task_id, "started"), what="its first line")
    attempt_id = longshore.get(f"/api/v1/tasks/{task_id}")["attempts"][0]["id"]
    assert containers(daemon, attempt_id=attempt_id)
    longshore.post(f"/api/v1/tasks/{task_id}/cancel")
    assert longshore.ended(task_id)["status"] == "cancelled"
    assert not containers(daemon, attempt_id=attempt_id)
    assert longshore.http.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 200


def test_a_failing_command_fails_with_its_exit_code_and_what_it_printed(longshore: Longshore, agent: str) -> None:
    view = longshore.ended(longshore.task(agent, "echo oh no >&2; exit 3"))
    assert (view["status"], view["error"]["code"], view["attempts"][0]["exit_code"]) == ("failed", "EXIT_NONZERO", 3)
    assert longshore.http.post(f"/api/v1/tasks/{view['id']}/cancel").status_code == 409


def test_memory_beyond_the_limit_is_told_as_what_it_is(longshore: Longshore) -> None:
    small = longshore.agent(name="small", runtime="python", computer={"memory_mb": 64}, retry=BUSY)
    view = longshore.ended(longshore.task(small, "x = bytearray(500_000_000); print(len(x))"))
    assert (view["status"], view["error"]["code"]) == ("failed", "OUT_OF_MEMORY")


def test_a_timeout_ends_everything(longshore: Longshore) -> None:
    brief = longshore.agent(name="brief", runtime="command", computer={"timeout_seconds": 1}, retry=BUSY)
    view = longshore.ended(longshore.task(brief, "echo partial; sleep 60"))
    assert (view["status"], view["error"]["code"]) == ("failed", "TIMEOUT")
    assert _logged(longshore, view["id"], "partial")


def test_the_canary_answers_its_input_without_a_computer(longshore: Longshore) -> None:
    echo = longshore.agent(name="canary", runtime="echo")
    made = longshore.post(f"/api/v1/agents/{echo}/execute", {"input": {"ping": [1, None]}})
    view = wait_until(lambda: _completed(longshore, made["id"]), what="the echo")
    assert view["result"]["output"] == {"ping": [1, None]}


def test_work_of_a_stopped_agent_waits_with_a_reason_and_runs_when_it_starts(longshore: Longshore) -> None:
    resting = longshore.agent(name="resting", runtime="command")
    longshore.post(f"/api/v1/agents/{resting}/stop")
    task_id = longshore.task(resting, "true")
    view = longshore.get(f"/api/v1/tasks/{task_id}")
    assert view["status"] == "assigned"
    assert view["hold_reason"].startswith("agent_")
    longshore.post(f"/api/v1/agents/{resting}/start")
    assert longshore.ended(task_id)["status"] == "completed"


def test_nodes_are_upgraded_one_after_the_other_and_their_work_goes_on(longshore: Longshore, agent: str) -> None:
    ids = [longshore.task(agent, "seq 1 100; sleep 4; seq 101 200") for _ in range(8)]
    for name in ("node-1", "node-2"):
        argv = [str(BIN / "worker"), "restart", "--home", str(longshore.home / "nodes" / name)]
        restart = processes.start(argv, log=longshore.home / f"{name}-restart.log")
        assert restart.wait(seconds=60) == 0, restart.output()
    views = [longshore.ended(task_id, seconds=120) for task_id in ids]
    whole = "\n".join(map(str, range(1, 201)))
    assert [(view["status"], view["result"]) for view in views] == [("completed", whole)] * 8
    # What was about to get its computer may have been handed back; nothing failed, and nothing was lost.
    assert {item["state"] for view in views for item in view["attempts"]} <= {"succeeded", "returned"}
    told = [path.read_text() for path in longshore.home.glob("logs/node-*.log")]
    assert sum(text.count("attempt_resumed") for text in told) >= 2


def test_the_work_of_a_killed_node_runs_elsewhere(longshore: Longshore, agent: str) -> None:
    node_id = longshore.start_node("doomed", "--driver", "process", "--slots", "1")
    labelled = {"is_approved": True, "labels": {"doomed": "true"}}
    longshore.http.patch(f"/api/v1/admin/workers/{node_id}/approve", json=labelled).raise_for_status()
    task_id = longshore.task(agent, "echo started; sleep 600", placement={"labels": ["doomed"]})
    wait_until(lambda: _logged(longshore, task_id, "started"), what="its first line")
    longshore.nodes[-1].send(signal.SIGKILL)
    longshore.nodes[-1].wait()
    second = longshore.start_node("heir", "--driver", "process", "--label", "doomed=true")
    view = wait_until(lambda: _has_attempts(longshore, task_id, 2), what="a second attempt", seconds=90)
    assert [item["node_id"] for item in view["attempts"]] == [node_id, second]
    assert view["attempts"][0]["state"] == "lost"
    longshore.post(f"/api/v1/tasks/{task_id}/cancel")
    assert longshore.ended(task_id)["status"] == "cancelled"


def test_metrics_know_of_the_work_that_was_done(longshore: Longshore, agent: str) -> None:
    before = _succeeded(longshore)

    for task_id in [longshore.task(agent, "true") for _ in range(3)]:
        assert longshore.ended(task_id)["status"] == "completed"

    wait_until(lambda: _succeeded(longshore) == before + 3, what="three more jobs that ended well")
    assert 'longshore_nodes{status="online"}' in _metrics(longshore)


def _metrics(longshore: Longshore) -> str:
    return httpx.get(f"{longshore.url}/metrics").raise_for_status().text


def _succeeded(longshore: Longshore) -> float:
    counted = 'longshore_jobs_ended{state="succeeded"}'
    return sum(float(line.split()[-1]) for line in _metrics(longshore).splitlines() if line.startswith(counted))


def _logged(longshore: Longshore, task_id: str, message: str) -> bool:
    events = longshore.get(f"/api/v1/tasks/{task_id}/events?after=0")["events"]
    return any(item["message"] == message for item in events)


def _completed(longshore: Longshore, execution_id: str) -> dict[str, Any] | None:
    view: dict[str, Any] = longshore.get(f"/api/v1/executions/{execution_id}")
    return view if view["status"] == "completed" else None


def _has_attempts(longshore: Longshore, task_id: str, count: int) -> dict[str, Any] | None:
    view: dict[str, Any] = longshore.get(f"/api/v1/tasks/{task_id}")
    return view if len(view["attempts"]) >= count else None
