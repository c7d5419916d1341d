"""Network namespaces for nodes, each with a line of its own to the coordinator's side that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from itertools import count

from tests.services.redis import RedisServer

_numbers = count(1)


class NetworkMissing(RuntimeError):
    """This machine gives us no network namespaces; the text says why."""


def what_is_missing() -> str | None:
    """One reason why nodes cannot have networks of their own here, or None."""
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None if os.geteuid() == 0 else "network namespaces need root"


@dataclass
class Network:
    """A bridge on our side, and a namespace for each node. Rules are set inside the namespaces alone."""

    namespaces: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = what_is_missing()
        if missing is not None:
            raise NetworkMissing(missing)
        # The third byte by process, so that test processes side by side do not meet.
        self._key = f"{os.getpid() % 65536:04x}{next(_numbers):x}"
        self._subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.host = f"{self._subnet}.1"
        self._bridge = f"lsb{self._key}"
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{self.host}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")

    def join(self, name: str) -> list[str]:
        """Make a namespace for a node; the words before a command that is to run in it."""
        number = len(self.namespaces) + 2
        namespace, ours, theirs = f"ls{self._key}-{number}", f"lsv{self._key}{number}", f"lsp{self._key}{number}"
        _run("ip", "netns", "add", namespace)
        self.namespaces[name] = namespace
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", namespace)
        _run("ip", "link", "set", ours, "master", self._bridge)
        _run("ip", "link", "set", ours, "up")
        self._inside(name, "ip", "addr", "add", f"{self._subnet}.{number}/24", "dev", theirs)
        for device in ("lo", theirs):
            self._inside(name, "ip", "link", "set", device, "up")
        return ["ip", "netns", "exec", namespace]

    def let_in(self, redis: RedisServer) -> None:
        """Let this Redis listen on our side of the lines too."""
        with redis.client() as client:
            client.config_set("bind", f"127.0.0.1 {self.host}")

    def cut(self, name: str, port: int, *, one_way: bool = False) -> None:
        """Drop what the node sends to this port; unless `one_way`, what comes back as well."""
        self._inside(name, "iptables", "-I", "OUTPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")
        if not one_way:
            self._inside(name, "iptables", "-I", "INPUT", "-p", "tcp", "--sport", str(port), "-j", "DROP")

    def mend(self, name: str) -> None:
        """Let everything through again."""
        self._inside(name, "iptables", "-F")

    def close(self) -> None:
        for namespace in self.namespaces.values():
            _run("ip", "netns", "delete", namespace)
        self.namespaces.clear()
        _run("ip", "link", "delete", self._bridge)

    def _inside(self, name: str, *words: str) -> None:
        _run("ip", "netns", "exec", self.namespaces[name], *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkMissing(f"{' '.join(words)}: {done.stderr.strip()}")
