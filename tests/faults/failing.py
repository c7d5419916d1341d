"""Starts a program of ours with places in it where it can be killed, rules turned off, and its clock set wrong.

    python -m tests.faults.failing coordinator serve …
    python -m tests.faults.failing worker start …

The product knows nothing of this: named functions are wrapped before the program's own `main` runs. A place is armed by
a file of its name in the directory that LONGSHORE_TEST_CONTROL names; whoever comes by removes the file and dies by
SIGKILL. LONGSHORE_TEST_WITHOUT names rules that are taken away, to show that the tests notice. The files
`skew-coordinator` and `skew-worker` hold seconds that are added to the time of day as the program sees it.
LONGSHORE_TEST_FACTOR scales timings that are no settings.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.faults.rules import WITHOUT

CONTROL = "LONGSHORE_TEST_CONTROL"
WITHOUT_VARIABLE = "LONGSHORE_TEST_WITHOUT"
FACTOR = "LONGSHORE_TEST_FACTOR"
SKEW = "skew-"
STRUCK = "struck"

Program = Literal["serve", "dispatch", "worker"]
When = Literal["before", "after", "committed"]


@dataclass(frozen=True, slots=True)
class Point:
    """A place where a program may die. `committed` is after the commit of the transaction that the function got,
    before anything else that follows it."""

    name: str
    program: Program
    target: str
    """module:name as the caller finds it."""
    when: When
    happens: str
    """What has to be going on for the program to come by: a load does `work`, a row does the rest itself."""


_QUEUE = "coordinator.domains.queue.service"
_DISPATCHER = "coordinator.dispatcher"
_RELAY = "coordinator.domains.queue.relay:Relay"

POINTS: tuple[Point, ...] = (
    Point("submit-before", "serve", f"{_QUEUE}:submit", "before", "work"),
    Point("submit-written", "serve", f"{_QUEUE}:submit", "after", "work"),
    Point("submit-committed", "serve", f"{_QUEUE}:submit", "committed", "work"),
    Point("sync-before", "serve", f"{_QUEUE}:sync", "before", "work"),
    Point("sync-written", "serve", f"{_QUEUE}:sync", "after", "work"),
    Point("sync-committed", "serve", f"{_QUEUE}:sync", "committed", "work"),
    Point("beat-written", "serve", f"{_QUEUE}:heartbeat", "after", "work"),
    Point("beat-committed", "serve", f"{_QUEUE}:heartbeat", "committed", "work"),
    Point("cancel-written", "serve", f"{_QUEUE}:cancel", "after", "cancel"),
    Point("cancel-committed", "serve", f"{_QUEUE}:cancel", "committed", "cancel"),
    Point("redrive-written", "serve", "coordinator.domains.queue.redriving:redrive", "after", "redrive"),
    Point("redrive-committed", "serve", "coordinator.domains.queue.redriving:redrive", "committed", "redrive"),
    Point("lead-taken", "dispatch", "coordinator.domains.queue.leadership:campaign", "after", "lead"),
    Point("place-written", "dispatch", f"{_DISPATCHER}:place", "after", "work"),
    Point("place-committed", "dispatch", f"{_DISPATCHER}:place", "committed", "work"),
    Point("publish-before", "dispatch", f"{_RELAY}.publish", "before", "work"),
    Point("publish-sent", "dispatch", f"{_RELAY}.publish", "after", "work"),
    Point("sweep-marked", "dispatch", f"{_RELAY}.sweep", "after", "work"),
    Point("leases-judged", "dispatch", f"{_DISPATCHER}:lose_expired", "after", "work"),
    Point("silence-judged", "dispatch", f"{_DISPATCHER}:miss_silent_nodes", "committed", "work"),
    Point("ticket-taken", "worker", "worker.jobs.runner:Runner.run", "before", "work"),
    Point("claim-kept", "worker", "worker.uplink:Uplink._ask", "before", "work"),
    Point("claim-answered", "worker", "worker.uplink:Uplink._settle", "before", "work"),
    Point("report-kept", "worker", "worker.uplink:Uplink._keep", "after", "work"),
    Point("computer-made", "worker", "worker.jobs.computers:Computers.rent", "after", "work"),
)


CONSTANTS = ("worker.heartbeat:TIMEOUT", "worker.heartbeat:BEFORE_FIRST_REPLY")
"""Timings in seconds that are no settings, and that faults run into."""


def points(program: Program) -> list[Point]:
    return [point for point in POINTS if point.program == program]


def main() -> None:
    """Become the program that the arguments name."""
    _, package, *arguments = sys.argv
    program = _program(package, arguments)
    control = Path(os.environ[CONTROL])
    for point in points(program):
        _replace(point.target, functools.partial(_deadly, point, control))
    for rule in filter(None, os.environ.get(WITHOUT_VARIABLE, "").split(",")):
        for target, replacement in WITHOUT[rule].items():
            if target.startswith(package):
                _replace(target, replacement)
    for target in CONSTANTS:
        if target.startswith(package):
            _replace(target, lambda seconds: seconds / float(os.environ.get(FACTOR, "1")))
    _shift_clock(control / f"{SKEW}{package}")
    sys.argv = [package, *arguments]
    runpy.run_module(package, run_name="__main__", alter_sys=True)


def _program(package: str, arguments: list[str]) -> Program:
    if package == "worker":
        return "worker"
    return "dispatch" if "dispatch" in arguments else "serve"


def _replace(target: str, change: Callable[[Any], Any]) -> None:
    """Put `change(original)` in the place of a function; a name that is gone is an error, not a test that passes."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    holder: Any = importlib.import_module(module)
    for owner in owners:
        holder = getattr(holder, owner)
    setattr(holder, name, change(getattr(holder, name)))


def _deadly(point: Point, control: Path, original: Callable[..., Any]) -> Callable[..., Any]:
    trigger = control / point.name

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        if point.when == "before":
            _strike(trigger)
        if point.when == "committed":
            # The first of what follows the commit: nobody has been nudged or answered.
            args[0].after_commit(lambda: _strike(trigger))
        result = original(*args, **options)
        if point.when == "after":
            _strike(trigger)
        return result

    return wrapped


def _strike(trigger: Path) -> None:
    """Die here if the place is armed. Of many that come by at once, one dies: the one that could remove the file."""
    try:
        trigger.unlink()
    except FileNotFoundError:
        return
    (trigger.parent / STRUCK).write_text(f"{trigger.name} {os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def _shift_clock(path: Path) -> None:
    """Let the program see a wrong time of day; durations stay true, as they do when somebody sets a clock."""
    if not path.exists():
        return
    from datetime import timedelta

    from shared.clock import SystemClock

    def skew() -> float:
        return float(path.read_text() or 0)

    true_time, true_now = time.time, SystemClock.now
    time.time = lambda: true_time() + skew()
    SystemClock.now = lambda self: true_now(self) + timedelta(seconds=skew())  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
