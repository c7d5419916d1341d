"""A coordinator for node tests: a real HTTP server that speaks the node protocol and keeps everything in memory.

It is strict where the real one is (tokens, epochs, approval, stale attempts), and it can be told to misbehave.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from shared.contracts.node import ATTEMPT_TOKEN_HEADER, NODE_TOKEN_PREFIX
from shared.ids import new_id
from shared.queue.names import node_queue
from shared.queue.tickets import RunTicket

ENROL_TOKEN = "lse_test"
JSON = "application/json"
LIVE = ("dispatched", "running")


@dataclass
class FakeAttempt:
    """One attempt as the coordinator sees it."""

    ticket: RunTicket
    spec: dict[str, Any]
    state: str = "dispatched"
    token: str | None = None
    nonce: str | None = None
    want: str = "keep"
    deadline_in_seconds: float | None = None
    claims: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    @property
    def report(self) -> dict[str, Any]:
        """The report that was accepted."""
        assert len(self.reports) == 1, f"{len(self.reports)} reports were accepted"
        return self.reports[0]

    @property
    def text(self) -> list[str]:
        return [self.lines[offset]["message"] for offset in sorted(self.lines)]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "refused", **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, "details": details}}


class FakeCoordinator:
    """Use as a context manager. `wait` waits for something to become true, woken by every request."""

    def __init__(
        self, *, broker: str | None = None, heartbeat_seconds: float = 1.0, lease_seconds: float = 30.0
    ) -> None:
        self.broker = broker
        self.heartbeat_seconds = heartbeat_seconds
        self.lease_seconds = lease_seconds
        self.is_approved = True
        self.is_removed = False
        self.drain = False
        self.drain_in_seconds: float | None = None
        self.restart_consumer = False
        self.limits: dict[str, Any] = {}
        self.node_id: str | None = None
        self.credential = ""
        self.enrolled: dict[str, Any] = {}
        self.epoch: str | None = None
        self.beats: list[dict[str, Any]] = []
        self.syncs = 0
        self.attempts: dict[str, FakeAttempt] = {}
        self.files: dict[str, bytes] = {}
        self._lost_replies: list[str] = []
        self._faults: list[tuple[str, Callable[[], Refusal | None]]] = []
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.coordinator = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, runtime: str = "echo", *, number: int = 1, **spec: Any) -> FakeAttempt:
        """A dispatched attempt; its ticket is the caller's to publish, or to keep."""
        assert self.node_id is not None, "no node has enrolled"
        ticket = RunTicket(
            attempt=new_id(),
            job=new_id(),
            number=number,
            node=self.node_id,
            agent="tester",
            takes_slot=runtime != "echo",
        )
        whole = {"kind": "task", "agent": "tester", "runtime": runtime, **spec}
        with self._changed:
            self.attempts[ticket.attempt] = FakeAttempt(ticket, whole)
        return self.attempts[ticket.attempt]

    def add_file(self, name: str, content: bytes) -> dict[str, Any]:
        """An input file, in the form that a job's spec names it."""
        file_id = new_id()
        self.files[file_id] = content
        return {"id": file_id, "filename": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def wait(self, probe: Callable[[], object], *, what: str, seconds: float = 30) -> None:
        """Return once `probe` is true."""
        with self._changed:
            assert self._changed.wait_for(probe, seconds), f"no {what} within {seconds} s"

    def wait_ended(self, *attempts: FakeAttempt, seconds: float = 30) -> None:
        self.wait(
            lambda: all(attempt.state not in LIVE for attempt in attempts),
            what=f"end of {[attempt.state for attempt in attempts]}",
            seconds=seconds,
        )

    def change(self, **changes: Any) -> None:
        """Set what the next replies say."""
        with self._changed:
            for name, value in changes.items():
                assert hasattr(self, name)
                setattr(self, name, value)

    @contextmanager
    def failing(self, path_end: str, make: Callable[[], Refusal | None]) -> Iterator[None]:
        """Within the block, requests whose path ends so are refused with what `make` answers (None: not refused)."""
        fault = (path_end, make)
        self._faults.append(fault)
        try:
            yield
        finally:
            self._faults.remove(fault)

    def lose_reply(self, path_end: str) -> None:
        """Act on the next request whose path ends so, but let its sender believe that nobody was there."""
        self._lost_replies.append(path_end)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """One request; runs under the lock, so that tests see whole states."""
        with self._changed:
            try:
                for path_end, make in list(self._faults):
                    if path.endswith(path_end) and (refusal := make()) is not None:
                        raise refusal
                status, answer = self._route(method, path, headers, body)
                if lost := next((end for end in self._lost_replies if path.endswith(end)), None):
                    self._lost_replies.remove(lost)
                    raise Refusal(503, "UNAVAILABLE", "the reply was lost")
                return status, answer
            finally:
                self._changed.notify_all()

    def _route(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        if path == "/health":
            return 200, {"status": "ok"}
        parts = path.removeprefix("/api/v1/workers/").split("/")
        if parts == ["register"]:
            return 201, self._register(headers, json.loads(body))
        self._authenticate(headers, parts[0])
        if method == "GET" and len(parts) == 1:
            return 200, {"is_approved": self.is_approved, "status": "online", "queue_ok": self.beats[-1]["queue_ok"]}
        if parts[1:] == ["heartbeat"]:
            return 200, self._heartbeat(json.loads(body))
        if not self.is_approved:
            raise Refusal(403, "AUTHORIZATION_ERROR", "this worker is not approved")
        if parts[1:] == ["sync"]:
            return 200, self._sync(json.loads(body))
        if parts[1:] == ["logs"]:
            return 200, self._logs(json.loads(body))
        return self._attempt_route(method, parts, headers, body)

    def _register(self, headers: Any, told: dict[str, Any]) -> dict[str, Any]:
        if headers.get("authorization") != f"Bearer {ENROL_TOKEN}" or self.node_id is not None:
            raise Refusal(401, "AUTHENTICATION_ERROR", "the enrolment token is unknown or was used")
        self.node_id = new_id()
        self.enrolled = told
        self.credential = f"{NODE_TOKEN_PREFIX}{self.node_id}_secret"
        return {
            "id": self.node_id,
            "status": "pending",
            "is_approved": False,
            "credential": self.credential,
            "heartbeat_seconds": self.heartbeat_seconds,
        }

    def _authenticate(self, headers: Any, node_id: str) -> None:
        if self.is_removed or node_id != self.node_id or headers.get("authorization") != f"Bearer {self.credential}":
            raise Refusal(401, "AUTHENTICATION_ERROR", "no such credential")

    def _heartbeat(self, told: dict[str, Any]) -> dict[str, Any]:
        restarted = self.epoch is not None and self.epoch != told["epoch"]
        self.epoch = told["epoch"]
        self.beats.append(told)
        held = {item["attempt_id"]: item["token"] for item in told["attempts"]}
        if restarted:
            for attempt_id, attempt in self.attempts.items():
                if attempt.state == "running" and attempt_id not in held:
                    attempt.state = "lost"
        restart, self.restart_consumer = self.restart_consumer, False
        return {
            "status": "online" if self.is_approved else "pending",
            "is_approved": self.is_approved,
            "heartbeat_seconds": self.heartbeat_seconds,
            "lease_seconds": self.lease_seconds,
            "broker": self.broker if self.is_approved else None,
            "queue": node_queue(self.node_id or "") if self.is_approved else None,
            "drain": self.drain,
            "drain_in_seconds": self.drain_in_seconds,
            "restart_consumer": restart,
            "attempts": {attempt_id: self._want(attempt_id, token) for attempt_id, token in held.items()},
            "limits": self.limits,
            "a_field_of_the_future": True,
        }

    def _want(self, attempt_id: str, token: str) -> str:
        attempt = self.attempts.get(attempt_id)
        return attempt.want if attempt and attempt.state == "running" and attempt.token == token else "kill"

    def _sync(self, told: dict[str, Any]) -> dict[str, Any]:
        self.syncs += 1
        if told["epoch"] != self.epoch:
            raise Refusal(409, "CONFLICT", "send a heartbeat with this epoch first")
        reports = {report["attempt_id"]: self._report(report) for report in told["reports"]}
        return {"grants": [self._grant(claim) for claim in told["claims"]], "reports": reports}

    def _grant(self, claim: dict[str, Any]) -> dict[str, Any]:
        attempt = self.attempts.get(claim["attempt_id"])
        if attempt is None:
            return {"attempt_id": claim["attempt_id"], "refused": "unknown_attempt"}
        attempt.claims += 1
        again = attempt.state == "running" and attempt.nonce == claim["nonce"]
        if attempt.state != "dispatched" and not again:
            return {"attempt_id": claim["attempt_id"], "refused": "stale_attempt"}
        attempt.state, attempt.nonce = "running", claim["nonce"]
        attempt.token = f"token-{claim['nonce']}"
        return {
            "attempt_id": claim["attempt_id"],
            "token": attempt.token,
            "job_id": attempt.ticket.job,
            "number": attempt.ticket.number,
            "lease_seconds": self.lease_seconds,
            "spec": attempt.spec,
            "deadline_in_seconds": attempt.deadline_in_seconds,
            "refused": None,
        }

    def _report(self, report: dict[str, Any]) -> str:
        attempt = self.attempts.get(report["attempt_id"])
        if attempt is None or attempt.token != report["token"]:
            return "stale"
        if attempt.state != "running":
            same = any(known["digest"] == report["digest"] for known in attempt.reports)
            return "accepted" if same else "stale"
        attempt.state = report["outcome"]
        attempt.reports.append(report)
        return "accepted"

    def _logs(self, told: dict[str, Any]) -> dict[str, Any]:
        stale = set()
        stored = 0
        for line in told["lines"]:
            attempt = self.attempts.get(line["attempt_id"])
            if attempt is None or attempt.token != line["token"] or attempt.state != "running":
                stale.add(line["attempt_id"])
                continue
            stored += line["offset"] not in attempt.lines
            attempt.lines.setdefault(line["offset"], line)
        return {"stored": stored, "stale": sorted(stale)}

    def _attempt_route(self, method: str, parts: list[str], headers: Any, body: bytes) -> tuple[int, Any]:
        attempt = self.attempts.get(parts[2])
        if attempt is None or attempt.token != headers.get(ATTEMPT_TOKEN_HEADER) or attempt.state != "running":
            raise Refusal(409, "STALE_ATTEMPT", "this attempt is over")
        if parts[3] == "files":
            return 200, self.files[parts[4]]
        form = _form(headers["content-type"], body)
        attempt.artifacts[form["name"].decode()] = form["file"]
        return 201, {"id": new_id()}


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a multipart form by name."""
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    form = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(content, bytes)
        form[name] = content
    return form


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    coordinator: FakeCoordinator


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        body = self._body()
        try:
            status, answer = self.server.coordinator.answer(method, self.path, self.headers, body)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", JSON)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class gives it
        """Tests read assertions, not access logs."""
