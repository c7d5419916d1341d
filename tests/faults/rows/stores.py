"""Rows 6, 10 and 13: the database is away, clocks are wrong, disks are full."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING

from tests.faults.failing import SKEW
from tests.faults.reader import moment
from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_POSTGRESQL, ON_SQLITE, WITH_CLOCKS, WITH_DISKS

if TYPE_CHECKING:
    from tests.faults.lab import Lab

HOUR = 3600.0
FENCED = "node_fenced"
LEASE_SECONDS = 30.0


def stop_postgres(lab: Lab, random: Random, count: int) -> Tally:
    tally = Tally(facts={"kinds": {"frozen": 0, "restarted": 0}})
    since = datetime.now(UTC)
    postgres = lab.stack.postgres
    assert postgres is not None
    for number in range(count):
        lab.breathe(random.uniform(0.3, 1.0))
        if number % 2 == 0:
            postgres.pause()
            lab.pause(20)
            postgres.resume()
        else:
            postgres.kill()
            lab.pause(2)
            postgres.restart()
        tally.facts["kinds"]["restarted" if number % 2 else "frozen"] += 1
        tally.count += 1
        _until_answered(lab)
        lab.pause(LEASE_SECONDS)
    return _without_losses(lab, tally, since)


def lock_sqlite(lab: Lab, random: Random, count: int) -> Tally:
    tally = Tally()
    since = datetime.now(UTC)
    path = lab.stack.database_url.removeprefix("sqlite:///")
    for _ in range(count):
        lab.breathe(random.uniform(0.3, 1.0))
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            lab.pause(10)
            holder.execute("ROLLBACK")
        tally.count += 1
        _until_answered(lab)
        lab.pause(LEASE_SECONDS)
    return _without_losses(lab, tally, since)


def set_clocks(lab: Lab, random: Random, count: int) -> Tally:
    """Clocks of nodes and of the coordinator are set an hour ahead or back while jobs run, and jump back."""
    tally = Tally(facts={"kinds": {"worker": 0, "coordinator": 0}})
    known = {row["id"] for row in _lost(lab)}
    for number in range(count):
        package = ("worker", "coordinator")[number % 2]
        file = lab.stack.control / f"{SKEW}{package}"
        for seconds in (random.choice((HOUR, -HOUR)), 0.0):
            file.write_text(str(seconds))
            lab.pause(LEASE_SECONDS)
        tally.facts["kinds"][package] += 1
        tally.count += 1
    tally.wrong += [
        f"attempt {row['id']} was given up, though its node never was away"
        for row in _lost(lab)
        if row["id"] not in known
    ]
    return tally


def fill_disks(lab: Lab, random: Random, count: int) -> Tally:
    """The disk of a node, of the database, and the memory of Redis: full, and then no more."""
    kinds = ("node", "database", "redis")
    tally = Tally(facts={"kinds": dict.fromkeys(kinds, 0)})
    for number in range(count):
        kind = kinds[number % len(kinds)]
        if kind == "redis":
            _fill_redis(lab)
        else:
            name = "store" if kind == "database" else random.choice(lab.nodes).name
            lab.stack.disks[name].fill()
            lab.pause(20)
            lab.stack.disks[name].empty()
        tally.facts["kinds"][kind] += 1
        tally.count += 1
        job_id = _until_answered(lab)
        tally.jobs.add(job_id)
        tally.stalled(lab.until(lambda job=job_id: lab.state(job) == "succeeded", what="work again", real_seconds=90))  # type: ignore[misc]
    return tally


def _fill_redis(lab: Lab) -> None:
    with lab.stack.redis.client() as client:
        client.config_set("maxmemory", 1)
        lab.pause(20)
        client.config_set("maxmemory", 0)


def _until_answered(lab: Lab) -> str:
    """A job that was accepted now: the coordinator works again."""
    with lab.client() as client:
        return client.submit(lab.body("true"))


def _without_losses(lab: Lab, tally: Tally, since: datetime) -> Tally:
    """Nobody was called lost or silent because the one who watches was away."""
    lost = [row for row in _lost(lab) if (moment(row["ended_at"]) or since) > since]
    # A node that hears nothing for two thirds of a lease ends what it runs, and says so: that is its duty.
    tally.facts["ended_by_their_nodes"] = sum(row["reason_code"] == FENCED for row in lost)
    lost = [row for row in lost if row["reason_code"] != FENCED]
    offline = [
        row
        for row in lab.stack.reader.rows("SELECT at FROM events WHERE type = 'worker.offline'")
        if (moment(row["at"]) or since) > since
    ]
    tally.wrong += [f"attempt {row['id']} was given up: {row['reason_code']}" for row in lost]
    tally.wrong += [f"a node was called offline at {row['at']}" for row in offline]
    return tally


def _lost(lab: Lab) -> list[dict[str, object]]:
    return lab.stack.reader.rows("SELECT id, ended_at, reason_code FROM attempts WHERE state = 'lost'")


ROWS = (
    Row(
        number=6,
        name="postgresql",
        fault="PostgreSQL stopped for 20 s, or killed and started again",
        mechanism="requests get 503; leases are not judged before the leader has led for one",
        criterion="503, never 500; the coordinator calls no attempt and no node lost",
        inject=stop_postgres,
        plan=ON_POSTGRESQL,
        aim=20,
        few=2,
    ),
    Row(
        number=6,
        name="sqlite",
        fault="SQLite locked by somebody else for 10 s",
        mechanism="writers wait in line; leases are longer than that",
        criterion="503, never 500; the coordinator calls no attempt and no node lost",
        inject=lock_sqlite,
        plan=ON_SQLITE,
        aim=20,
        few=1,
    ),
    Row(
        number=10,
        name="clocks",
        fault="the clock of nodes, or of the coordinator, set an hour ahead or back, and put right",
        mechanism="nodes tell durations only; the coordinator notices that its clock was set",
        criterion="no attempt is given up",
        inject=set_clocks,
        plan=WITH_CLOCKS,
        aim=10,
        few=2,
    ),
    Row(
        number=13,
        name="disks",
        fault="a node's disk full, the database's disk full, Redis at its memory limit",
        mechanism="nothing is accepted or started that cannot be written down",
        criterion="503 and waiting; work flows again without repair",
        inject=fill_disks,
        plan=WITH_DISKS,
        aim=30,
        few=3,
        rate=2.0,
    ),
)
