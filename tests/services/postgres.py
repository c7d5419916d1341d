"""A private PostgreSQL cluster: made once per machine and version, copied and started in well under a second."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.services import processes
from tests.services.ports import free_port

USER = "postgres"
_names = count(1)


class PostgresMissing(RuntimeError):
    """No server program is on this machine."""


def find_programs() -> Path:
    """The directory with initdb and postgres: the newest of Debian's, else what the PATH has."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version_of)
    if debian:
        return debian[-1].parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise PostgresMissing("no PostgreSQL server found (Debian: apt-get install postgresql)")


def _version_of(program: Path) -> int:
    name = program.parent.parent.name
    return int(name) if name.isdigit() else 0


@dataclass
class PostgresCluster:
    """One running cluster. `durable` turns fsync on, for tests that pull the plug."""

    # The server's user must be able to enter it, which is not so for pytest's own temporary directories.
    directory: Path = field(default_factory=lambda: processes.scratch_directory("postgres"))
    durable: bool = False
    port: int = field(default_factory=free_port)
    programs: Path = field(default_factory=find_programs)

    def __post_init__(self) -> None:
        self.data = self.directory / "data"
        self.password = _copy_template(self.programs, self.data)
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str = "template0") -> str:
        """Make a database as a copy of `template` (nobody may be connected to it); returns its URL."""
        name = name or f"longshore_{os.getpid()}_{next(_names)}"
        self._administer(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, throwing out whoever is connected."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def pause(self) -> None:
        """Freeze the server and all its backends: connections stay open and silent."""
        self._child.send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.send_all(signal.SIGCONT)

    def kill(self) -> None:
        """End everything at once; what a commit promised must survive it when `durable`."""
        self._child.kill()

    def restart(self) -> None:
        """Start again on the same port with the same data, after `kill` or `stop` or instead of them."""
        self.stop()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._child = self._start()

    def stop(self) -> None:
        if self._child.is_running:
            self.resume()
        # SIGINT is the fast shutdown: it does not wait for clients to leave.
        self._child.stop(number=signal.SIGINT, seconds=20)

    def _start(self) -> processes.Child:
        child = processes.start(
            [str(self.programs / "postgres"), "-D", str(self.data), *self._settings()],
            log=self.directory / "postgres.log",
            user=USER,
            cwd=Path("/"),
            death_signal="QUIT",
        )
        child.wait_until(self._answers, what=f"answer on port {self.port}")
        return child

    def _settings(self) -> list[str]:
        switch = "on" if self.durable else "off"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.data),
            "max_connections": "200",
            # Shared memory as files of the data directory: a killed server leaves nothing in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "shared_buffers": "64MB",
            "fsync": switch,
            "full_page_writes": switch,
            "synchronous_commit": switch,
            "timezone": "UTC",
            "log_min_messages": "warning",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


def _copy_template(programs: Path, target: Path) -> str:
    """Put a fresh data directory at `target`; returns the superuser's password."""
    cache = Path(tempfile.gettempdir()) / f"longshore-postgres-{os.getuid()}"
    cache.mkdir(mode=0o711, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise PermissionError(f"{cache} belongs to somebody else")
    name = _program_version(programs)
    with _alone(cache / f"{name}.lock"):
        template, password = cache / name, cache / f"{name}.password"
        if not template.exists():
            _make_template(programs, template, password)
    subprocess.run(["cp", "-a", str(template), str(target)], check=True)
    return password.read_text()


def _make_template(programs: Path, template: Path, password: Path) -> None:
    """Run initdb beside the final place and move it there, so that a broken try leaves nothing half-made."""
    with tempfile.TemporaryDirectory(dir=template.parent, prefix="making-") as scratch:
        workshop = Path(scratch)
        secret = workshop / "password"
        secret.write_text(secrets.token_urlsafe(24))
        for path in (workshop, secret):
            if os.geteuid() == 0:
                shutil.chown(path, USER)
        _initdb(programs, workshop / "data", secret)
        password.touch(mode=0o600)
        password.write_text(secret.read_text())
        (workshop / "data").rename(template)


def _initdb(programs: Path, data: Path, secret: Path) -> None:
    command = [
        *processes.as_user(USER),
        str(programs / "initdb"),
        f"--pgdata={data}",
        f"--username={USER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")


def _program_version(programs: Path) -> str:
    """A directory name for this build of the server: `15.18-0+deb12u1`, with nothing a path could trip over."""
    told = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True)
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in told.stdout.strip())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock at `path`: parallel test processes make one template, not two."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
