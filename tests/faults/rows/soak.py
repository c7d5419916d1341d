"""Row 18: everything at once, for long."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import psutil

from tests.faults.row import Row, Tally
from tests.faults.rows import broker, people, processes
from tests.faults.rows.plans import ON_POSTGRESQL

if TYPE_CHECKING:
    from tests.faults.lab import Lab

Mishap = Callable[["Lab", Random, int], Tally]

MISHAPS: tuple[Mishap, ...] = (
    processes.kill_daemons,
    processes.freeze_daemons,
    broker.flush,
    broker.forge,
    people.cancel_storm,
    people.redrive,
)
MANY: dict[Mishap, int] = {broker.forge: 100, people.cancel_storm: 10}
GROWTH = 1.1
LONG_ENOUGH = 100
"""Mishaps before growth of memory means anything: it grows while things are done for the first time."""


def soak(lab: Lab, random: Random, count: int) -> Tally:
    """One mishap after the other, of every kind that a stack without its own network can have."""
    tally = Tally(facts={"mishaps": {}})
    before = _memory(lab)
    for _ in range(count):
        mishap = random.choice(MISHAPS)
        told = mishap(lab, random, MANY.get(mishap, 1))
        tally.jobs |= told.jobs
        tally.doomed |= told.doomed
        tally.wrong += told.wrong
        name = mishap.__name__
        tally.facts["mishaps"][name] = tally.facts["mishaps"].get(name, 0) + told.count
        tally.count += 1
    tally.facts["growth"] = round(_memory(lab) / before, 3)
    if count >= LONG_ENOUGH and tally.facts["growth"] > GROWTH:
        tally.wrong.append(f"serve and dispatch take {tally.facts['growth']} times the memory they took before")
    return tally


def _memory(lab: Lab) -> float:
    """Resident bytes of the processes that no mishap of this row kills."""
    total = 0
    for part in (lab.stack.serve, *lab.stack.dispatchers):
        process = psutil.Process(part.pid)
        total += sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    return float(total)


ROWS = (
    Row(
        number=18,
        name="soak",
        fault="a random mix of kills, freezes, FLUSHALL, forged tickets, cancels and redrives",
        mechanism="all of them",
        criterion="all invariants; memory grows by less than a tenth over a hundred mishaps",
        inject=soak,
        plan=ON_POSTGRESQL,
        aim=2000,
        few=2,
        chunk=100,
    ),
)
