"""Rows 4, 5 and 9: the broker forgets, dies, hangs, or says too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.faults.forging import Forger
from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_SQLITE
from tests.services.processes import wait_until

if TYPE_CHECKING:
    from tests.faults.lab import Lab

BITE, BITE_SECONDS = 50, 0.25
"""Forged tickets at once, and how long until the next: slowly enough that attempts in all their states are copied."""
API_SECONDS = 1.0
"""What a request may take while the broker is away, on a machine that does other things too."""


def flush(lab: Lab, random: Random, count: int) -> Tally:
    """Half of the time the nodes are held still for a moment before, so that there are tickets to forget."""
    tally = Tally(facts={"tickets_forgotten": 0})
    for number in range(count):
        lab.pause(random.uniform(1.0, 4.0))
        with _held_still(lab, is_on=number % 2 == 0):
            tally.facts["tickets_forgotten"] += _forget_everything(lab)
        tally.count += 1
    if count > 1 and not tally.facts["tickets_forgotten"]:
        tally.wrong.append("no ticket was ever on the broker when it forgot: nothing was tried")
    return tally


@contextmanager
def _held_still(lab: Lab, *, is_on: bool) -> Iterator[None]:
    """Nodes stand still until some ticket lies in a queue, if one comes: each may have all its slots in use."""
    if not is_on:
        yield
        return
    for node in lab.nodes:
        node.freeze()
    try:
        with suppress(TimeoutError):
            wait_until(partial(_waiting, lab), what="a ticket", seconds=lab.stack.tempo.scaled(15))
        yield
    finally:
        for node in lab.nodes:
            node.thaw()


def _waiting(lab: Lab) -> int:
    """How many tickets nobody has taken after a moment."""
    lab.pause(3.0)
    with lab.stack.redis.client() as client:
        return sum(client.llen(f"node.{node.id}") for node in lab.nodes)


def _forget_everything(lab: Lab) -> int:
    """FLUSHALL, and how many tickets went with it."""
    with lab.stack.redis.client() as client, client.pipeline(transaction=True) as together:
        for node in lab.nodes:
            together.llen(f"node.{node.id}")
        together.flushall()
        *lengths, _ = together.execute()
    return sum(lengths)


def break_broker(lab: Lab, random: Random, count: int) -> Tally:
    """Killed and started again, and stopped in mid-air for 5, 40 and 120 s."""
    kinds: tuple[int | None, ...] = (None, 5, 40, 120)
    tally = Tally(facts={"kinds": {"restart": 0, "5": 0, "40": 0, "120": 0}})
    redis = lab.stack.redis
    client = lab.client()
    try:
        for number in range(count):
            kind = kinds[number % len(kinds)]
            lab.breathe(random.uniform(0.3, 1.0))
            if kind is None:
                redis.kill()
                _use_api(lab, client, tally, seconds=lab.stack.tempo.scaled(5))
                redis.restart()
            else:
                redis.pause()
                _use_api(lab, client, tally, seconds=lab.stack.tempo.scaled(kind))
                redis.resume()
            tally.stalled(_until_work_flows(lab, tally))
            tally.count += 1
            tally.facts["kinds"]["restart" if kind is None else str(kind)] += 1
    finally:
        client.close()
    tally.jobs |= set(client.accepted)
    tally.wrong += client.wrong
    return tally


def _use_api(lab: Lab, client: object, tally: Tally, *, seconds: float) -> None:
    """Submit work while the broker is away: it must be accepted at once."""
    from tests.faults.load import Client

    assert isinstance(client, Client)
    for _ in range(5):
        lab.breathe(seconds / 5)
        client.submit(lab.body("sleep 0.1"))
    slow = sorted(answer.seconds for answer in client.answers[-5:])
    tally.facts["slowest_request"] = round(max(slow[-1], tally.facts.get("slowest_request", 0.0)), 3)
    if slow[-2] > API_SECONDS:
        tally.wrong.append(f"requests took {slow[-1]:.2f} and {slow[-2]:.2f} s while the broker was away")


def _until_work_flows(lab: Lab, tally: Tally) -> float:
    job_id = lab.submit("true")
    tally.jobs.add(job_id)
    return lab.until_state([job_id], "succeeded", real_seconds=60)


def forge(lab: Lab, random: Random, count: int) -> Tally:
    """Tickets that come twice or fifty times, out of order, late, to the wrong node, or out of thin air."""
    tally = Tally()
    # One at least has ended before the first copy is made.
    tally.jobs.add(ended := lab.submit("true"))
    lab.until_state([ended], "succeeded", real_seconds=60)
    with Forger(lab.stack, random) as forger:
        while forger.sent < count:
            lab.breathe(BITE_SECONDS)
            forger.spread(min(BITE, count - forger.sent))
        forger.wait_until_read(lab)
    tally.count = forger.sent
    tally.facts = {"kinds": dict(forger.kinds), "claims_over_http": forger.claims}
    tally.wrong += forger.wrong
    return tally


ROWS = (
    Row(
        number=4,
        name="flushall",
        fault="FLUSHALL",
        mechanism="unclaimed tickets are sent again",
        criterion="every job succeeds; none waits more than 20 s",
        inject=flush,
        plan=ON_SQLITE,
        aim=50,
        few=3,
        limit_seconds=20,
        rate=12.0,
    ),
    Row(
        number=5,
        name="broker-away",
        fault="Redis killed and started again; Redis stopped for 5, 40 and 120 s",
        mechanism="work is accepted without the broker; tickets wait in the database; consumers connect again",
        criterion="requests are answered as ever; work flows within 60 s",
        inject=break_broker,
        plan=ON_SQLITE,
        aim=30,
        few=3,
        chunk=8,
        limit_seconds=60,
    ),
    Row(
        number=9,
        name="forged",
        fault="tickets doubled up to fifty times, reordered, replayed, forged, sent to another node",
        mechanism="one claim of an attempt is granted, to the node it is meant for",
        criterion="one computer for each attempt; every other claim is refused",
        inject=forge,
        plan=ON_SQLITE,
        aim=10_000,
        few=400,
        chunk=2_000,
    ),
)
