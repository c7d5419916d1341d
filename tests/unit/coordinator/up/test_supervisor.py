"""The supervisor: starts, starts again, gives up where that is no use, ends in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from coordinator.up import supervisor as module
from coordinator.up.child import Child, Command, Program, last_words
from coordinator.up.signals import Signals
from coordinator.up.supervisor import StartFailed, StopAsked, Supervisor, pause_before_restart

Make = Callable[..., Program]

WAITS = "import signal; print('here', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}; {WAITS}"


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as taken:
        yield taken


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(signals: Signals, said: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(signals, say=said.append)
    yield made
    made.kill_all()


@pytest.fixture
def program(tmp_path: Path) -> Make:
    """A program of one line of Python."""

    def make(
        code: str, *, name: str = "part", stop_seconds: float = 5, final_codes: frozenset[int] = frozenset()
    ) -> Program:
        command = Command([sys.executable, "-I", "-c", code], dict(os.environ))
        return Program(name, lambda: command, tmp_path / f"{name}.log", stop_seconds, final_codes)

    return make


def _is_here(part: Program) -> bool:
    return "here" in last_words(part.log)


def test_pauses_before_restarts_grow_and_have_an_end() -> None:
    pauses = [pause_before_restart(crashes) for crashes in range(1, 12)]

    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == module.LONGEST_PAUSE_SECONDS


def test_a_part_that_ends_while_it_is_awaited_is_told_with_its_last_words(
    supervisor: Supervisor, program: Make
) -> None:
    supervisor.start(program("import sys; sys.exit('the disk is full')", name="serve"))

    with pytest.raises(StartFailed) as failed:
        supervisor.wait_until(lambda: None, what="an answer", seconds=30)

    assert "serve ended with exit code 1" in failed.value.message
    assert "the disk is full" in failed.value.message


def test_waiting_has_an_end(supervisor: Supervisor, program: Make) -> None:
    supervisor.start(program(WAITS))

    with pytest.raises(StartFailed, match="an answer: not after 0 s"):
        supervisor.wait_until(lambda: None, what="an answer", seconds=0)


def test_a_signal_interrupts_waiting(supervisor: Supervisor, program: Make) -> None:
    supervisor.start(program(WAITS))
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with pytest.raises(StopAsked):
        supervisor.wait_until(lambda: None, what="an answer", seconds=30)


def test_what_crashes_is_started_again(
    supervisor: Supervisor, program: Make, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    mark = tmp_path / "mark"
    # The first one crashes; the second finds the mark and tells the supervisor to stop.
    code = (
        f"import os, pathlib, signal\nmark = pathlib.Path({str(mark)!r})\n"
        "if mark.exists(): os.kill(os.getppid(), signal.SIGTERM); signal.pause()\n"
        "mark.touch(); raise SystemExit(7)"
    )
    supervisor.start(program(code, name="dispatch"))

    supervisor.supervise()

    assert said[0].startswith("dispatch ended with exit code 7; starting it again in 0.01 s")
    assert said[1].startswith("dispatch runs again")


def test_an_ending_that_is_final_is_not_undone(
    supervisor: Supervisor, program: Make, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEND_SECONDS", 0.01)
    supervisor.start(program("print('removed by an admin'); raise SystemExit(3)", final_codes=frozenset({3})))

    def say(text: str) -> None:
        said.append(text)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    monkeypatch.setattr(supervisor, "_say", say)

    supervisor.supervise()

    assert said == ["part ended with exit code 3 and is not started again: removed by an admin"]
    assert supervisor.pid("part") is None


def test_groups_end_in_order(supervisor: Supervisor, program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    ask = Child.ask_to_stop

    def note_and_ask(child: Child) -> None:
        order.append(child.program.name)
        ask(child)

    monkeypatch.setattr(Child, "ask_to_stop", note_and_ask)
    for name in ("redis", "serve", "node-1"):
        supervisor.start(program(WAITS, name=name))

    supervisor.stop([("node-1",), ("serve",), ("redis",)])

    assert order == ["node-1", "serve", "redis"]


def test_who_does_not_end_in_time_is_killed_and_named(supervisor: Supervisor, program: Make, said: list[str]) -> None:
    part = program(STUBBORN, stop_seconds=0.1)
    supervisor.start(part)
    supervisor.wait_until(lambda: _is_here(part), what="here", seconds=30)

    supervisor.stop([("part",)])

    assert said == ["part did not end within 0.1 s: killed"]


def test_a_second_signal_kills_at_once(supervisor: Supervisor, program: Make, said: list[str]) -> None:
    part = program(STUBBORN, stop_seconds=600)
    supervisor.start(part)
    supervisor.wait_until(lambda: _is_here(part), what="here", seconds=30)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    supervisor.stop([("part",)])

    assert said == ["Told twice: ending everything at once"]


def test_a_grandchild_does_not_outlive_its_killed_parent(supervisor: Supervisor, program: Make) -> None:
    part = program(f"import subprocess, sys; subprocess.Popen([sys.executable, '-I', '-c', {WAITS!r}]); {WAITS}")
    supervisor.start(part)
    parent = psutil.Process(supervisor.pid("part"))
    (grandchild,) = supervisor.wait_until(parent.children, what="a grandchild", seconds=30)

    supervisor.kill_all()

    assert psutil.wait_procs([grandchild], timeout=10)[1] == []


def test_a_log_that_grew_large_is_moved_aside(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_LOG_BYTES", 10)
    part = program(WAITS)
    part.log.write_text("more than ten bytes\n")

    module._keep_short(part)

    assert part.log.read_text() == ""
    assert part.log.with_name("part.log.1").read_text() == "more than ten bytes\n"
