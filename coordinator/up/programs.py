"""The programs of `coordinator up`, as commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from coordinator.config import Settings, inherited_environment
from coordinator.up import ports
from coordinator.up.broker import Embedded
from coordinator.up.child import Command, Program
from coordinator.up.kept import write_secret
from coordinator.up.nodes import CREDENTIAL_VOID, LocalNode, program
from coordinator.up.plan import DISPATCH, FLOWER, REDIS, SERVE, Plan

FLOWER_TICKETS = 10_000


def redis(settings: Settings, embedded: Embedded) -> Program:
    """The embedded server; its password is in the file."""

    def make() -> Command:
        return Command([embedded.program, str(embedded.config)], inherited_environment())

    return Program(REDIS, make, _log(settings, REDIS), stop_seconds=3)


def serve(settings: Settings, plan: Plan) -> Program:
    """The web tier."""
    words = ["serve", "--web-workers", str(plan.web_workers)]
    for bind in plan.binds:
        words += ["--bind", bind]
    return Program(SERVE, _coordinator(settings, words), _log(settings, SERVE), stop_seconds=6)


def dispatch(settings: Settings) -> Program:
    """The dispatcher."""
    return Program(DISPATCH, _coordinator(settings, ["dispatch"]), _log(settings, DISPATCH), stop_seconds=3)


def flower(settings: Settings, address: str) -> Program:
    """Flower: looks only, on loopback, behind the admin's login."""
    config = settings.home / "flower" / "flowerconfig.py"

    def make() -> Command:
        write_secret(config, _flower_config(settings, address))
        environment = inherited_environment(without=("secret_key", "master_key", "old_master_keys", "admin_password"))
        environment |= {"CELERY_BROKER_URL": settings.redis_url}
        return Command([sys.executable, "-m", "celery", "flower", f"--conf={config}"], environment)

    return Program(FLOWER, make, _log(settings, FLOWER), stop_seconds=3)


def node(settings: Settings, name: str, local: LocalNode) -> Program:
    """One node."""
    log = _log(settings, name)
    return Program(name, local.command, log, stop_seconds=10, final_codes=frozenset({CREDENTIAL_VOID}))


def _coordinator(settings: Settings, words: list[str]) -> Callable[[], Command]:
    def make() -> Command:
        # The embedded Redis' address is found through the home.
        return Command([*program("coordinator"), *words, "--home", str(settings.home)], inherited_environment())

    return make


def _flower_config(settings: Settings, address: str) -> str:
    host, port = ports.split(address)
    login = f"{settings.admin_name}:{settings.admin_password.get_secret_value()}"
    options = {
        "address": host,
        "port": port,
        "basic_auth": [login],
        "read_only": True,
        "max_tasks": FLOWER_TICKETS,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in options.items())


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"
