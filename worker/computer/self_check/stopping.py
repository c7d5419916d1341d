"""Checks: ending commands, and that ended means ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.computer.contract import Computer, ExecEnd, Feature
from worker.computer.self_check.checks import Bench, check, expect, out, sh

_BEAT = "while :; do date +%s%N >beat; sleep 0.05; done"
"""Goes on writing as long as it lives."""


def _is_still(computer: Computer, file: str = "beat") -> bool:
    """Whether nobody writes the file any more."""
    first = out(computer, f"cat {file}")
    time.sleep(0.5)
    return out(computer, f"cat {file}") == first


@contextmanager
def _set_after(seconds: float) -> Iterator[threading.Event]:
    event = threading.Event()
    timer = threading.Timer(seconds, event.set)
    timer.start()
    try:
        yield event
    finally:
        timer.cancel()
        timer.join()


@check("A deadline ends a command, and what it said until then is kept")
def _timeout(bench: Bench) -> None:
    done = sh(bench.computer(), "echo before; sleep 60; echo after", timeout_seconds=1)
    expect(done.end is ExecEnd.timeout and done.stdout == b"before\n", done)
    expect(done.duration_ms < 8000, f"it took {done.duration_ms} ms")


@check("A deadline ends children that left the session")
def _timeout_setsid(bench: Bench) -> None:
    computer = bench.computer()
    done = sh(computer, f"setsid sh -c '{_BEAT}' >/dev/null 2>&1 & sleep 60", timeout_seconds=1)
    expect(done.end is ExecEnd.timeout, done)
    expect(_is_still(computer), "the child lives")


@check("A deadline ends a child that hides without environment or session", Feature.kills_everything)
def _timeout_hidden(bench: Bench) -> None:
    computer = bench.computer()
    done = sh(computer, f"env -i setsid sh -c '{_BEAT}' >/dev/null 2>&1 & sleep 60", timeout_seconds=1)
    expect(done.end is ExecEnd.timeout, done)
    expect(_is_still(computer), "the child lives")


@check("A deadline ends what ignores every polite signal")
def _timeout_stubborn(bench: Bench) -> None:
    computer = bench.computer()
    done = sh(computer, f"trap '' TERM INT HUP; echo on; {_BEAT}", timeout_seconds=1)
    expect(done.end is ExecEnd.timeout and done.stdout == b"on\n", done)
    expect(_is_still(computer), "it lives")


@check("A stopped process is ended too")
def _timeout_stopped(bench: Bench) -> None:
    done = sh(bench.computer(), "kill -STOP $$", timeout_seconds=1)
    expect(done.end is ExecEnd.timeout and done.duration_ms < 8000, done)


@check("The deadline of one command leaves its neighbour alone")
def _timeout_neighbour(bench: Bench) -> None:
    computer = bench.computer()
    ends: list[ExecEnd] = []
    neighbour = threading.Thread(target=lambda: ends.append(sh(computer, "sleep 3; echo well").end))
    neighbour.start()
    time.sleep(0.5)
    done = sh(computer, "sleep 60", timeout_seconds=1)
    neighbour.join()
    expect(done.end is ExecEnd.timeout and ends == [ExecEnd.exited], (done, ends))


@check("A flood of output is cut at its cap and its source ended")
def _flood(bench: Bench) -> None:
    computer = bench.computer()
    passed: list[int] = []
    done = sh(
        computer,
        "line=$(seq 1 500); while :; do echo $line; date +%s%N >beat; done",
        max_output_bytes=100_000,
        on_output=lambda _stream, chunk: passed.append(len(chunk)),
    )
    expect(done.end is ExecEnd.output_limit and done.truncated and sum(passed) == 100_000, (done.end, sum(passed)))
    expect(_is_still(computer), "the source lives")


@check("A flood that nothing slows down is ended too")
def _fast_flood(bench: Bench) -> None:
    computer = bench.computer()
    done = sh(computer, "yes", max_output_bytes=4 * 1024 * 1024, keep_output_bytes=1000)
    expect(done.end is ExecEnd.output_limit and len(done.stdout) == 1000, done.end)
    expect(out(computer, "echo well") == "well", "the computer does not work any more")


@check("Cancelling ends a command soon")
def _cancel(bench: Bench) -> None:
    with _set_after(0.5) as cancel:
        done = sh(bench.computer(), "echo before; sleep 60", cancel=cancel)
    expect(done.end is ExecEnd.cancelled and done.stdout == b"before\n" and done.duration_ms < 6000, done)


@check("Cancelling with grace lets a command put its things in order")
def _grace(bench: Bench) -> None:
    computer = bench.computer()
    script = "trap 'echo tidy; exit 0' TERM; echo on; while :; do sleep 0.1; done"
    with _set_after(0.7) as cancel:
        done = sh(computer, script, cancel=cancel, grace_seconds=8)
    expect(done.end is ExecEnd.cancelled and done.stdout == b"on\ntidy\n" and done.duration_ms < 6000, done)


@check("Grace ends: what does not stop by itself is ended")
def _grace_over(bench: Bench) -> None:
    computer = bench.computer()
    with _set_after(0.3) as cancel:
        done = sh(computer, f"trap '' TERM; {_BEAT}", cancel=cancel, grace_seconds=1)
    expect(done.end is ExecEnd.cancelled and 1000 <= done.duration_ms < 9000, done)
    expect(_is_still(computer), "it lives")


@check("A command cancelled before it began ends at once")
def _cancelled_before(bench: Bench) -> None:
    cancel = threading.Event()
    cancel.set()
    done = sh(bench.computer(), "sleep 60", cancel=cancel)
    expect(done.end is ExecEnd.cancelled and done.duration_ms < 5000, done)


@check("An ended command leaves the computer fit for the next one")
def _next(bench: Bench) -> None:
    computer = bench.computer()
    for _ in range(3):
        expect(sh(computer, "sleep 60", timeout_seconds=0.3).end is ExecEnd.timeout, "no timeout")
    expect(out(computer, "echo well") == "well", "the computer does not work any more")


@check("Ending everything ends every command, and the computer lives on")
def _kill_all(bench: Bench) -> None:
    computer = bench.computer()
    ends: list[ExecEnd] = []
    script = f"setsid sh -c '{_BEAT}' >/dev/null 2>&1 & sleep 60"
    running = threading.Thread(target=lambda: ends.append(sh(computer, script).end))
    running.start()
    out(computer, "i=0; while [ ! -e beat ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.05; done; test -e beat")
    computer.kill_all()
    running.join(10)
    expect(ends == [ExecEnd.exited], ends)
    expect(_is_still(computer), "a child lives")
