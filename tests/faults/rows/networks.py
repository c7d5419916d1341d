"""Rows 8 and 17: nodes that are cut off from the coordinator, from the broker, or from both."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.faults.ledger import Run
from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_NETWORKS

if TYPE_CHECKING:
    from tests.faults.lab import Lab
    from tests.faults.stack import Node

LEASE_SECONDS = 30.0
SHORT_SECONDS = 10
LENGTHS = (60, SHORT_SECONDS, 25, 300)
DEAF_SECONDS = 120.0


def partition(lab: Lab, random: Random, count: int) -> Tally:
    """Each time a job runs on the node that is cut off; the ledger is always within its reach."""
    tally = Tally(facts={"seconds": {str(seconds): 0 for seconds in sorted(LENGTHS)}, "from": {}})
    for number in range(count):
        seconds = LENGTHS[number % len(LENGTHS)]
        # The first cut of all is one that a node must notice.
        whom = random.choice(("coordinator", "both") if number == 0 else ("coordinator", "redis", "both"))
        one_way = random.random() < 0.3
        length = lab.stack.tempo.scaled(seconds) + 4
        job_id = lab.submit(f"sleep {length:.1f}")
        tally.jobs.add(job_id)
        run = lab.until_runs(job_id)
        node = next(node for node in lab.nodes if node.id == lab.attempts(job_id)[-1]["node_id"])
        _cut(lab, node, whom, one_way=one_way)
        lab.pause(seconds)
        assert lab.stack.network is not None
        lab.stack.network.mend(node.name)
        lab.until_hears(node)
        _judge(lab, tally, run, seconds=seconds, whom=whom)
        kind = f"{whom}{' one way' if one_way else ''}"
        tally.facts["seconds"][str(seconds)] += 1
        tally.facts["from"][kind] = tally.facts["from"].get(kind, 0) + 1
        tally.count += 1
    tally.wrong += _overlaps(lab)
    return tally


def _cut(lab: Lab, node: Node, whom: str, *, one_way: bool) -> None:
    network = lab.stack.network
    assert network is not None
    ports = {"coordinator": int(lab.stack.url.rpartition(":")[2]), "redis": lab.stack.redis.port}
    for name, port in ports.items():
        if whom in (name, "both"):
            network.cut(node.name, port, one_way=one_way)


def _judge(lab: Lab, tally: Tally, run: Run, *, seconds: int, whom: str) -> None:
    """A short cut costs nothing; one that is longer than a lease ends what ran."""
    attempts = lab.attempts(run.job)
    if (seconds == SHORT_SECONDS or whom == "redis") and len(attempts) > 1:
        tally.wrong.append(f"{seconds} s without {whom} made job {run.job} run again")
    if seconds > LEASE_SECONDS and whom != "redis" and run.ended is not None:
        tally.wrong.append(f"job {run.job} ran to its end on a node that had been cut off for {seconds} s")


def _overlaps(lab: Lab) -> list[str]:
    """No attempt may begin before the computer of the one before it is gone: every node here could fence itself."""
    last: dict[str, Run] = {}
    wrong = []
    for run in sorted(lab.ledger.runs, key=lambda run: run.started):
        before = last.get(run.job)
        if before is not None and (before.gone is None or before.gone > run.started):
            over = (before.gone or run.started) - run.started
            wrong.append(f"attempt {run.attempt} of job {run.job} began {over:.2f} s before {before.attempt} was gone")
        last[run.job] = run
    return wrong


def deafen(lab: Lab, random: Random, count: int) -> Tally:
    """Redis stops for 7 s under flow, or the node's packets to Redis alone get lost for good."""
    tally = Tally(facts={"kinds": {"stopped": 0, "cut": 0}})
    for number in range(count):
        node = random.choice(lab.nodes)
        if number % 2 == 0:
            lab.stack.redis.pause()
            # Not scaled: what it runs into are time limits of libraries.
            lab.breathe(7)
            lab.stack.redis.resume()
        else:
            _cut(lab, node, "redis", one_way=False)
            found_out = lab.until(partial(_is_doubted, lab, node), what="a doubt", real_seconds=DEAF_SECONDS)
            tally.facts["slowest_doubt_seconds"] = max(found_out, tally.facts.get("slowest_doubt_seconds", 0.0))
            assert lab.stack.network is not None
            lab.stack.network.mend(node.name)
        tally.facts["kinds"]["cut" if number % 2 else "stopped"] += 1
        tally.count += 1
        lab.until_hears(node)
        job_id = lab.submit("true", placement={"worker_id": node.id})
        tally.jobs.add(job_id)
        tally.stalled(lab.until_state([job_id], "succeeded", real_seconds=120))
    return tally


def _is_doubted(lab: Lab, node: Node) -> bool:
    told = lab.stack.get(f"/api/v1/workers/{node.id}")
    return bool(told["status"] == "error" or told["queue_ok"] is False)


ROWS = (
    Row(
        number=8,
        name="partitions",
        fault="a node cut off from coordinator, Redis or both for 10, 25, 60 and 300 s, one way or both",
        mechanism="a node ends what it runs after two thirds of a lease without an answer",
        criterion="10 s: nothing runs again; 60 s and more: a computer is gone before the next one starts",
        inject=partition,
        plan=ON_NETWORKS,
        aim=20,
        few=2,
        chunk=4,
    ),
    Row(
        number=17,
        name="deaf",
        fault="Redis stopped for 7 s under flow; the packets of a node to Redis alone lost",
        mechanism="canaries on each queue; a consumer that does not hear them is started anew",
        criterion="found out within 120 s; the node works again",
        inject=deafen,
        plan=ON_NETWORKS,
        aim=20,
        few=2,
        chunk=4,
    ),
)
