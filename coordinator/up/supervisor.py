"""Keeps programs running: starts them, starts them again when they crash, ends them in order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from coordinator.up.child import Child, Program, last_words
from coordinator.up.signals import STOP, Signals
from shared.errors import LongshoreError

T = TypeVar("T")

POLL_SECONDS = 0.05
TEND_SECONDS = 5.0
HEALTHY_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LARGEST_LOG_BYTES = 64 * 1024 * 1024

Say = Callable[[str], None]


class StopAsked(Exception):
    """A signal said that it is time to stop."""


class StartFailed(LongshoreError):
    """A part did not become ready; the text says which and shows its last words."""


def pause_before_restart(crashes: int) -> float:
    """How long to wait before the next start of what crashed so many times in a row."""
    pause: float = FIRST_PAUSE_SECONDS * 2 ** (max(1, crashes) - 1)
    return min(pause, LONGEST_PAUSE_SECONDS)


@dataclass(slots=True)
class _Place:
    """One program's place: the child that fills it now, or when the next one is due."""

    program: Program
    child: Child | None = None
    crashes: int = 0
    due_at: float = 0.0
    given_up: bool = False


class Supervisor:
    """The children of this process. Use it from the main thread, inside of `Signals`."""

    def __init__(self, signals: Signals, *, say: Say, inherit: Sequence[int] = ()) -> None:
        self._signals = signals
        self._say = say
        self._inherit = tuple(inherit)
        self._places: dict[str, _Place] = {}

    def start(self, program: Program) -> None:
        self._places[program.name] = _Place(program, Child(program, inherit=self._inherit))

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs."""
        place = self._places.get(name)
        return place.child.pid if place and place.child else None

    def wait_until(self, probe: Callable[[], T | None], *, what: str, seconds: float) -> T:
        """The first answer of `probe`. StartFailed when it takes too long or a child ends meanwhile."""
        deadline = time.monotonic() + seconds
        while not (answer := probe()):
            if time.monotonic() > deadline:
                raise StartFailed(f"{what}: not after {seconds:g} s{self._all_last_words()}")
            self._pause(POLL_SECONDS)
            self._require_all_running()
        return answer

    def check_stop(self) -> None:
        """Raise StopAsked when a signal has come in the meantime."""
        self._pause(0.0)

    def supervise(self) -> None:
        """Start again what crashes, until a signal says stop."""
        while (number := self._signals.next(self._patience())) not in STOP:
            del number
            self._tend()

    def stop(self, order: Iterable[Sequence[str]]) -> None:
        """End the named programs, group by group; a further signal ends everything at once."""
        for names in order:
            group = [place.child for name in names if (place := self._places.get(name)) and place.child]
            if not self._stop_group(group):
                self._say("Told twice: ending everything at once")
                break
        self.kill_all()

    def stop_one(self, name: str) -> None:
        """End one program and forget it."""
        place = self._places.pop(name)
        if place.child:
            place.child.ask_to_stop()
            place.child.kill()

    def kill_all(self) -> None:
        """End whatever still runs, and what is left of the groups of those that have ended."""
        for place in self._places.values():
            if place.child:
                place.child.kill()
        self._places.clear()

    # -- waiting

    def _pause(self, seconds: float) -> None:
        number = self._signals.next(seconds)
        if number in STOP:
            raise StopAsked

    def _patience(self) -> float:
        due = [place.due_at for place in self._places.values() if place.child is None and not place.given_up]
        return min([TEND_SECONDS, *(max(0.0, at - time.monotonic()) for at in due)])

    def _require_all_running(self) -> None:
        for place in self._places.values():
            if place.child and (code := place.child.code) is not None:
                words = last_words(place.program.log)
                raise StartFailed(f"{place.program.name} ended with {_ending(code)}:\n{words}")

    def _all_last_words(self) -> str:
        found = ((place.program.name, last_words(place.program.log, 4)) for place in self._places.values())
        return "".join(f"\n{name}:\n{words}" for name, words in found if words)

    # -- tending

    def _tend(self) -> None:
        now = time.monotonic()
        for place in self._places.values():
            if place.child and (code := place.child.code) is not None:
                self._bury(place, code, now)
            elif place.child is None and not place.given_up and now >= place.due_at:
                self._start_again(place)
            _keep_short(place.program)

    def _bury(self, place: _Place, code: int, now: float) -> None:
        assert place.child is not None
        lived = now - place.child.started_at
        # What it started must not go on without it.
        place.child.kill()
        place.child = None
        name = place.program.name
        if code in place.program.final_codes:
            place.given_up = True
            self._say(f"{name} ended with {_ending(code)} and is not started again: {last_words(place.program.log, 1)}")
            return
        place.crashes = 1 if lived >= HEALTHY_SECONDS else place.crashes + 1
        pause = pause_before_restart(place.crashes)
        place.due_at = now + pause
        self._say(f"{name} ended with {_ending(code)}; starting it again in {pause:g} s (see {place.program.log})")

    def _start_again(self, place: _Place) -> None:
        try:
            place.child = Child(place.program, inherit=self._inherit)
        except (LongshoreError, OSError) as error:
            place.crashes += 1
            pause = pause_before_restart(place.crashes)
            place.due_at = time.monotonic() + pause
            self._say(f"{place.program.name} could not be started ({error}); again in {pause:g} s")
        else:
            self._say(f"{place.program.name} runs again (process {place.child.pid})")

    # -- stopping

    def _stop_group(self, group: Sequence[Child]) -> bool:
        """Whether all of it ended, or had to be killed, before a further signal came."""
        for child in group:
            child.ask_to_stop()
        began = time.monotonic()
        while running := [child for child in group if child.code is None]:
            late = [child for child in running if time.monotonic() - began > child.program.stop_seconds]
            for child in late:
                self._say(f"{child.program.name} did not end within {child.program.stop_seconds:g} s: killed")
                child.kill()
            if self._signals.next(POLL_SECONDS) in STOP:
                return False
        return True


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _keep_short(program: Program) -> None:
    """Move a log that has grown large aside. Children append, so they go on at the beginning of the emptied file."""
    try:
        if program.log.stat().st_size <= LARGEST_LOG_BYTES:
            return
        shutil.copyfile(program.log, program.log.with_name(f"{program.log.name}.1"))
        with program.log.open("r+b") as log:
            log.truncate(0)
    except FileNotFoundError:
        return
