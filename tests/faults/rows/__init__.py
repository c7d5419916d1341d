"""The rows of the plan of faults, by what they break."""

from __future__ import annotations

from tests.faults.row import Row
from tests.faults.rows import broker, processes

ROWS: tuple[Row, ...] = (*processes.ROWS, *broker.ROWS)
