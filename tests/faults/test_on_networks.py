"""Rows whose nodes have networks of their own."""

from __future__ import annotations

import pytest

from tests.faults.row import Row, Try
from tests.faults.rows import ROWS
from tests.faults.rows.plans import ON_NETWORKS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("row", [row for row in ROWS if row.plan == ON_NETWORKS], ids=lambda row: row.key)
def test_nothing_is_lost_doubled_or_left_behind(row: Row, try_row: Try) -> None:
    try_row(row)
