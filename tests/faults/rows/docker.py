"""Rows 1 and 7 where computers are containers: they outlive the daemons of their nodes, and dockerd may die as well."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_DOCKER

if TYPE_CHECKING:
    from tests.faults.lab import Lab


FENCE_SECONDS = 20.0
"""Two thirds of a lease: a daemon that comes back later ends what runs."""


def adopt(lab: Lab, random: Random, count: int) -> Tally:
    """kill -9 of a daemon that comes back at once: its jobs go on where they are."""
    tally = Tally(facts={"adopted": 0, "run_again": 0, "back_too_late": 0})
    for _ in range(count):
        job_id = lab.submit(f"sleep {random.uniform(4, 8):.1f}")
        tally.jobs.add(job_id)
        lab.until_runs(job_id)
        node_id = lab.attempts(job_id)[-1]["node_id"]
        node = next(node for node in lab.nodes if node.id == node_id)
        # What has only just begun is not in the journal yet, and is told lost.
        lab.breathe(random.uniform(1, 2))
        node.kill()
        node.start()
        tally.count += 1
        came_back = lab.until_hears(node)
        lab.until_state([job_id], "succeeded", real_seconds=120)
        first, *more = lab.attempts(job_id)
        if came_back > FENCE_SECONDS:
            # On a machine that is this slow it was right to give the job up.
            tally.facts["back_too_late"] += 1
            continue
        tally.facts["run_again" if more else "adopted"] += 1
        if more:
            tally.wrong.append(f"job {job_id} ran again ({first['reason_code']}), though its daemon was back at once")
    return tally


def restart_dockerd(lab: Lab, random: Random, count: int) -> Tally:
    """dockerd is killed, and comes back at once or after 90 s."""
    tally = Tally(facts={"kinds": {"at once": 0, "90 s": 0}})
    daemon = lab.stack.docker
    assert daemon is not None
    for number in range(count):
        job_id = lab.submit("sleep 3")
        tally.jobs.add(job_id)
        lab.until_runs(job_id)
        lab.breathe(random.uniform(0, 1))
        daemon.kill()
        if number % 2:
            lab.pause(90)
        daemon.restart()
        tally.facts["kinds"]["90 s" if number % 2 else "at once"] += 1
        tally.count += 1
        for node in lab.nodes:
            lab.until_hears(node)
        lab.until_state([job_id], "succeeded", real_seconds=300)
    charged = lab.stack.reader.rows("SELECT id FROM jobs WHERE fail_count > 0")
    tally.wrong += [f"job {row['id']} was charged with a failure of dockerd" for row in charged]
    return tally


ROWS = (
    Row(
        number=1,
        name="adoption",
        fault="kill -9 of a node's daemon whose jobs run in containers, started again at once",
        mechanism="a keeper holds the streams; the next daemon goes on with what the journal names",
        criterion="the same attempt goes on to its end",
        inject=adopt,
        plan=ON_DOCKER,
        aim=50,
        few=1,
        rate=0.0,
    ),
    Row(
        number=7,
        name="dockerd",
        fault="kill -9 of dockerd, back at once or after 90 s",
        mechanism="a lost computer is no failure of the job",
        criterion="no failure is charged; every job succeeds",
        inject=restart_dockerd,
        plan=ON_DOCKER,
        aim=20,
        few=1,
        rate=0.5,
    ),
)
