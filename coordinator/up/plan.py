"""What `coordinator up` is asked for, and what follows from it without asking anything of the machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from coordinator.config import Settings
from coordinator.up import ports
from coordinator.up.nodes import NodeWish

FLOWER_HOST = "127.0.0.1"
FLOWER_PORT = 5555

REDIS, SERVE, DISPATCH, FLOWER = "redis", "serve", "dispatch", "flower"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `coordinator up`, settings apart."""

    nodes: int = 1
    driver: str | None = None
    slots: int | None = None
    flower_port: int | None = FLOWER_PORT
    """None for no Flower."""
    require_approval: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Names, addresses and numbers of what will run."""

    binds: tuple[str, ...]
    url: str
    flower: str | None
    web_workers: int
    node_names: tuple[str, ...]
    wish: NodeWish

    @property
    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        """Nodes first, so that they can hand back what they run; the broker last."""
        return (self.node_programs, (DISPATCH, FLOWER), (SERVE,), (REDIS,))

    @property
    def node_programs(self) -> tuple[str, ...]:
        return tuple(f"node-{number}" for number in range(1, len(self.node_names) + 1))


def make_plan(settings: Settings, options: Options) -> Plan:
    """What will run where. Unsandboxed computers are a choice of this machine's user alone, hence loopback only."""
    host = socket.gethostname()
    is_sqlite = settings.database_url.startswith("sqlite")
    return Plan(
        binds=settings.binds,
        url=ports.url_of(settings.binds[0]),
        flower=f"{FLOWER_HOST}:{options.flower_port}" if options.flower_port else None,
        web_workers=1 if is_sqlite else settings.web_workers,
        node_names=tuple(f"{host}-{number}" for number in range(1, options.nodes + 1)),
        wish=NodeWish(options.driver, options.slots, allow_unsandboxed=settings.is_loopback),
    )
