"""Redis as it is run in earnest: behind TLS, and watched by a Sentinel that puts a replica in a dead master's place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import redis

from tests.services import processes
from tests.services.certificates import Certificates, make_certificates
from tests.services.ports import free_port
from tests.services.redis import RedisServer, find_server

MASTER = "main"


class TlsRedis(RedisServer):
    """A server that speaks TLS alone, with a certificate that only our own authority vouches for."""

    certificates: Certificates

    def url(self, database: int = 0) -> str:
        return f"{self.url_without_authority(database)}?ssl_ca_certs={self.certificates.authority}"

    def url_without_authority(self, database: int = 0) -> str:
        """For a client that trusts whom the system trusts, and therefore not us."""
        return f"rediss://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def _settings(self) -> str:
        self.certificates = made = make_certificates(self.directory)
        lines = [
            "port 0",
            f"tls-port {self.port}",
            f"tls-ca-cert-file {made.authority}",
            f"tls-cert-file {made.certificate}",
            f"tls-key-file {made.key}",
            "tls-auth-clients no",
        ]
        return super()._settings() + "\n".join(lines) + "\n"

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Replica(RedisServer):
    """A server that has what another one has; it knows that one's password and uses the same."""

    master: RedisServer

    @classmethod
    def of(cls, master: RedisServer) -> Replica:
        replica = cls(password=master.password)
        with replica.client() as client:
            client.config_set("masterauth", master.password)
            client.replicaof("127.0.0.1", master.port)
            processes.wait_until(
                lambda: client.info("replication")["master_link_status"] == "up", what="link to the master"
            )
        return replica


@dataclass
class SentinelSite:
    """A master, a replica, and one Sentinel that decides alone and soon."""

    directory: Path = field(default_factory=lambda: processes.scratch_directory("sentinel"))
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.master = RedisServer()
        with self.master.client() as client:
            # Should it ever come back, then as a replica of the other.
            client.config_set("masterauth", self.master.password)
        self.replica = Replica.of(self.master)
        configuration = self.directory / "sentinel.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._settings())
        argv = [find_server(), str(configuration), "--sentinel"]
        self._child = processes.start(argv, log=self.directory / "sentinel.log")
        self._child.wait_until(self._knows_replica, what="a Sentinel that knows master and replica")

    def url(self, database: int = 0) -> str:
        login = f":{quote(self.master.password, safe='')}@"
        return f"sentinel://{login}127.0.0.1:{self.port}/{database}?master={MASTER}"

    def fail_over(self) -> None:
        """Kill the master; returns when the replica is the master."""
        self.master.kill()
        self._child.wait_until(
            lambda: self._ask("get-master-addr-by-name")[1] == str(self.replica.port), what="another master"
        )
        with self.replica.client() as client:
            processes.wait_until(lambda: client.info("replication")["role"] == "master", what="promotion")

    def stop(self) -> None:
        self._child.stop()
        self.master.stop()
        self.replica.stop()

    def _settings(self) -> str:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self.directory}",
            "daemonize no",
            "set-proc-title no",
            f"sentinel monitor {MASTER} 127.0.0.1 {self.master.port} 1",
            f"sentinel auth-pass {MASTER} {self.master.password}",
            f"sentinel down-after-milliseconds {MASTER} 500",
            f"sentinel failover-timeout {MASTER} 3000",
        ]
        return "\n".join(lines) + "\n"

    def _knows_replica(self) -> bool:
        try:
            return bool(self._ask("replicas"))
        except redis.RedisError:
            return False

    def _ask(self, *words: str) -> list[str]:
        with redis.Redis(port=self.port, decode_responses=True) as sentinel:
            answer: list[str] = sentinel.execute_command("SENTINEL", *words, MASTER)
            return answer
