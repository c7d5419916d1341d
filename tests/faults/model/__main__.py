"""`python -m tests.faults.model`: play as many schedules as wanted, print a summary as JSON; 1 when a promise broke."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.model.schedule import Playhouse
from tests.faults.model.world import Told
from tests.services import processes
from tests.services.databases import DatabaseSite, PostgresSite, SqliteSite
from tests.services.postgres import PostgresCluster

MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Summary:
    """What came of all schedules on one database."""

    database: str
    overlapping: bool
    schedules: int = 0
    steps: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, told: Told) -> None:
        self.schedules += 1
        self.steps += told.steps
        self.faults += told.faults
        self.ends += told.ends
        self.violations += [{"seed": told.seed, "rule": each.rule, "what": each.what} for each in told.violations]

    def to_json(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "overlapping": self.overlapping,
            "schedules": self.schedules,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "faults": dict(sorted(self.faults.items())),
            "jobs": dict(sorted(self.ends.items())),
            "violations": self.violations,
        }


def main() -> int:
    asked = _arguments()
    databases = ("sqlite", "postgresql") if asked.database == "both" else (asked.database,)
    found = [_run(asked, database) for database in databases]
    print(json.dumps([summary.to_json() for summary in found], indent=2))
    return 1 if any(summary.violations for summary in found) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.model", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many schedules on each database")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--budget", type=float, default=None, help="stop after so many seconds on each database")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--overlap", action="store_true", help="let transactions overlap (PostgreSQL alone can)")
    parser.add_argument("--trace", action="store_true", help="tell all steps, not of the red ones alone")
    return parser.parse_args()


def _run(asked: argparse.Namespace, database: str) -> Summary:
    overlaps = bool(asked.overlap) and database == "postgresql"
    summary = Summary(database, overlaps)
    began = time.monotonic()
    with _site(database) as site:
        house = Playhouse(site)
        for seed in range(asked.start, asked.start + asked.seeds):
            told = house.play(seed, overlaps=overlaps)
            summary.add(told)
            if told.violations or asked.trace:
                print(f"seed {seed} on {database}", *told.trace, sep="\n", file=sys.stderr)
            if asked.budget is not None and time.monotonic() - began > asked.budget:
                break
        house.close()
    summary.seconds = time.monotonic() - began
    return summary


@contextmanager
def _site(database: str) -> Iterator[DatabaseSite]:
    if database == "sqlite":
        below = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        yield SqliteSite(processes.scratch_directory("model-sqlite", below=below))
        return
    cluster = PostgresCluster()
    try:
        site = PostgresSite(cluster)
        yield site
        site.database.dispose()
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
