"""The seed of the run, and one lab for each file."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.lab import Lab, lab
from tests.faults.row import Row, Try
from tests.faults.stack import Plan

SEED = "LONGSHORE_TEST_SEED"


@pytest.fixture(scope="session")
def seed() -> int:
    """A new one for each run, unless one is given to see a failure again."""
    return int(os.environ.get(SEED) or random.randrange(1_000_000))


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[[Plan], Lab]]:
    """The lab for a plan; rows with the same plan that follow each other share it, and only one is open at a time."""
    with ExitStack() as opened:
        made: dict[Plan, Lab] = {}

        def find(plan: Plan) -> Lab:
            if plan not in made:
                opened.close()
                made.clear()
                made[plan] = opened.enter_context(lab(plan))
            return made[plan]

        yield find


@pytest.fixture
def try_row(labs: Callable[[Plan], Lab], seed: int) -> Try:
    """Tries a row as often as continuous integration has time for; fails with everything that was wrong."""

    def one(row: Row) -> None:
        report = labs(row.plan).try_row(row, count=row.few, seed=seed)
        print(report)
        assert report.wrong + report.late == [], f"{SEED}={seed} shows it again"
        assert report.count >= row.few

    return one
