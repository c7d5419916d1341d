"""WebSockets and long polls against the real web server, on both databases."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.domains.queue import service as queue
from coordinator.domains.queue.placing import place
from coordinator.resources import Resources
from shared.contracts.node import Sync
from shared.ids import new_id
from shared.policy.placement import NodeFacts
from tests.factories.fleet import new_job
from tests.services.databases import DatabaseSite
from tests.services.redis import RedisServer
from tests.services.web import WebServer

HERE = NodeFacts(
    id=new_id(),
    name="here",
    status="online",
    is_approved=True,
    group=None,
    labels={},
    driver=None,
    isolation="none",
    slots=1000,
    free_slots=1000,
    light_slots=1000,
    free_light=1000,
)
TEN = {
    "agent.status",
    "task.created",
    "task.updated",
    "task.completed",
    "task.failed",
    "worker.online",
    "worker.offline",
    "message.new",
    "notification",
    "system.alert",
}


class Work:
    """A job that the test moves itself, as a node would."""

    def __init__(self, resources: Resources, *, kind: str = "execution", space: str = "default") -> None:
        self._resources = resources
        self._job = new_job(kind=kind, space=space, agent_id=new_id())
        self.id = self._job.id
        self._token = self._attempt_id = ""
        self._said = 0
        with resources.database.write() as tx:
            queue.submit(tx, resources, [self._job])

    def start(self) -> Work:
        with self._resources.database.write() as tx:
            placed = place(tx, [HERE], batch=1000)
        self._attempt_id = next(ticket.attempt_id for ticket in placed.tickets if ticket.job_id == self.id)
        with self._resources.database.write() as tx:
            claim = {"attempt_id": self._attempt_id, "nonce": "nonce"}
            reply = queue.sync(tx, self._resources, node_id=HERE.id, request=Sync(epoch="e", claims=[claim]))
        self._token = reply.grants[0]["token"]
        return self

    def log(self, *texts: str) -> None:
        lines = [
            {
                "attempt_id": self._attempt_id,
                "token": self._token,
                "offset": self._said + number,
                "age_ms": 0,
                "level": "info",
                "stream": "stdout",
                "message": text,
            }
            for number, text in enumerate(texts)
        ]
        with self._resources.database.write() as tx:
            stored, stale = queue.store_lines(tx, node_id=HERE.id, lines=lines)
        assert (stored, stale) == (len(texts), [])
        self._said += len(texts)

    def end(self, outcome: str = "succeeded", **facts: Any) -> None:
        report = {"attempt_id": self._attempt_id, "token": self._token, "outcome": outcome, **facts}
        with self._resources.database.write() as tx:
            reply = queue.sync(tx, self._resources, node_id=HERE.id, request=Sync(epoch="e", reports=[report]))
        assert reply.reports == {self._attempt_id: "accepted"}


# Few threads: sockets must do without them.
CHOICES = {"web_workers": 1, "web_threads": 12, "live_auth_seconds": 1.0, "live_queue": 200}


@pytest.fixture(scope="module", params=["sqlite_site", "postgres_site"], ids=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> DatabaseSite:
    found: DatabaseSite = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def server(
    site: DatabaseSite, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    """One for all tests here: each has its own jobs, and a socket hears only what comes after it."""
    home = tmp_path_factory.mktemp("web")
    with WebServer(home, site.fresh_url(), redis_server.url(), **CHOICES) as made:
        yield made


@pytest.fixture
def own_server(site: DatabaseSite, redis_server: RedisServer, tmp_path: Path) -> Iterator[WebServer]:
    """One that the test may stop."""
    with WebServer(tmp_path, site.fresh_url(), redis_server.url(), **CHOICES) as made:
        yield made


def emit(server: WebServer, event_type: str, *, space: str = "default", **data: Any) -> None:
    with server.resources.database.write() as tx:
        queue.emit(tx, event_type, space=space, subject_id=None, data=data)


def logs(messages: list[dict[str, Any]]) -> list[str]:
    return [message["data"]["message"] for message in messages if message["type"] == "log"]


class TestStream:
    def test_what_happened_is_replayed_and_what_happens_follows_until_the_end(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        work.log("one", "two")
        socket = server.connect(f"/executions/{work.id}/stream", token=server.token())
        heard = socket.hear_until(lambda message: logs([message]) == ["two"])
        work.log("three")
        heard.append(socket.hear())
        work.end(result={"answer": 42}, exit_code=0, usage={"wall_ms": 5})
        rest, code, _ = socket.end()
        heard += rest
        assert [message["type"] for message in heard] == [
            "status",
            "status",
            "execution_started",
            *["log"] * 3,
            "execution_completed",
        ]
        assert logs(heard) == ["one", "two", "three"]
        last = heard[-1]["data"]
        assert (last["status"], last["result"], last["usage"]) == ("completed", {"answer": 42}, {"wall_ms": 5})
        assert [message["seq"] for message in heard] == sorted({message["seq"] for message in heard})
        assert code == 1000

    def test_news_comes_at_once_and_not_with_the_poll(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        socket = server.connect(f"/executions/{work.id}/stream", token=server.token())
        socket.hear_until(lambda message: message["type"] == "execution_started")
        delays = []
        for number in range(30):
            began = time.monotonic()
            work.log(str(number))
            socket.hear()
            delays.append(time.monotonic() - began)
        assert sorted(delays)[len(delays) // 2] < 0.3
        socket.close()

    def test_a_finished_execution_is_replayed_and_closed(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        work.log(*[f"line {number}" for number in range(450)])
        work.end("failed", error={"code": "EXIT_NONZERO", "message": "exit 3", "retryable": False}, exit_code=3)
        heard, code, _ = server.connect(f"/executions/{work.id}/stream", token=server.token()).end()
        assert logs(heard) == [f"line {number}" for number in range(450)]
        assert (heard[-1]["type"], heard[-1]["data"]["error"]["code"]) == ("execution_failed", "EXIT_NONZERO")
        assert code == 1000

    def test_it_goes_on_behind_a_given_number(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        work.log("one", "two", "three")
        token = server.token()
        whole = server.connect(f"/executions/{work.id}/stream", token=token).hear_until(
            lambda message: logs([message]) == ["two"]
        )
        work.end()
        path = f"/executions/{work.id}/stream?after_seq={whole[-1]['seq']}"
        heard, code, _ = server.connect(path, token=token).end()
        assert [message["type"] for message in heard] == ["log", "execution_completed"]
        seen = heard[-1]["seq"]
        assert server.connect(f"/executions/{work.id}/stream?after_seq={seen}", token=token).end()[:2] == ([], 1000)
        assert code == 1000

    def test_a_task_has_one_too(self, server: WebServer) -> None:
        work = Work(server.resources, kind="task").start()
        work.end()
        heard, code, _ = server.connect(f"/tasks/{work.id}/stream", token=server.token()).end()
        assert [message["type"] for message in heard] == ["status", "status", "task_started", "task_completed"]
        assert code == 1000

    def test_many_writers_and_readers_lose_and_double_nothing(self, server: WebServer) -> None:
        works = [Work(server.resources).start() for _ in range(4)]
        token = server.token()

        def write(work: Work) -> None:
            for number in range(60):
                work.log(*[f"{number}.{part}" for part in range(number % 3 + 1)])
            work.end()

        def read(work: Work) -> list[dict[str, Any]]:
            threading.Event().wait(random.random() / 2)
            heard, code, _ = server.connect(f"/executions/{work.id}/stream", token=token).end()
            assert code == 1000
            return heard

        with ThreadPoolExecutor(16) as pool:
            readings = [(work, pool.submit(read, work)) for work in works * 3]
            for writing in [pool.submit(write, work) for work in works]:
                writing.result()
            expected = [f"{number}.{part}" for number in range(60) for part in range(number % 3 + 1)]
            for _, reading in readings:
                heard = reading.result()
                assert logs(heard) == expected
                assert heard[-1]["type"] == "execution_completed"

    def test_one_who_reads_late_is_told_everything_from_the_database(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        late = server.raw(f"/executions/{work.id}/stream", server.token(), receive_bytes=4096)
        quick = server.connect(f"/executions/{work.id}/stream", token=server.token())
        text = "x" * 500
        for _ in range(30):
            work.log(*[text] * 100)
        work.end()
        heard, code, _ = quick.end()
        assert (len(logs(heard)), code) == (3000, 1000)
        with late:
            received = b""
            while b"execution_completed" not in received[-4000:]:
                part = late.recv(1 << 20)
                assert part
                received += part
        assert received.count(text.encode()) == 3000

    def test_others_spaces_kinds_and_unknown_ids_are_not_found(self, server: WebServer) -> None:
        token = server.token()
        elsewhere = Work(server.resources, space="elsewhere")
        task = Work(server.resources, kind="task")
        for job_id in (elsewhere.id, task.id, new_id()):
            assert server.refusal(f"/executions/{job_id}/stream", token=token) == 404
        assert server.refusal(f"/executions/{task.id}/stream?after_seq=-1", token=token) == 422


class TestEvents:
    def test_without_a_choice_the_ten_types_come_and_nothing_else(self, server: WebServer) -> None:
        socket = server.connect("/ws", token=server.token())
        Work(server.resources)
        for name in sorted(TEN - {"message.new", "notification"}):
            emit(server, name, mark=name)
        emit(server, "system.alert", mark="last")
        heard = socket.hear_until(lambda message: message["data"].get("mark") == "last")
        assert [message["data"]["mark"] for message in heard] == [
            *sorted(TEN - {"message.new", "notification"}),
            "last",
        ]
        assert all(set(message) == {"type", "data", "ts"} for message in heard)
        socket.close()

    def test_tasks_are_told_in_the_words_of_the_api(self, server: WebServer) -> None:
        socket = server.connect("/ws", token=server.token())
        work = Work(server.resources, kind="task").start()
        work.end()
        heard = socket.hear_until(lambda message: message["type"] == "task.completed")
        assert [(m["type"], m["data"]["status"]) for m in heard] == [
            ("task.created", "assigned"),
            ("task.updated", "in_progress"),
            ("task.completed", "completed"),
        ]
        assert {m["data"]["id"] for m in heard} == {work.id}
        socket.close()

    def test_a_choice_narrows_and_can_be_taken_back(self, server: WebServer) -> None:
        socket = server.connect("/ws", token=server.token())
        assert socket.ask({"type": "subscribe", "event": "execution.completed"}) == {
            "type": "subscribed",
            "data": {"event": "execution.completed"},
        }
        work = Work(server.resources).start()
        emit(server, "worker.online", id="x")
        work.end()
        assert socket.hear()["type"] == "execution.completed"
        assert socket.ask({"type": "unsubscribe", "event": "execution.completed"})["type"] == "unsubscribed"
        emit(server, "worker.online", id="y")
        assert socket.hear()["data"]["id"] == "y"
        assert socket.ask({"type": "subscribe", "event": "*"})["type"] == "subscribed"
        Work(server.resources)
        assert socket.hear()["type"] == "execution.created"
        socket.close()

    def test_what_is_not_understood_is_answered_and_the_socket_stays(self, server: WebServer) -> None:
        socket = server.connect("/ws", token=server.token())
        for said, code in [
            ("{", "BAD_REQUEST"),
            ("[]", "BAD_REQUEST"),
            ({"type": "dance"}, "BAD_REQUEST"),
            ({}, "BAD_REQUEST"),
            ({"type": "subscribe", "event": "task.exploded"}, "VALIDATION_ERROR"),
            ({"type": "subscribe"}, "VALIDATION_ERROR"),
        ]:
            answer = socket.ask(said)
            assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert socket.ask({"type": "ping"}) == {"type": "pong"}
        socket.close()

    def test_only_events_of_the_own_space_come(self, server: WebServer) -> None:
        token = server.token()
        socket = server.connect("/ws", token=token)
        emit(server, "system.alert", space="elsewhere", mark="theirs")
        Work(server.resources, kind="task", space="elsewhere")
        emit(server, "system.alert", mark="ours")
        assert socket.hear()["data"] == {"mark": "ours"}
        assert server.refusal("/ws?space=elsewhere", token=token) == 404
        socket.close()

    def test_personal_events_come_to_their_person_alone(self, server: WebServer) -> None:
        token = server.token()
        socket = server.connect("/ws", token=token)
        me = server.get("/api/v1/auth/me", token=token).json()["id"]
        emit(server, "notification", user_id=new_id(), mark="another's")
        emit(server, "notification", user_id=me, mark="mine")
        assert socket.hear()["data"]["mark"] == "mine"
        socket.close()

    def test_many_writers_that_commit_out_of_order_are_heard_completely_and_once(self, server: WebServer) -> None:
        sockets = [server.connect("/ws", token=server.token()) for _ in range(3)]

        def write(writer: int) -> None:
            for number in range(25):
                with server.resources.database.write() as tx:
                    data = {"mark": f"{writer}.{number}"}
                    queue.emit(tx, "system.alert", space="default", subject_id=None, data=data)
                    if not server.resources.database.is_sqlite:
                        # The id is drawn; the commit comes later, after those of others with greater ids.
                        threading.Event().wait(random.random() / 50)

        with ThreadPoolExecutor(6) as pool:
            for writing in [pool.submit(write, writer) for writer in range(6)]:
                writing.result()
        expected = {f"{writer}.{number}" for writer in range(6) for number in range(25)}
        for socket in sockets:
            heard = [socket.hear()["data"]["mark"] for _ in expected]
            assert (set(heard), len(heard)) == (expected, len(expected))
            socket.close()

    def test_a_slow_reader_is_dropped_with_a_reason_and_slows_nobody(self, server: WebServer) -> None:
        slow = server.raw("/ws", server.token(), receive_bytes=4096)
        fast = server.connect("/ws", token=server.token())
        filling = "x" * 8000
        for number in range(500):
            emit(server, "system.alert", mark=number, filling=filling)
            if number % 50 == 49:
                heard = [fast.hear()["data"]["mark"] for _ in range(50)]
                assert heard == list(range(number - 49, number + 1))
        with slow:
            received = b""
            while part := slow.recv(1 << 20):
                received = received[-4000:] + part
        assert b"too slow" in received[-400:]
        assert received[-400:].count(b"too slow") == 2
        assert b"\x11\x38too slow" in received
        fast.close()


class TestAdmission:
    def test_a_token_may_come_as_the_first_message(self, server: WebServer) -> None:
        socket = server.connect("/ws")
        assert socket.ask({"type": "auth", "token": server.token()})["type"] == "authenticated"
        emit(server, "system.alert", mark=1)
        assert socket.hear()["data"] == {"mark": 1}
        work = Work(server.resources).start()
        work.end()
        stream = server.connect(f"/executions/{work.id}/stream")
        assert stream.ask({"type": "auth", "token": server.token()})["type"] == "authenticated"
        heard, code, _ = stream.end()
        assert (heard[-1]["type"], code) == ("execution_completed", 1000)
        socket.close()

    def test_a_token_may_come_in_the_header(self, server: WebServer) -> None:
        socket = server.connect("/ws", Authorization=f"Bearer {server.token()}")
        assert socket.ask({"type": "ping"}) == {"type": "pong"}
        socket.close()

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ({"type": "auth", "token": "wrong"}, "the token is not valid"),
            ({"type": "auth"}, "an auth message carries its token as a text"),
            ({"type": "ping"}, 'send {"type": "auth", "token": …} first'),
            ("{", "send an auth message first: the message is not valid JSON"),
        ],
    )
    def test_a_wrong_first_message_closes(self, server: WebServer, said: Any, reason: str) -> None:
        socket = server.connect("/ws")
        socket.say(said)
        assert socket.end() == ([], 4401, reason)

    def test_silence_closes(self, server: WebServer) -> None:
        assert server.connect("/ws").end() == ([], 4401, "no token came")

    def test_a_wrong_token_in_the_handshake_is_refused_before_it(self, server: WebServer) -> None:
        assert server.refusal("/ws", token="wrong") == 401
        assert server.refusal("/ws", Authorization="Bearer wrong") == 401
        assert server.refusal(f"/executions/{new_id()}/stream", token=server.token(seconds=-5)) == 401

    def test_an_unknown_execution_is_told_after_the_first_message(self, server: WebServer) -> None:
        stream = server.connect(f"/executions/{new_id()}/stream")
        stream.say({"type": "auth", "token": server.token()})
        assert stream.end() == ([], 4404, "there is no such execution")

    def test_the_end_of_the_token_is_the_end_of_the_socket(self, server: WebServer) -> None:
        token, short = server.token(), server.token(seconds=2)
        assert server.connect("/ws", token=short).end() == ([], 4401, "the token has expired")
        assert server.connect("/ws", token=token).ask({"type": "ping"}) == {"type": "pong"}

    def test_a_token_can_be_renewed_by_its_owner_alone(self, server: WebServer) -> None:
        token = server.token()
        socket = server.connect("/ws", token=token)
        assert socket.ask({"type": "auth", "token": token})["type"] == "authenticated"
        socket.say({"type": "auth", "token": server.token()})
        assert socket.end() == ([], 4401, "this socket belongs to somebody else")

    def test_a_page_of_another_origin_is_refused(self, server: WebServer) -> None:
        token = server.token()
        assert server.refusal("/ws", token=token, Origin="https://elsewhere.example") == 403
        socket = server.connect("/ws", token=token, Origin=f"http://{server.address}")
        assert socket.ask({"type": "ping"}) == {"type": "pong"}
        socket.close()

    def test_the_token_is_in_no_log(self, server: WebServer) -> None:
        token = server.token()
        socket = server.connect("/ws", token=token)
        assert socket.ask({"type": "ping"}) == {"type": "pong"}
        socket.close()
        server.child.wait_for_text("socket.closed")
        assert '"/api/v1/ws"' in server.child.output()
        assert token not in server.child.output()

    def test_a_plain_request_is_told_that_this_is_a_socket(self, server: WebServer) -> None:
        assert server.get("/api/v1/ws", token=server.token()).status_code == 400


class TestRoom:
    def test_sixty_sockets_leave_plain_requests_alone(self, server: WebServer) -> None:
        token = server.token()
        with ExitStack() as stack:
            sockets = [server.connect("/ws", token=token) for _ in range(60)]
            for socket in sockets:
                stack.callback(socket.close)
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert server.get("/api/v1/auth/me", token=token).status_code == 200
                took.append(time.monotonic() - began)
            assert sorted(took)[10] < 1
            emit(server, "system.alert", mark=1)
            assert [socket.hear()["data"]["mark"] for socket in sockets] == [1] * 60

    def test_waiting_requests_leave_room_for_others(self, server: WebServer) -> None:
        work = Work(server.resources).start()
        token = server.token()
        seen = server.get(f"/api/v1/executions/{work.id}/events", token=token).json()["next_after"]
        path = f"/api/v1/executions/{work.id}/events?after={seen}&wait=20"
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(server.get, path, token=token) for _ in range(8)]
            # 12 threads, 8 of them kept for others: so many may wait, the rest is told to come later.
            assert server.get("/health").status_code == 200
            server.child.wait_until(lambda: sum(done.done() for done in waiting) == 4, what="four refusals")
            refused = [done.result() for done in waiting if done.done()]
            assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "1")}
            work.log("news")
            answers = [done.result() for done in waiting]
        heard = [answer.json()["events"][0]["message"] for answer in answers if answer.status_code == 200]
        assert heard == ["news"] * 4

    def test_beyond_the_limit_a_socket_is_told_to_come_later(
        self, sqlite_site: DatabaseSite, redis_server: RedisServer, tmp_path: Path
    ) -> None:
        choices = {"web_workers": 1, "web_threads": 4, "live_sockets": 4}
        with WebServer(tmp_path, sqlite_site.fresh_url(), redis_server.url(), **choices) as server:
            token = server.token()
            silent = server.connect("/ws")
            second = server.connect("/ws")
            assert second.end()[1:] == (1013, "too many connections without a token; try again later")
            open_ones = [server.connect("/ws", token=token) for _ in range(3)]
            assert [socket.ask({"type": "ping"})["type"] for socket in open_ones] == ["pong"] * 3
            assert server.connect("/ws", token=token).end()[1:] == (
                1013,
                "too many live connections; try again later",
            )
            for socket in [silent, *open_ones]:
                socket.close()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stopping_server_says_goodbye_at_once(self, own_server: WebServer, number: int) -> None:
        server = own_server
        work = Work(server.resources).start()
        token = server.token()
        waiting = http.client.HTTPConnection(server.address, timeout=30)
        path, headers = f"/api/v1/executions/{work.id}/events", {"Authorization": f"Bearer {token}"}
        waiting.request("GET", path, headers=headers)
        seen = json.loads(waiting.getresponse().read())["next_after"]
        waiting.request("GET", f"{path}?after={seen}&wait=20", headers=headers)
        socket = server.connect("/ws", token=token)
        assert socket.ask({"type": "ping"}) == {"type": "pong"}
        began = time.monotonic()
        server.child.send(number)
        assert socket.end() == ([], 1001, "the server is stopping; connect again")
        assert time.monotonic() - began < 5
        if number == signal.SIGTERM:
            assert json.loads(waiting.getresponse().read())["events"] == []
        waiting.close()
        assert server.child.wait(seconds=15) == 0
