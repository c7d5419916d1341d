"""The faults are seen: with a rule of the queue layer turned off, what checks it must say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.lab import lab
from tests.faults.row import Row
from tests.faults.rows import ROWS

pytestmark = pytest.mark.slow

BY_NAME = {row.name: row for row in ROWS}


@pytest.mark.parametrize(
    ("rules", "row", "count", "seen"),
    [
        (("reconcile",), BY_NAME["flushall"], 1, "I1: "),
        (("claim-guard",), BY_NAME["forged"], 400, "I8: "),
        (("leases", "recovery"), BY_NAME["daemons"], 1, "I1: "),
        (("self-fence",), BY_NAME["partitions"], 1, "was gone"),
    ],
    ids=["reconcile", "claim-guard", "leases", "self-fence"],
)
def test_a_rule_that_is_off_is_seen(rules: tuple[str, ...], row: Row, count: int, seen: str, seed: int) -> None:
    plan = replace(row.plan, nodes=2, without=rules, heal_seconds=10)
    with lab(plan) as crippled:
        report = crippled.try_row(row, count=count, seed=seed)
    assert [told for told in report.wrong if seen in told], report
