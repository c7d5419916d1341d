"""Rows 1 to 3 and 11: processes that die or are held still."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.faults.failing import POINTS, Point
from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_POSTGRESQL, ON_SQLITE

if TYPE_CHECKING:
    from tests.faults.lab import Lab
    from tests.faults.stack import Node

AWAY_SHARE = 0.25
"""How many of the killed daemons come back only when their leases have run out."""
LEASE_SECONDS = 30.0


def kill_daemons(lab: Lab, random: Random, count: int) -> Tally:
    """Any node at any moment, and one time in three a node of which we know that it is in the middle of a job."""
    tally = Tally()
    for number in range(count):
        lab.breathe(random.uniform(0.2, 1.5))
        node = random.choice(lab.nodes) if number % 3 else _one_at_work(lab, tally)
        node.kill()
        if random.random() < AWAY_SHARE:
            lab.pause(LEASE_SECONDS * 1.1)
        node.start()
        tally.count += 1
        lab.until_hears(node)
    return tally


def _one_at_work(lab: Lab, tally: Tally) -> Node:
    job_id = lab.submit("sleep 2")
    tally.jobs.add(job_id)
    lab.until_runs(job_id)
    node_id = lab.attempts(job_id)[-1]["node_id"]
    return next(node for node in lab.nodes if node.id == node_id)


NODE_POINTS = [point for point in POINTS if point.program == "worker"]
COORDINATOR_POINTS = [point for point in POINTS if point.program != "worker" and point.happens != "redrive"]


def kill_nodes_at_points(lab: Lab, random: Random, count: int) -> Tally:
    return _kill_at(NODE_POINTS, lab, random, count)


def kill_coordinator_at_points(lab: Lab, random: Random, count: int) -> Tally:
    return _kill_at(COORDINATOR_POINTS, lab, random, count)


def _kill_at(points: list[Point], lab: Lab, random: Random, count: int) -> Tally:
    """At each of these places, `count` times, in random order."""
    tally = Tally(facts={"kills": {point.name: 0 for point in points}})
    todo = [point for point in points for _ in range(count)]
    random.shuffle(todo)
    for point in todo:
        lab.breathe(random.uniform(0.0, 0.5))
        if point.happens == "lead":
            _end_the_leader(lab)
        if point.happens == "cancel":
            _begin_a_cancel(lab, tally, point)
        if not lab.strike(point.name):
            tally.wrong.append(f"nobody came by {point.name}: it was not tried")
            continue
        tally.count += 1
        tally.facts["kills"][point.name] += 1
        for part in lab.restart_dead():
            if part in lab.nodes:
                lab.until_hears(next(node for node in lab.nodes if node is part))
    return tally


def _end_the_leader(lab: Lab) -> None:
    """So that another one takes the lead; the dead one stays away until then."""
    (row,) = lab.stack.reader.rows("SELECT holder FROM leaders WHERE name = 'dispatcher'")
    pid = int(row["holder"].split(":")[1])
    for part in lab.stack.dispatchers:
        if part.is_running and part.pid == pid:
            part.kill()


def _begin_a_cancel(lab: Lab, tally: Tally, point: Point) -> None:
    """A job that runs; the one who cancels it is a client whose request dies with the coordinator."""
    job_id = lab.submit("sleep 60", priority="critical")
    tally.jobs.add(job_id)
    lab.until_runs(job_id)
    lab.cancel_soon(job_id)


def freeze_daemons(lab: Lab, random: Random, count: int) -> Tally:
    """SIGSTOP to a daemon in the middle of jobs; what it does once it goes on must count for nothing."""
    tally = Tally(facts={"frozen": {15: 0, 45: 0, 120: 0}})
    for number in range(count):
        node = random.choice(lab.nodes)
        real_seconds = (45, 15, 120)[number % 3]
        job_id = lab.submit("sleep 4", placement={"worker_id": node.id})
        tally.jobs.add(job_id)
        run = lab.until_runs(job_id)
        node.freeze()
        lab.pause(real_seconds)
        node.thaw()
        tally.count += 1
        tally.facts["frozen"][real_seconds] += 1
        lab.until_hears(node)
        if real_seconds > LEASE_SECONDS and not lab.ledger.wait_gone(run, seconds=lab.stack.tempo.within(15)):
            tally.wrong.append(f"the computer of job {job_id} was still there 15 s after its daemon went on")
    return tally


ROWS = (
    Row(
        number=1,
        name="daemons",
        fault="kill -9 of a node's daemon, at any moment",
        mechanism="leases, journal, and the report of the next daemon",
        criterion="every job succeeds; it runs again within 45 s",
        inject=kill_daemons,
        plan=ON_SQLITE,
        aim=200,
        few=3,
        limit_seconds=45,
    ),
    Row(
        number=2,
        name="tickets",
        fault="kill -9 of a node between taking a ticket and having its attempt, at each failpoint",
        mechanism="an unclaimed ticket is sent again; a claim is in the journal before it is made",
        criterion="every job succeeds",
        inject=kill_nodes_at_points,
        places=len(NODE_POINTS),
        plan=ON_SQLITE,
        aim=20,
        few=1,
        chunk=2,
        limit_seconds=45,
    ),
    Row(
        number=3,
        name="failpoints",
        fault="kill -9 of a coordinator process in the middle of a step, at each failpoint",
        mechanism="one transaction for each step; what follows a commit can be repeated",
        criterion="the same key gives the same job; every job succeeds",
        inject=kill_coordinator_at_points,
        places=len(COORDINATOR_POINTS),
        plan=ON_POSTGRESQL,
        aim=20,
        few=1,
        chunk=2,
        limit_seconds=45,
    ),
    Row(
        number=11,
        name="frozen",
        fault="SIGSTOP of a node's daemon for 15, 45 and 120 s, then SIGCONT",
        mechanism="leases, and tokens that are good for the current attempt alone",
        criterion="after a lease the late result counts for nothing, and the computer goes within 15 s",
        inject=freeze_daemons,
        plan=ON_SQLITE,
        aim=50,
        few=1,
        limit_seconds=None,
    ),
)
