"""What a node must not forget when it dies: which attempts it has, and which results nobody has accepted yet.

Append-only JSON lines. A claim is on the disk before it is asked for, and a result before it is reported; the grant
and the end follow without a sync of their own, since the next batch carries them and a lost line of theirs costs a
repeated question, never a result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import structlog

_COMPACT_BYTES = 4 * 1024 * 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Asked for; whether it was granted is not known."""

    attempt: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Granted:
    """Ours to run, and perhaps running."""

    attempt: str
    token: str
    job: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Over, and its report (JSON text) has to reach the coordinator."""

    attempt: str
    token: str
    report: bytes


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing about it matters any more: its report was accepted, or it is no longer ours."""

    attempt: str


Entry = Claimed | Granted | Ended | Forgotten


class Journal:
    """The journal of one node."""

    def __init__(self, path: Path, *, compact_bytes: int = _COMPACT_BYTES) -> None:
        self._path = path
        self._compact_bytes = compact_bytes
        self._live: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._replay()
        self._file = self._rewrite()

    def left_over(self) -> list[Entry]:
        """What an earlier daemon left behind, oldest first."""
        with self._lock:
            return list(self._live.values())

    def write(self, entries: Iterable[Entry], *, durable: bool) -> None:
        """Append; with `durable` the lines survive a power cut once this returns."""
        with self._lock:
            self._write(entries, durable=durable)

    def _write(self, entries: Iterable[Entry], *, durable: bool) -> None:
        lines = b"".join(self._take(entry) for entry in entries)
        if not lines:
            return
        self._file.write(lines)
        self._file.flush()
        if durable:
            os.fdatasync(self._file.fileno())
        if self._file.tell() > self._compact_bytes + 2 * self._live_bytes():
            self._file.close()
            self._file = self._rewrite()

    def close(self) -> None:
        self._file.close()

    def _take(self, entry: Entry) -> bytes:
        if isinstance(entry, Forgotten):
            self._live.pop(entry.attempt, None)
        else:
            self._live[entry.attempt] = entry
        return _line(entry)

    def _live_bytes(self) -> int:
        return sum(len(entry.report) for entry in self._live.values() if isinstance(entry, Ended))

    def _replay(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                entry = _entry(line)
                if entry is None:
                    # The last line may be half of one: the power went while it was written, so nobody relied on it.
                    log.warning("journal_line_unreadable", path=str(self._path), line=number)
                    continue
                self._take(entry)

    def _rewrite(self) -> IO[bytes]:
        """The file anew with only what is live, put in place at once."""
        draft = self._path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        handle = os.fdopen(descriptor, "ab")
        handle.write(b"".join(_line(entry) for entry in self._live.values()))
        handle.flush()
        os.fsync(handle.fileno())
        draft.replace(self._path)
        _sync_directory(self._path.parent)
        return handle


def _line(entry: Entry) -> bytes:
    if isinstance(entry, Ended):
        # The report is JSON already; it goes in as it is.
        head = orjson.dumps({"is": "ended", "attempt": entry.attempt, "token": entry.token})
        return head[:-1] + b',"report":' + entry.report + b"}\n"
    fields: dict[str, Any]
    if isinstance(entry, Claimed):
        fields = {"is": "claimed", "attempt": entry.attempt, "nonce": entry.nonce}
    elif isinstance(entry, Granted):
        fields = {"is": "granted", "attempt": entry.attempt, "token": entry.token, "job": entry.job}
    else:
        fields = {"is": "forgotten", "attempt": entry.attempt}
    return orjson.dumps(fields) + b"\n"


def _entry(line: bytes) -> Entry | None:
    try:
        data = orjson.loads(line)
        kind = data["is"]
        if kind == "claimed":
            return Claimed(data["attempt"], data["nonce"])
        if kind == "granted":
            return Granted(data["attempt"], data["token"], data["job"])
        if kind == "ended":
            return Ended(data["attempt"], data["token"], orjson.dumps(data["report"]))
        return Forgotten(data["attempt"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
