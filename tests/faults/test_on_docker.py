"""Rows whose computers are containers."""

from __future__ import annotations

import pytest

from tests.faults.row import Row, Try
from tests.faults.rows import ROWS
from tests.faults.rows.plans import ON_DOCKER

pytestmark = [pytest.mark.slow, pytest.mark.docker]


@pytest.mark.parametrize("row", [row for row in ROWS if row.plan == ON_DOCKER], ids=lambda row: row.key)
def test_nothing_is_lost_doubled_or_left_behind(row: Row, try_row: Try) -> None:
    try_row(row)
