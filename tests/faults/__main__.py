"""`scripts/faults`: the rows with large counts, as many as a budget allows, resumed where the last run ended."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.lab import Lab, lab
from tests.faults.reporting import as_markdown, summed_up
from tests.faults.row import Row
from tests.faults.rows import ROWS

ROOT = Path(__file__).parents[2]
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    rows: Sequence[Row]
    count: int | None
    seconds: float
    state: Path
    report: Path | None
    seed: int
    schedules: int
    """How many schedules of the model, on each database, after the rows."""


def main() -> int:
    wish = _wish(sys.argv[1:])
    commit = _commit()
    deadline = time.monotonic() + wish.seconds
    for place, row in enumerate(wish.rows):
        share = (deadline - time.monotonic()) / (len(wish.rows) - place)
        _run_row(row, wish, commit, until=time.monotonic() + share)
    told = summed_up(_read(wish.state), ROWS)
    model = _play_model(wish)
    print(as_markdown(told))
    if wish.report is not None:
        wish.report.write_text(json.dumps({"commit": commit, "rows": told, "model": model}, indent=2) + "\n")
        wish.report.with_suffix(".md").write_text(as_markdown(told))
    return 1 if any(item["violations"] for item in [*told, *model]) else 0


def _play_model(wish: Wish) -> list[dict[str, Any]]:
    """The same rules in a model with simulated nodes, clock and broker: many more schedules in the same time."""
    if not wish.schedules:
        return []
    words = ["--seeds", str(wish.schedules), "--start", str(wish.seed)]
    argv = [sys.executable, "-m", "tests.faults.model", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"the model said nothing: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    return told if isinstance(told, list) else [told]


def _run_row(row: Row, wish: Wish, commit: str, *, until: float) -> None:
    """Chunk by chunk until the count is reached or the time is up; a stack that broke is replaced."""
    while (left := _left(row, wish, commit)) > 0 and time.monotonic() < until:
        with lab(row.plan) as fresh:
            while left > 0 and time.monotonic() < until:
                entry = _run_chunk(fresh, row, min(left, row.chunk), wish)
                _append(wish.state, {"commit": commit, "at": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
                left = _left(row, wish, commit)
                if entry["wrong"]:
                    break


def _run_chunk(lab: Lab, row: Row, count: int, wish: Wish) -> dict[str, Any]:
    seed = wish.seed + sum(entry["key"] == row.key for entry in _read(wish.state))
    began = time.monotonic()
    try:
        entry = asdict(lab.try_row(row, count=count, seed=seed))
    except Exception:  # noqa: BLE001 - whatever breaks a trial is told in the report, and the next row is tried
        # Counted as tried, or a row that always breaks would never end.
        entry = {"key": row.key, "seed": seed, "count": count, "wrong": [traceback.format_exc()], "late": []}
    if entry["wrong"]:
        entry["logs"] = str(_keep_logs(lab, row, seed))
    entry["took_seconds"] = round(time.monotonic() - began, 1)
    told = "; ".join(line.strip().splitlines()[-1] for line in [*entry["wrong"], *entry["late"]]) or "holds"
    sys.stderr.write(f"{row.key} seed {seed}: {entry['count']} in {entry['took_seconds']} s: {told}\n")
    return entry


def _left(row: Row, wish: Wish, commit: str) -> int:
    done: int = sum(
        entry["count"] for entry in _read(wish.state) if entry["key"] == row.key and entry["commit"] == commit
    )
    return (wish.count or row.aim) - done // max(1, row.places)


def _keep_logs(lab: Lab, row: Row, seed: int) -> Path:
    kept = Path(tempfile.gettempdir()) / "longshore-fault-logs" / f"{row.key}-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for path in lab.stack.directory.glob("*.log"):
        (kept / path.name).write_bytes(path.read_bytes())
    return kept


def _append(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain") else "")


def _wish(words: Sequence[str]) -> Wish:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--row", type=str, action="append", help="a row's number or name; may be repeated; all rows")
    parser.add_argument("--count", type=int, help="how often; what the plan asks for unless given")
    parser.add_argument("--budget", default="2h", help="how long, such as 90s, 30m, 2h")
    parser.add_argument("--state", type=Path, default=Path("faults.jsonl"), help="where the run is written down")
    parser.add_argument("--report", type=Path, help="a JSON file for the report; the table lies beside it as .md")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="the first seed")
    parser.add_argument("--model", type=int, default=0, help="so many schedules of the model, too")
    given = parser.parse_args(words)
    rows = [row for row in ROWS if not given.row or {str(row.number), row.name, row.key} & set(given.row)]
    if not rows:
        parser.error(f"there is no row {', '.join(given.row)}; there are {', '.join(row.key for row in ROWS)}")
    budget = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", given.budget)
    if budget is None:
        parser.error(f"{given.budget!r} is no length of time; write 90s, 30m or 2h")
    seconds = float(budget[1]) * UNITS[budget[2]]
    return Wish(rows, given.count, seconds, given.state, given.report, given.seed, given.model)


if __name__ == "__main__":
    sys.exit(main())
