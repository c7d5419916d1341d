"""A node whose consumer has gone deaf, from its first missed canary until it takes work again: all of it real."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.dispatcher import Dispatcher
from coordinator.domains.fleet import service as fleet
from shared.queue.broker import parse_broker
from tests.factories.fleet import job_of, new_job, submit
from tests.services import processes
from tests.services.cable import Cable
from tests.services.databases import SqliteSite
from tests.services.processes import wait_until
from tests.services.redis import RedisServer
from tests.services.web import WebServer

pytestmark = pytest.mark.slow
LIVELY = {"heartbeat_seconds": 0.3, "canary_seconds": 0.4, "sweep_seconds": 0.2, "republish_seconds": 60.0}


@pytest.fixture
def cable(redis_server: RedisServer) -> Iterator[Cable]:
    laid = Cable(redis_server.port)
    yield laid
    laid.close()


@pytest.fixture
def web(tmp_path: Path, sqlite_site: SqliteSite, redis_server: RedisServer, cable: Cable) -> Iterator[WebServer]:
    redis_server.flushall()
    through = redis_server.url().replace(f":{redis_server.port}/", f":{cable.port}/")
    with WebServer(tmp_path, sqlite_site.fresh_url(), redis_server.url(), node_redis_url=through, **LIVELY) as server:
        yield server


@pytest.fixture
def leader(web: WebServer) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(web.resources)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    yield dispatcher
    dispatcher.stop()
    thread.join(20)


@pytest.fixture
def node(web: WebServer, tmp_path: Path) -> Iterator[processes.Child]:
    """An approved node that listens."""
    with web.resources.database.write() as tx:
        token, _ = fleet.create_token(tx, web.settings, by=None, note=None, group=None, seconds=None)
    argv = [sys.executable, "-m", "worker", "start", "--coordinator", f"http://{web.address}", "--driver", "process"]
    env = {"PATH": "/usr/bin:/bin", "LONGSHORE_ALLOW_UNSANDBOXED": "1", "LONGSHORE_ENROL_TOKEN": token}
    child = processes.start([*argv, "--home", str(tmp_path / "node")], log=tmp_path / "node.log", env=env)
    found = child.wait_until(lambda: _nodes(web), what="its enrolment")[0].id
    with web.resources.database.write() as tx:
        fleet.approve(tx, web.resources, found, is_approved=True, by="test")
    child.wait_until(lambda: _node(web).queue_ok, what="its ear on its queue", seconds=60)
    yield child
    child.kill()


@pytest.mark.usefixtures("leader")
def test_a_deaf_consumer_is_found_out_started_anew_and_trusted_again(
    web: WebServer, node: processes.Child, cable: Cable
) -> None:
    assert _runs(web)
    assert parse_broker(web.settings.node_redis_url).hosts == (("127.0.0.1", cable.port),)
    heard = _node(web).canaries_heard
    assert cable.cut() >= 1
    wait_until(lambda: _node(web).status == "error", what="node that is known to be deaf", seconds=30)
    assert _node(web).status_reason == "it does not hear its queue"
    wait_until(lambda: _node(web).status == "online", what="node that hears again", seconds=60)
    assert _node(web).canaries_heard > heard
    assert "consumer_restarted" in node.output()
    assert _runs(web)


def _runs(web: WebServer) -> bool:
    (job_id,) = submit(web.resources, new_job())
    wait_until(lambda: job_of(web.resources, job_id).state == "succeeded", what="end of a job", seconds=30)
    return True


def _nodes(web: WebServer) -> Any:
    with web.resources.database.read() as tx:
        return fleet.facts(tx)


def _node(web: WebServer) -> Any:
    with web.resources.database.read() as tx:
        return fleet.get(tx, fleet.facts(tx)[0].id)
