"""What `coordinator up` tells when it is ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coordinator.up.telling import NodeTold, Told, lines

NODE = NodeTold(
    id="n1",
    name="host-1",
    status="online",
    is_approved=True,
    driver="process",
    isolation="bwrap",
    reason="process: bubblewrap works here",
    slots=4,
    pid=7,
)
TOLD = Told(
    url="http://127.0.0.1:9000",
    binds=("127.0.0.1:9000",),
    swagger_ui="http://127.0.0.1:9000/swagger-ui/",
    flower=None,
    home=Path("/h"),
    database="sqlite:////h/longshore.db",
    redis="127.0.0.1:1 (embedded)",
    storage="file:///h/files",
    admin="admin",
    admin_password_file=Path("/h/admin_password"),
    logs=Path("/h/logs"),
    nodes=(NODE,),
)


def _text(told: Told) -> str:
    return "\n".join(lines(told))


def test_it_says_which_driver_a_node_uses_and_why() -> None:
    assert "host-1: online, 4 slots, isolation bwrap" in _text(TOLD)
    assert "process: bubblewrap works here" in _text(TOLD)


def test_it_warns_when_jobs_run_without_isolation() -> None:
    bare = replace(TOLD, nodes=(replace(NODE, isolation="none"),))

    assert "WARNING: host-1 runs jobs WITHOUT ISOLATION" in _text(bare)
    assert "WARNING" not in _text(TOLD)


def test_it_says_how_to_approve_a_node_that_waits() -> None:
    pending = replace(TOLD, nodes=(replace(NODE, is_approved=False, status="pending"),))

    assert "/api/v1/admin/workers/n1/approve" in _text(pending)


def test_it_names_the_file_of_the_password_and_never_the_password() -> None:
    assert "admin, password in /h/admin_password" in _text(TOLD)
    assert "with the password you gave" in _text(replace(TOLD, admin_password_file=None))


def test_programs_get_the_same_as_one_value() -> None:
    value = TOLD.to_json()

    assert (value["event"], value["url"]) == ("ready", "http://127.0.0.1:9000")
