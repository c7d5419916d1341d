"""The real web server: several processes, several addresses, one count, one log, a clean end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.config import Settings
from coordinator.http.server import options
from tests.services import processes
from tests.services.databases import SqliteSite
from tests.services.ports import free_port

SERVE = """
import sys
from coordinator.config import load_settings
from coordinator.http.server import run
home, database, binds = sys.argv[1:]
run(load_settings(home=home, database_url=database, bind=binds, web_workers=2, web_threads=4, log_format="json"))
"""


class Web:
    """A running web server and its addresses."""

    def __init__(self, child: processes.Child, binds: list[str]) -> None:
        self.child = child
        self.addresses = [f"http://{bind}" for bind in binds]

    def get(self, path: str, headers: dict[str, str] | None = None, *, at: int = 0) -> httpx.Response:
        return httpx.get(self.addresses[at] + path, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def web(sqlite_site: SqliteSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A server for all tests that leave it as it was."""
    with serving(sqlite_site.fresh_url(), tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.fixture
def own_web(sqlite_site: SqliteSite, tmp_path: Path) -> Iterator[Web]:
    """A server that the test may break."""
    with serving(sqlite_site.fresh_url(), tmp_path) as made:
        yield made


@contextmanager
def serving(database_url: str, home: Path) -> Iterator[Web]:
    binds = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    child = processes.start(
        [sys.executable, "-c", SERVE, str(home), database_url, ",".join(binds)], log=home / "web.log"
    )
    made = Web(child, binds)
    try:
        child.wait_until(lambda: child.output().count("Booting worker") == 2, what="two web processes", seconds=60)
        child.wait_until(lambda: _answers(made.addresses[0]), what="an answer", seconds=60)
        yield made
    finally:
        child.stop()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def requests_of(web: Web) -> dict[str, dict[str, object]]:
    """The access log by request id. Lines that are being written are left for the next look."""
    lines = [json.loads(line) for line in web.child.output().splitlines(keepends=True) if line.endswith("}\n")]
    return {line["request_id"]: line for line in lines if line["message"] == "request"}


def counted(web: Web, route: str) -> float:
    families = text_string_to_metric_families(web.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "longshore_http_requests_total" and sample.labels["route"] == route
    )


def test_requests_are_counted_exactly_over_all_processes_and_addresses(web: Web) -> None:
    before = counted(web, "/api/v0/version")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: web.get("/api/v0/version", at=number % 2), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert counted(web, "/api/v0/version") - before == 60


def test_a_web_process_that_dies_is_replaced_and_its_counts_stay(own_web: Web) -> None:
    for _ in range(10):
        own_web.get("/api/v0/version")
    for worker in psutil.Process(own_web.child.pid).children():
        worker.kill()
    own_web.child.wait_until(lambda: own_web.child.output().count("Booting worker") == 4, what="two new web processes")
    own_web.child.wait_until(lambda: _answers(own_web.addresses[0]), what="an answer")
    assert counted(own_web, "/api/v0/version") == 10


def test_the_log_has_a_line_a_request_without_its_secrets(web: Web) -> None:
    web.get("/api/v1/auth/me?token=do-not-log-me&x=1", {"X-Request-ID": "mine", "Authorization": "Bearer do.not.log"})
    web.child.wait_until(lambda: "mine" in requests_of(web), what="the line of the request")
    line = requests_of(web)["mine"]
    assert (line["path"], line["query"], line["status"]) == ("/api/v1/auth/me", "?token=***&x=1", 401)
    assert "do-not-log-me" not in web.child.output()
    assert "do.not.log" not in web.child.output()


def test_what_is_asked_all_the_time_is_logged_only_when_it_fails(web: Web) -> None:
    web.get("/health", {"X-Request-ID": "quiet"})
    web.get("/health/ready", {"X-Request-ID": "failing"})
    web.child.wait_until(lambda: "failing" in requests_of(web), what="the line of the failing request")
    assert "quiet" not in requests_of(web)


def test_it_does_not_say_which_version_of_which_server_it_is(web: Web) -> None:
    assert not any(character.isdigit() for character in web.get("/health").headers.get("Server", ""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_with_all_its_processes(own_web: Web, number: signal.Signals) -> None:
    workers = psutil.Process(own_web.child.pid).children()
    own_web.child.send(number)
    assert own_web.child.wait() == 0
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_each_address_and_number_comes_from_the_settings() -> None:
    made = options(Settings(bind="127.0.0.1:9000,[::1]:8000", web_workers=3, web_threads=5))
    assert made["bind"] == ["127.0.0.1:9000", "[::1]:8000"]
    assert (made["workers"], made["threads"]) == (3, 5)
    assert made["control_socket_disable"] is True
