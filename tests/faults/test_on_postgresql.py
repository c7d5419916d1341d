"""Rows that share a stack of three nodes and two dispatchers on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.faults.row import Row, Try
from tests.faults.rows import ROWS
from tests.faults.rows.plans import ON_POSTGRESQL

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("row", [row for row in ROWS if row.plan == ON_POSTGRESQL], ids=lambda row: row.key)
def test_nothing_is_lost_doubled_or_left_behind(row: Row, try_row: Try) -> None:
    try_row(row)
