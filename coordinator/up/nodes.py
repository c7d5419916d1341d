"""The nodes that `coordinator up` starts: ordinary nodes with a home each, enrolled and approved like any other."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.config import inherited_environment
from coordinator.domains.fleet import service as fleet
from coordinator.domains.fleet.states import NodeStatus
from coordinator.resources import Resources
from coordinator.up.child import Command
from coordinator.up.kept import write_secret
from shared.errors import NotFound, Unavailable

TOKEN_SECONDS = 900
CREDENTIAL_VOID = 3
"""With this exit code a node says that an admin has removed it: starting it again would be no use."""

NOT_FOR_NODES = (
    "database_url",
    "redis_url",
    "node_redis_url",
    "storage_url",
    "storage_access_key",
    "storage_secret_key",
    "secret_key",
    "master_key",
    "old_master_keys",
    "admin_password",
    "bind",
)
"""Settings of the coordinator that a node, and what runs below it, has no business with."""
SET_BY_US = ("home", "coordinator_url", "enrol_token", "node_name", "driver", "slots")


@dataclass(frozen=True, slots=True)
class NodeWish:
    """What the user asked of the nodes."""

    driver: str | None = None
    slots: int | None = None
    allow_unsandboxed: bool = False


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node of this machine."""

    name: str
    home: Path
    coordinator_url: str
    wish: NodeWish
    resources: Resources

    @property
    def identity_file(self) -> Path:
        """Written by the node once it has enrolled."""
        return self.home / "node" / "identity.json"

    @property
    def id(self) -> str | None:
        """Who it is; None until it has enrolled."""
        identity = self._identity()
        return str(identity["id"]) if identity else None

    def is_known(self) -> bool:
        """Whether it can go on as who it is."""
        return self._usable_identity() is not None

    def command(self) -> Command:
        """How to start it; with a fresh enrolment token as long as it is nobody."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = inherited_environment(without=(*NOT_FOR_NODES, *SET_BY_US))
        identity = self._usable_identity()
        if identity is None:
            environment["LONGSHORE_ENROL_TOKEN_FILE"] = str(self._put_token())
        elif identity["coordinator_url"] != self.coordinator_url:
            # The same coordinator on another port: the credential is still good.
            moved = identity | {"coordinator_url": self.coordinator_url}
            write_secret(self.identity_file, json.dumps(moved, indent=2))
        return Command(self._arguments(), environment)

    def approve(self, admin_id: str) -> None:
        """Approve it unless somebody has decided on it before."""
        node_id = self.id
        if node_id is None:
            raise Unavailable(f"{self.name} has not enrolled")
        with self.resources.database.write() as tx:
            found = fleet.get(tx, node_id)
            if not found.is_approved and found.approved_at is None:
                fleet.approve(tx, self.resources, node_id, is_approved=True, by=admin_id)

    def seen(self) -> Any | None:
        """The coordinator's row of it; None until it has enrolled."""
        node_id = self.id
        if node_id is None:
            return None
        with self.resources.database.read() as tx:
            return fleet.get(tx, node_id)

    def _arguments(self) -> list[str]:
        words = [*program("worker"), "start", "--coordinator", self.coordinator_url, "--name", self.name]
        words += ["--home", str(self.home)]
        words += ["--driver", self.wish.driver] if self.wish.driver else []
        words += ["--slots", str(self.wish.slots)] if self.wish.slots else []
        words += ["--allow-unsandboxed"] if self.wish.allow_unsandboxed else []
        return words

    def _usable_identity(self) -> dict[str, Any] | None:
        """The identity on the disk, unless this coordinator does not know it or has removed it."""
        identity = self._identity()
        if identity is None:
            return None
        try:
            with self.resources.database.read() as tx:
                found = fleet.get(tx, str(identity["id"]))
        except NotFound:
            found = None
        if found is not None and found.status != NodeStatus.removed:
            return identity
        self.identity_file.replace(self.identity_file.with_name("identity.json.void"))
        return None

    def _identity(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.identity_file.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Unavailable(f"{self.identity_file} cannot be read ({error}); remove it to enrol anew") from error
        return found

    def _put_token(self) -> Path:
        resources = self.resources
        with resources.database.write() as tx:
            token, _ = fleet.create_token(
                tx, resources.settings, by=None, note=f"coordinator up: {self.name}", group=None, seconds=TOKEN_SECONDS
            )
        path = self.home / "enrol-token"
        write_secret(path, token + "\n")
        return path


def program(name: str) -> list[str]:
    """How to start one of our commands with this very interpreter."""
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        raise Unavailable(f"the command {name} is not beside {sys.executable}: install Longshore into that environment")
    return [sys.executable, str(script)]
