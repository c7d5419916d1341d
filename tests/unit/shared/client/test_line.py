"""The quick connection: kept alive, made anew when it broke, errors as ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from shared.client.errors import Unreachable, worth_retrying
from shared.client.http import Connection
from shared.client.line import Line
from shared.client.node import Caller
from shared.errors import (
    Conflict,
    Invalid,
    LimitReached,
    LongshoreError,
    StaleAttempt,
    Unauthenticated,
    Unavailable,
)

HANG_UP = b""
STAY = b"stay"


class Server:
    """Answers each request with the next of `answers`, on one connection until they or its sense of duty end."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}/base"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._serve(connection)
            self.hung_up.set()

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while self.answers:
                head = b""
                while (line := lines.readline()) not in (b"\r\n", b""):
                    head += line
                if not head:
                    return
                length = next(
                    (
                        int(item.split(b":")[1])
                        for item in head.splitlines()
                        if item.lower().startswith(b"content-length")
                    ),
                    0,
                )
                self.requests.append(head + lines.read(length))
                answer = self.answers.pop(0)
                if not answer:
                    return
                connection.sendall(answer)


def _length(head: bytes) -> int:
    found = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
    return int(found[0].split(b":")[1]) if found else 0


def answer(body: bytes = b'{"ok": 1}', status: str = "200 OK", *headers: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.closing.set()
    made.listening.close()


@pytest.fixture(params=["line", "connection"])
def caller(request: pytest.FixtureRequest, server: Server) -> Iterator[Caller]:
    """Both ways to a coordinator keep the same promises."""
    made: Caller = (
        Line(server.url, token="lsn_x", timeout=5)
        if request.param == "line"
        else Connection(server.url, token="lsn_x", timeout=5)
    )
    yield made
    made.close()


def test_json_goes_out_and_comes_in_with_the_credential(server: Server, caller: Caller) -> None:
    server.answers = [answer(b'{"a": "\xc3\xa4"}')]
    assert caller.call("POST", "/x", {"b": 1}) == {"a": "ä"}
    request = server.requests[0]
    assert request.startswith(b"POST /base/x HTTP/1.1\r\n")
    assert b"authorization: bearer lsn_x" in request.lower()
    assert request.endswith(b'{"b":1}')


def test_the_connection_is_kept(server: Server, caller: Caller) -> None:
    server.answers = [answer()] * 3
    for _ in range(3):
        caller.call("GET", "/x")
    assert server.connections == 1


def test_a_connection_that_was_closed_while_idle_is_made_anew(server: Server, caller: Caller) -> None:
    server.answers = [answer()]
    caller.call("GET", "/x")
    assert server.hung_up.wait(5)
    server.answers = [answer()]
    assert caller.call("GET", "/x") == {"ok": 1}
    assert server.connections == 2


def test_a_server_that_says_close_is_believed(server: Server, caller: Caller) -> None:
    server.answers = [answer(b"{}", "200 OK", b"connection: close"), answer()]
    caller.call("GET", "/x")
    assert caller.call("GET", "/x") == {"ok": 1}
    assert server.connections == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "again"),
    [
        ("401 Unauthorized", b'{"error": {"code": "AUTHENTICATION_ERROR", "message": "who"}}', Unauthenticated, False),
        ("410 Gone", b"", Unauthenticated, False),
        ("409 Conflict", b'{"error": {"code": "CONFLICT", "message": "no"}}', Conflict, False),
        ("409 Conflict", b'{"error": {"code": "STALE_ATTEMPT", "message": "no"}}', StaleAttempt, False),
        (
            "422 Unprocessable",
            b'{"error": {"message": "bad", "details": {"field": "x", "message": "y"}}}',
            Invalid,
            False,
        ),
        ("429 Too Many", b"{}", LimitReached, True),
        ("500 Oops", b"<html>", LongshoreError, True),
        ("502 Bad Gateway", b"<html>", Unavailable, True),
        ("503 Unavailable", b"[]", Unavailable, True),
        ("418 Teapot", b"null", LongshoreError, False),
    ],
)
def test_a_refusal_is_one_of_our_errors_and_says_whether_to_try_again(
    server: Server, caller: Caller, status: str, body: bytes, kind: type[LongshoreError], again: bool
) -> None:
    server.answers = [answer(body, status)]
    with pytest.raises(kind) as caught:
        caller.call("GET", "/x")
    assert worth_retrying(caught.value) is again
    assert caught.value.message


def test_how_long_to_wait_is_read_from_the_header(server: Server, caller: Caller) -> None:
    server.answers = [answer(b"{}", "429 Too Many", b"retry-after: 7")]
    with pytest.raises(LimitReached) as caught:
        caller.call("GET", "/x")
    assert caught.value.details["retry_after_seconds"] == 7


def test_nobody_there_is_told_as_such(server: Server, caller: Caller) -> None:
    server.listening.close()
    with pytest.raises(Unreachable):
        caller.call("GET", "/x")


def test_an_answer_that_stays_out_is_not_waited_for_twice(server: Server, caller: Caller) -> None:
    server.answers = [answer(), STAY]
    caller.call("GET", "/x")
    with pytest.raises(Unreachable):
        caller.call("GET", "/x", timeout=0.1)
    assert len(server.requests) == 2


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\n", answer()[:-3], b"HTTP/1.1 200 OK\r\ncontent-len"])
def test_an_answer_that_is_cut_off_is_no_answer(server: Server, caller: Caller, cut: bytes) -> None:
    server.answers = [cut]
    with pytest.raises(Unreachable):
        caller.call("GET", "/x")


def test_a_kept_connection_that_is_cut_under_a_request_is_made_anew_once(server: Server) -> None:
    line = Line(server.url, token="t", timeout=5)
    server.answers = [answer(), HANG_UP, answer()]
    line.call("GET", "/x")
    assert line.call("GET", "/x") == {"ok": 1}
    assert server.connections == 2
    server.answers = [HANG_UP, HANG_UP]
    with pytest.raises(Unreachable):
        line.call("GET", "/x")
    line.close()
