"""The rows of the plan of faults, by what they break."""

from __future__ import annotations

from tests.faults.row import Row
from tests.faults.rows import broker, docker, networks, people, processes, soak, stores

_ALL = (
    *processes.ROWS,
    *docker.ROWS,
    *broker.ROWS,
    *stores.ROWS,
    *networks.ROWS,
    *people.ROWS,
    *soak.ROWS,
)
ROWS: tuple[Row, ...] = tuple(sorted(_ALL, key=lambda row: row.key))
