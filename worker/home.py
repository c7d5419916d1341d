"""What a node keeps on its disk: who it is, and that only one daemon is at home."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from shared.ids import new_id


class HomeError(Exception):
    """The home cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is to which coordinator. The credential is the only copy there is."""

    id: str
    coordinator_url: str
    name: str
    credential: str = field(repr=False)


class Home:
    """The node's directory (mode 0700). Holding it open keeps every other daemon out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def scratch(self) -> Path:
        """For files on their way between a computer and the coordinator, and what running commands printed."""
        return self.path / "scratch"

    def ask_drain_within(self, seconds: float | None) -> None:
        """Leave word for the daemon of how long a drain may take; a signal cannot say it."""
        self._drain_file.write_text("" if seconds is None else str(seconds))

    def drain_within(self) -> float | None:
        """The word that was left."""
        try:
            text = self._drain_file.read_text()
            self._drain_file.unlink()
            return float(text) if text else None
        except (FileNotFoundError, ValueError):
            return None

    def open(self) -> Self:
        """Take the home, or say who has it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        handle = self._pid_file.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise HomeError(f"{self.path} is in use by the node with process id {self.running_pid() or '?'}") from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n{secrets.token_hex(8)}\n")
        handle.flush()
        self._lock = handle
        return self

    def close(self) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    @property
    def installation(self) -> str:
        """What this home calls itself, before and beyond any enrolment: the name on its computers."""
        path = self.path / "installation"
        if not path.exists():
            path.write_text(f"{new_id()}\n")
        return path.read_text().strip()

    def running_pid(self) -> int | None:
        """The process id of the daemon that has this home now; None when nobody has."""
        told = self._told_by_holder()
        return int(told[0]) if told and told[0].isdigit() else None

    def running_since(self) -> str | None:
        """A word that every start of a daemon chooses anew; None when none runs."""
        told = self._told_by_holder()
        return told[1] if len(told) > 1 else None

    def _told_by_holder(self) -> list[str]:
        try:
            with self._pid_file.open() as handle:
                # A lock that can be had means that whatever number the file holds is of a process that is gone.
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return []
        except FileNotFoundError:
            return []
        except BlockingIOError:
            return self._pid_file.read_text().split()

    def identity(self) -> Identity | None:
        """Who this node is, once it has enrolled."""
        try:
            return Identity(**json.loads(self._identity_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise HomeError(f"{self._identity_file} cannot be read: {error}") from error

    def remember(self, identity: Identity) -> None:
        """Keep the identity, whole or not at all, readable by its owner alone."""
        draft = self._identity_file.with_suffix(f".{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(asdict(identity), handle, indent=2)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(self._identity_file)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _pid_file(self) -> Path:
        return self.path / "daemon.pid"

    @property
    def _drain_file(self) -> Path:
        return self.path / "drain"

    @property
    def _identity_file(self) -> Path:
        return self.path / "identity.json"
