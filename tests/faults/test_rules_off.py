"""The faults are seen: with a rule of the queue layer turned off, what checks it must say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.lab import lab
from tests.faults.row import Row
from tests.faults.rows import ROWS
from tests.faults.rows.plans import ON_SQLITE

pytestmark = pytest.mark.slow

BY_NAME = {row.name: row for row in ROWS}


@pytest.mark.parametrize(
    ("rule", "row", "seen"),
    [
        ("reconcile", BY_NAME["flushall"], "I1: "),
        ("claim-guard", BY_NAME["forged"], "I8: "),
        ("leases", BY_NAME["daemons"], "I1: "),
    ],
    ids=["reconcile", "claim-guard", "leases"],
)
def test_a_rule_that_is_off_is_seen(rule: str, row: Row, seen: str, seed: int) -> None:
    plan = replace(ON_SQLITE, nodes=2, without=(rule, "recovery"), heal_seconds=10)
    with lab(plan) as crippled:
        report = crippled.try_row(row, count=row.few, seed=seed)
    assert [told for told in report.wrong if told.startswith(seen)], report
