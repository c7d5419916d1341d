"""Brings everything up in order, keeps it up, and takes it down in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from coordinator.config import Settings
from coordinator.up.house import House
from coordinator.up.plan import Options, make_plan
from coordinator.up.signals import STOP, Signals
from coordinator.up.start import Start
from coordinator.up.supervisor import Say, StopAsked, Supervisor
from coordinator.up.telling import Told

LEFTOVER_SECONDS = 60.0


def run(settings: Settings, options: Options, *, say: Say, on_ready: Callable[[Told], None]) -> None:
    """Everything, until a signal says stop. Raises when it could not be brought up; nothing runs afterwards."""
    house = House(settings.home)
    with Signals() as signals:
        try:
            _take(house, settings.home, signals, say)
            supervisor = Supervisor(signals, say=say, inherit=(house.descriptor,))
            _live(supervisor, settings, options, say=say, on_ready=on_ready)
        except StopAsked:
            say("Stopped before it was ready")
        finally:
            house.release()


def _live(
    supervisor: Supervisor, settings: Settings, options: Options, *, say: Say, on_ready: Callable[[Told], None]
) -> None:
    plan = make_plan(settings, options)
    start = Start(settings, plan, supervisor, say)
    try:
        on_ready(start.bring_up(require_approval=options.require_approval))
        supervisor.supervise()
        say("Stopping")
    finally:
        supervisor.stop(plan.stop_order)
        start.close()
    say("Stopped")


def _take(house: House, home: Path, signals: Signals, say: Say) -> None:
    """Lock the home. What an earlier run left behind is ending by itself: it gets a while."""
    deadline = time.monotonic() + LEFTOVER_SECONDS
    told = False
    while not house.try_lock():
        if house.owner() is not None or time.monotonic() > deadline:
            raise house.refuse()
        if not told:
            say(f"Waiting for what an earlier run left in {home} to end")
            told = True
        if signals.next(0.1) in STOP:
            raise StopAsked
