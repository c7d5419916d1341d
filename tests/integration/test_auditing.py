"""`coordinator audit`, and the dispatcher that seals: with real processes, databases and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from coordinator.dispatcher import Dispatcher
from coordinator.domains.queue import leadership
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import SystemClock
from tests.factories.trail import seal_all, tamper, trail_of, verified, write_rows
from tests.services.processes import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def own(database_url: str) -> Iterator[Database]:
    """A database for this test alone, which commands can be given."""
    made = Database(database_url)
    yield made
    made.dispose()


@pytest.fixture
def run(own: Database, tmp_path: Path) -> Run:
    """Runs one command to its end on that database."""
    given = {
        "LONGSHORE_HOME": str(tmp_path / "home"),
        "LONGSHORE_PASSWORD_COST": "low",
        "LONGSHORE_DATABASE_URL": own.url.render_as_string(hide_password=False),
    }

    def one(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "coordinator", *words]
        return subprocess.run(argv, env=os.environ | given, capture_output=True, text=True, timeout=60, check=False)

    return one


def test_a_whole_trail_is_called_whole_and_led_through_its_exported_head(own: Database, run: Run) -> None:
    write_rows(own, 3)
    head = seal_all(own)

    exported = run("audit", "head")
    assert (exported.returncode, exported.stdout.strip()) == (0, str(head))

    write_rows(own, 2)
    seal_all(own)
    write_rows(own, 1)
    found = run("audit", "verify", "--head", exported.stdout.strip())

    assert found.returncode == 0
    assert "5 rows, whole from 1 to 5, through the exported head 3." in found.stdout
    assert "1 more wait for the dispatcher" in found.stdout


def test_the_first_broken_place_is_named_with_code_1(own: Database, run: Run) -> None:
    write_rows(own, 9)
    seal_all(own)
    tamper(
        own,
        "UPDATE audit_trail SET message = 'never mind' WHERE sequence = 4",
        "DELETE FROM audit_trail WHERE sequence = 7",
    )

    found = run("audit", "verify")
    assert (found.returncode, "row 4 (worker.approved" in found.stdout) == (1, True)

    told = json.loads(run("audit", "verify", "--json").stdout)
    assert (told["ok"], told["rows"]) == (False, 3)
    assert told["problem"].startswith("row 4 ")


def test_a_trail_that_was_cut_is_found_with_the_exported_head_alone(own: Database, run: Run) -> None:
    write_rows(own, 3)
    exported = str(seal_all(own))
    tamper(own, "DELETE FROM audit_trail WHERE sequence = 3")

    assert run("audit", "verify").returncode == 0
    held = run("audit", "verify", "--head", exported)
    assert (held.returncode, "ends at 2, before 3" in held.stdout) == (1, True)


def test_an_empty_trail_is_nothing_to_complain_of(run: Run) -> None:
    found = run("audit", "verify")
    assert (found.returncode, found.stdout.splitlines()[0]) == (0, "The audit trail has no sealed rows.")


def test_what_is_no_head_is_refused_in_words(run: Run) -> None:
    ended = run("audit", "verify", "--head", "3:nonsense")
    assert ended.returncode == 1
    assert "SEQUENCE:HASH" in ended.stderr


def test_what_is_done_from_the_command_line_is_told(own: Database, run: Run) -> None:
    assert run("db", "upgrade").returncode == 0
    made = json.loads(run("admin", "create", "--name", "eve", "--json").stdout)
    token = json.loads(run("enrol-token", "create", "--note", "rack 1", "--json").stdout)

    first, created, enrolment = trail_of(own)
    assert (first["action"], first["actor_name"], first["after"]["name"]) == ("user.created", "coordinator", "admin")
    assert (created["action"], created["resource_id"], created["after"]["role"]) == (
        "user.created",
        made["id"],
        "admin",
    )
    assert created["actor_name"].startswith("command line (")
    assert (enrolment["action"], enrolment["resource_id"]) == ("enrolment_token.created", token["id"])
    assert made["password"] not in str(created)
    assert token["token"] not in str(enrolment)


# ---- the leader


@pytest.fixture
def at_work(resources: Resources, database: Database) -> Iterator[Resources]:
    """Resources in real time, with a dispatcher that leads."""
    database.clock = SystemClock()
    settings = resources.settings.model_copy(update={"sweep_seconds": 0.05, "leader_seconds": 1.0})
    ours = replace(resources, clock=SystemClock(), settings=settings)
    dispatcher = Dispatcher(ours)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield ours
    finally:
        dispatcher.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.usefixtures("at_work")
def test_the_leader_seals_what_is_written_and_logs_each_head(database: Database) -> None:
    with structlog.testing.capture_logs() as logged:
        write_rows(database, 5)
        wait_until(lambda: all(row["sequence"] for row in trail_of(database)), what="a seal on every row")
        write_rows(database, 2)
        wait_until(lambda: all(row["sequence"] for row in trail_of(database)), what="a seal on every row")
        heads = wait_until(lambda: _heads(logged, last=7), what="the last head in the log")

    rows = {row["sequence"]: row["hash"] for row in trail_of(database)}
    assert verified(database) is None
    assert all(rows[int(head.partition(":")[0])] == head.partition(":")[2] for head in heads)


def _heads(logged: list[structlog.typing.EventDict], *, last: int) -> list[str]:
    heads = [str(line["head"]) for line in logged if line["event"] == "audit.sealed"]
    return heads if heads and heads[-1].startswith(f"{last}:") else []


def test_who_does_not_lead_seals_nothing(resources: Resources, database: Database) -> None:
    with database.write() as tx:
        assert leadership.campaign(tx, holder="somebody else", seconds=3600) is not None
    write_rows(database, 2)
    idle = Dispatcher(resources)
    idle._turn()

    assert [row["sequence"] for row in trail_of(database)] == [None, None]
