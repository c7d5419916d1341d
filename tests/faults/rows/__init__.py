"""The rows of the plan of faults, by what they break."""

from __future__ import annotations

from tests.faults.row import Row
from tests.faults.rows import broker, networks, people, processes, stores

_ALL = (*processes.ROWS, *broker.ROWS, *stores.ROWS, *networks.ROWS, *people.ROWS)
ROWS: tuple[Row, ...] = tuple(sorted(_ALL, key=lambda row: row.key))
