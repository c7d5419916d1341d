"""What a node's own login may do on a real Redis and on the embedded Valkey, and that it ends when it is withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_library
from redis.exceptions import AuthenticationError, NoPermissionError

from shared.queue import logins
from tests.services.redis import RedisServer, find_bundled_server, find_server

NODE, OTHER, PASSWORD = "node-one", "node-two", "the password of one"
QUEUE, OTHERS_QUEUE = f"node.{NODE}", f"node.{OTHER}"

FORBIDDEN = (
    ("LPUSH", QUEUE, "x"),
    ("RPUSH", QUEUE, "x"),
    ("DEL", QUEUE),
    ("SET", QUEUE, "x"),
    ("BRPOP", OTHERS_QUEUE, "1"),
    ("BRPOP", QUEUE, OTHERS_QUEUE, "1"),
    ("LPUSH", OTHERS_QUEUE, "x"),
    ("LRANGE", OTHERS_QUEUE, "0", "-1"),
    ("EXISTS", OTHERS_QUEUE),
    ("PUBLISH", "longshore:nudge", "x"),
    ("PUBLISH", "longshore:live", "x"),
    ("PUBLISH", "/1.celeryev/worker.online", "x"),
    ("PUBLISH", "/0.celery.pidbox", "x"),
    ("SPUBLISH", "/0.celeryev/worker.online", "x"),
    ("SUBSCRIBE", "/0.celeryev/worker.online"),
    ("PSUBSCRIBE", "*"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("SELECT", "1"),
    ("CONFIG", "GET", "*"),
    ("INFO",),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "somebody", "on"),
    ("EVAL", "return 1", "0"),
    ("SHUTDOWN",),
    ("REPLICAOF", "NO", "ONE"),
)


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    program = find_server() if request.param == "redis" else find_bundled_server()
    started = RedisServer(program=program)
    yield started
    started.stop()


@pytest.fixture
def ours(server: RedisServer) -> Iterator[redis_library.Redis]:
    with server.client() as client:
        client.flushall()
        logins.withdraw(client, list(logins.known(client)))
        yield client


@pytest.fixture
def theirs(server: RedisServer, ours: redis_library.Redis) -> Iterator[redis_library.Redis]:
    logins.grant(ours, {NODE: PASSWORD}, database=0)
    with login(server) as client:
        yield client


def login(server: RedisServer, *, password: str = PASSWORD, database: int = 0) -> redis_library.Redis:
    return redis_library.Redis(
        port=server.port, db=database, username=logins.username_of(NODE), password=password, socket_timeout=10
    )


def test_a_node_reads_its_queue_and_tells_onlookers(ours: redis_library.Redis, theirs: redis_library.Redis) -> None:
    ours.lpush(QUEUE, "ticket")
    assert theirs.brpop([QUEUE], 1) == (QUEUE.encode(), b"ticket")
    assert theirs.publish("/0.celeryev/task.multi", "event") == 0
    assert theirs.ping()


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_everything_else_is_refused(theirs: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        theirs.execute_command(*command)


def test_a_queue_in_another_database_can_be_read_too(server: RedisServer, ours: redis_library.Redis) -> None:
    logins.grant(ours, {NODE: PASSWORD}, database=3)
    with server.client(3) as there, login(server, database=3) as client:
        there.lpush(QUEUE, "ticket")
        assert client.brpop([QUEUE], 1) == (QUEUE.encode(), b"ticket")
        assert client.publish("/3.celeryev/task.multi", "event") == 0


def test_withdrawing_ends_open_connections_and_a_waiting_read(
    server: RedisServer, ours: redis_library.Redis, theirs: Any
) -> None:
    waiting = theirs.connection_pool.get_connection()
    waiting.send_command("BRPOP", QUEUE, "0")
    idle = theirs.connection_pool.get_connection()
    logins.withdraw(ours, [NODE])
    for connection in (waiting, idle):
        with pytest.raises(redis_library.ConnectionError):
            connection.read_response()
    with login(server) as again, pytest.raises(AuthenticationError):
        again.ping()
    assert logins.known(ours) == {}
    logins.withdraw(ours, [NODE])


def test_what_the_broker_has_is_told_without_passwords(ours: Any, theirs: redis_library.Redis) -> None:
    assert logins.known(ours) == {NODE: logins.digest(PASSWORD)}
    ours.execute_command("ACL SETUSER", logins.username_of(NODE), "off")
    assert logins.known(ours) == {NODE: ""}
    assert PASSWORD not in repr(ours.execute_command("ACL LIST"))


def test_a_login_that_may_make_no_logins_says_so(server: RedisServer, ours: Any) -> None:
    ours.execute_command("ACL SETUSER", "modest", "reset", "on", ">pw", "~*", "&*", "+@all", "-acl")
    with redis_library.Redis(port=server.port, username="modest", password="pw") as modest:
        for attempt in (
            lambda: logins.grant(modest, {NODE: PASSWORD}, database=0),
            lambda: logins.withdraw(modest, [NODE]),
            lambda: logins.known(modest),
        ):
            with pytest.raises(logins.LoginsRefused, match="permissions"):
                attempt()
