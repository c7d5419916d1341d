"""The node protocol as calls: enrol, beat, sync, hand in log lines, move files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from shared.client.http import API, Connection
from shared.contracts.node import ATTEMPT_TOKEN_HEADER, Enrol, Enrolled, Heartbeat, HeartbeatReply, SyncReply

_FILE_SECONDS = 300.0


def enrol(connection: Connection, told: Enrol) -> Enrolled:
    """Make this machine a node; the connection's token is an enrolment token."""
    return Enrolled.from_json(connection.call("POST", f"{API}/workers/register", told.to_json()))


class Caller(Protocol):
    """Whatever sends JSON and brings back JSON: a Connection, or a Line."""

    def call(self, method: str, path: str, body: Any = None, *, timeout: float | None = None) -> Any: ...

    def close(self) -> None: ...


class NodeClient:
    """What one node says to its coordinator, one loop over one connection."""

    def __init__(self, caller: Caller, node_id: str) -> None:
        self._caller = caller
        self._base = _base(node_id)

    def heartbeat(self, told: Heartbeat, *, timeout: float) -> HeartbeatReply:
        return HeartbeatReply.from_json(
            self._caller.call("POST", f"{self._base}/heartbeat", told.to_json(), timeout=timeout)
        )

    def sync(self, body: bytes) -> SyncReply:
        """Claims and reports, already written as JSON: most of a report is text that was encoded once."""
        return SyncReply.from_json(self._caller.call("POST", f"{self._base}/sync", body))

    def send_lines(self, lines: Sequence[dict[str, Any]]) -> list[str]:
        """Hand in log lines; answers the attempts that are no longer ours."""
        answer = self._caller.call("POST", f"{self._base}/logs", {"lines": list(lines)})
        return [str(attempt) for attempt in answer.get("stale", ())]

    def close(self) -> None:
        self._caller.close()


class NodeFiles:
    """The files of a node's jobs, over a connection that many threads share."""

    def __init__(self, connection: Connection, node_id: str) -> None:
        self._connection = connection
        self._base = _base(node_id)

    def fetch(self, *, attempt_id: str, token: str, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of an input file, piece by piece."""
        return self._connection.stream(
            f"{self._base}/attempts/{attempt_id}/files/{file_id}", {ATTEMPT_TOKEN_HEADER: token}
        )

    def upload(self, path: Path, *, name: str, attempt_id: str, token: str) -> dict[str, Any]:
        """Hand in one file that a job has made."""
        with path.open("rb") as source:
            response = self._connection.send(
                "POST",
                f"{self._base}/attempts/{attempt_id}/artifacts",
                files={"file": (path.name, source, "application/octet-stream")},
                data={"name": name},
                headers={ATTEMPT_TOKEN_HEADER: token},
                timeout=_FILE_SECONDS,
            )
        answer: dict[str, Any] = response.json()
        return answer

    def close(self) -> None:
        self._connection.close()


def _base(node_id: str) -> str:
    return f"{API}/workers/{node_id}"
