"""What runs of the rows come to: one line a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.faults.row import Row

_HEAD = "| row | fault | times | jobs | run again | violations | late | slowest | seeds | commit | date |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def summed_up(entries: Sequence[dict[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The entries of a state file by row, in the order of the plan."""
    return [_of_row(row, found) for row in rows if (found := [item for item in entries if item["key"] == row.key])]


def _of_row(row: Row, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "row": row.key,
        "fault": row.fault,
        "count": sum(entry["count"] for entry in entries),
        "jobs": sum(entry.get("jobs", 0) for entry in entries),
        "reruns": sum(entry.get("reruns", 0) for entry in entries),
        "violations": [told for entry in entries for told in entry["wrong"]],
        "late": [told for entry in entries for told in entry["late"]],
        "slowest_seconds": max(entry.get("slowest_seconds", 0.0) for entry in entries),
        "facts": _added(entries),
        "seeds": [entry["seed"] for entry in entries],
        "commits": sorted({entry["commit"] for entry in entries}),
        "dates": sorted({entry["at"][:10] for entry in entries}),
    }


def _added(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by kind, added up over the entries; of other figures the largest."""
    total: dict[str, Any] = {}
    for entry in entries:
        for name, value in entry.get("facts", {}).items():
            if isinstance(value, dict):
                kinds = total.setdefault(name, {})
                for kind, count in value.items():
                    kinds[kind] = kinds.get(kind, 0) + count
            elif isinstance(value, float):
                total[name] = max(value, total.get(name, 0.0))
            else:
                total[name] = total.get(name, 0) + value
    return total


def as_markdown(told: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    return "\n".join([_HEAD, _RULE, *(_line(row) for row in told)]) + "\n"


def _line(row: dict[str, Any]) -> str:
    seeds = f"{min(row['seeds'])}–{max(row['seeds'])}" if len(row["seeds"]) > 1 else str(row["seeds"][0])
    cells = [
        row["row"],
        row["fault"],
        str(row["count"]),
        str(row["jobs"]),
        str(row["reruns"]),
        str(len(row["violations"])),
        str(len(row["late"])),
        f"{row['slowest_seconds']} s",
        seeds,
        ", ".join(row["commits"]),
        ", ".join(row["dates"]),
    ]
    return f"| {' | '.join(cells)} |"
