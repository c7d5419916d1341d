"""What a check is, and the bench it runs on: a driver, computers that are surely removed, and ways to say no."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from worker.computer.contract import (
    Collected,
    CollectLimits,
    Computer,
    ComputerDriver,
    ComputerError,
    ComputerSpec,
    DriverInfo,
    ExecEnd,
    ExecResult,
    Feature,
)

SECONDS = 30.0
"""More than any command of a check takes; a check about a deadline names its own."""


class CheckFailed(AssertionError):
    """The driver does not keep this promise; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: a sentence, what tries it, and the features without which it is not promised."""

    name: str
    run: Callable[[Bench], None]
    needs: frozenset[Feature]


_ALL: list[Check] = []


def checks_of(*topics: ModuleType) -> tuple[Check, ...]:
    """The checks that these modules define, topic by topic."""
    names = [topic.__name__ for topic in topics]
    return tuple(sorted(_ALL, key=lambda item: names.index(item.run.__module__)))


def check(name: str, *needs: Feature) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        _ALL.append(Check(name, run, frozenset(needs)))
        return run

    return add


def expect(condition: object, detail: object) -> None:
    if not condition:
        raise CheckFailed(str(detail)[:500])


def expect_raises(kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        answer = call()
    except kind:
        return
    raise CheckFailed(f"expected {kind.__name__}, got {answer!r}"[:500])


class Bench:
    """Where one check runs. `close` removes every computer that the check made."""

    def __init__(self, driver: ComputerDriver, info: DriverInfo) -> None:
        self.driver = driver
        self.info = info
        self._made: list[Computer] = []
        self._drivers: list[ComputerDriver] = []
        self._folder = tempfile.TemporaryDirectory(prefix="longshore-check-")
        self.folder = Path(self._folder.name)

    def spec(self, **changes: Any) -> ComputerSpec:
        base = ComputerSpec(id=f"check-{uuid.uuid4().hex[:16]}", memory_mb=128, pids=64, disk_mb=256)
        return replace(base, **changes)

    def computer(self, **changes: Any) -> Computer:
        return self.create(self.spec(**changes))

    def create(self, spec: ComputerSpec, *, by: ComputerDriver | None = None) -> Computer:
        computer = (by or self.driver).create(spec)
        self._made.append(computer)
        return computer

    def twin(self, *, node: str | None = None) -> ComputerDriver:
        driver = self.driver.twin(node=node)
        self._drivers.append(driver)
        return driver

    def collect(self, computer: Computer, **limits: int) -> Collected:
        return computer.collect(self.folder / uuid.uuid4().hex, CollectLimits(**limits))

    def close(self) -> None:
        for computer in self._made:
            computer.destroy()
        for driver in self._drivers:
            driver.reap([])
            driver.close()
        self._folder.cleanup()


def sh(computer: Computer, script: str, **options: Any) -> ExecResult:
    """Run a shell script; the answer is whatever came."""
    options.setdefault("timeout_seconds", SECONDS)
    return computer.exec(["sh", "-c", script], **options)


def out(computer: Computer, script: str, **options: Any) -> str:
    """Run a shell script that must succeed; its output without the last line end."""
    done = sh(computer, script, **options)
    expect(done.end is ExecEnd.exited and done.exit_code == 0, f"{script!r} ended as {done}")
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def fails(computer: Computer, script: str) -> ExecResult:
    """Run a shell script that must be refused."""
    done = sh(computer, script)
    expect(done.exit_code != 0, f"{script!r} was allowed: {done.stdout!r}")
    return done


@contextmanager
def quiet_end() -> Iterator[None]:
    """A computer that goes away under a command may answer with an error; here both are fine."""
    with suppress(ComputerError):
        yield
