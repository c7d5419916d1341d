"""Rows that need clocks or disks of their own, or the strict rule about poison."""

from __future__ import annotations

import pytest

from tests.faults.row import Row, Try
from tests.faults.rows import ROWS
from tests.faults.rows.plans import ON_DOCKER, ON_NETWORKS, ON_POSTGRESQL, ON_SQLITE

pytestmark = pytest.mark.slow

SHARED = (ON_DOCKER, ON_NETWORKS, ON_POSTGRESQL, ON_SQLITE)
SPECIAL: list[Row] = [row for row in ROWS if row.plan not in SHARED]


@pytest.mark.parametrize("row", SPECIAL, ids=lambda row: row.key)
def test_nothing_is_lost_doubled_or_left_behind(row: Row, try_row: Try) -> None:
    try_row(row)
