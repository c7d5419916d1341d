"""Tries every promise of the contract on a real driver: `run_checks` for `worker check`, and for the tests."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from worker.computer.contract import ComputerDriver, DriverInfo, DriverUnavailable
from worker.computer.self_check import files, life, limits, running, stopping, walls
from worker.computer.self_check.checks import Bench, Check, checks_of

CHECKS = checks_of(running, stopping, limits, walls, files, life)


class Verdict(StrEnum):
    kept = "kept"
    broken = "broken"
    not_promised = "not_promised"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one promise fared; `detail` says what came instead, or which feature the driver does not declare."""

    name: str
    verdict: Verdict
    detail: str = ""
    duration_ms: int = 0


def run_checks(
    driver: ComputerDriver,
    *,
    only: Iterable[Check] = CHECKS,
    on_result: Callable[[CheckResult], None] | None = None,
) -> list[CheckResult]:
    """Every check, one after the other, on computers of its own.

    The checks also reap, so they run as a node of their own: a working node may be checked without harm to its jobs.
    """
    stand_in = driver.twin(node=f"check-{uuid.uuid4().hex[:12]}")
    try:
        info = stand_in.probe()
        if not info.available:
            raise DriverUnavailable(info.reason)
        return [_told(run_check(item, stand_in, info), on_result) for item in only]
    finally:
        stand_in.reap([])
        stand_in.close()


def _told(result: CheckResult, on_result: Callable[[CheckResult], None] | None) -> CheckResult:
    if on_result is not None:
        on_result(result)
    return result


def run_check(item: Check, driver: ComputerDriver, info: DriverInfo) -> CheckResult:
    """One check. It may remove every computer of the driver's node."""
    missing = sorted(item.needs - info.features)
    if missing:
        return CheckResult(item.name, Verdict.not_promised, f"this driver does not declare {', '.join(missing)}")
    began = time.monotonic()
    bench = Bench(driver, info)
    try:
        fault = _fault(item, bench)
    finally:
        bench.close()
    spent = round((time.monotonic() - began) * 1000)
    return CheckResult(item.name, Verdict.broken if fault else Verdict.kept, fault, spent)


def _fault(item: Check, bench: Bench) -> str:
    try:
        item.run(bench)
    except Exception as error:  # noqa: BLE001 - whatever a driver throws here is the finding
        return f"{type(error).__name__}: {error}"
    return ""
