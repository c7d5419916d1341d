"""What follows from the command line of `coordinator up`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import load_settings
from coordinator.up.plan import Options, Plan, make_plan


def _plan(home: Path, options: Options | None = None, **settings: Any) -> Plan:
    return make_plan(load_settings(home=home, **settings), options or Options())


def test_sqlite_gets_one_web_process(tmp_path: Path) -> None:
    assert _plan(tmp_path, web_workers=4).web_workers == 1


def test_postgresql_gets_as_many_as_the_settings_say(tmp_path: Path) -> None:
    assert _plan(tmp_path, database_url="postgresql://somewhere/x", web_workers=4).web_workers == 4


@pytest.mark.parametrize(
    ("bind", "allowed"),
    [("127.0.0.1:9000", True), ("[::1]:9000", True), ("0.0.0.0:9000", False), ("127.0.0.1:1,10.0.0.1:2", False)],
)
def test_only_on_loopback_may_nodes_do_without_a_sandbox(tmp_path: Path, bind: str, allowed: bool) -> None:
    assert _plan(tmp_path, bind=bind).wish.allow_unsandboxed is allowed


def test_nodes_are_named_after_the_host_and_numbered(tmp_path: Path) -> None:
    plan = _plan(tmp_path, Options(nodes=2))

    assert plan.node_names == (f"{socket.gethostname()}-1", f"{socket.gethostname()}-2")


def test_nodes_stop_before_the_dispatcher_and_redis_last(tmp_path: Path) -> None:
    order = _plan(tmp_path, Options(nodes=2)).stop_order

    assert order[0] == ("node-1", "node-2")
    assert order[-1] == ("redis",)


def test_without_a_flower_port_there_is_no_flower(tmp_path: Path) -> None:
    assert _plan(tmp_path, Options(flower_port=None)).flower is None
