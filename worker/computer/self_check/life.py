"""Checks: making, finding, adopting and removing computers."""

from __future__ import annotations

import threading
import time
import uuid

from shared.errors import Invalid
from worker.computer.contract import (
    Computer,
    ComputerError,
    ComputerLost,
    ComputerSpec,
    ExecEnd,
    Isolation,
    IsolationTooWeak,
)
from worker.computer.self_check.checks import Bench, check, expect, expect_raises, out, quiet_end, sh

_STRONGEST = max(Isolation)


@check("A computer is listed while it lives, and not after")
def _listed(bench: Bench) -> None:
    computer = bench.computer()
    expect(computer.spec.id in bench.driver.list_owned(), "it is not listed")
    computer.destroy()
    expect(computer.spec.id not in bench.driver.list_owned(), "it is still listed")


@check("Destroying twice is fine, also by two at the same time")
def _twice(bench: Bench) -> None:
    computer = bench.computer()
    other = threading.Thread(target=computer.destroy)
    other.start()
    computer.destroy()
    other.join()
    computer.destroy()
    expect(computer.spec.id not in bench.driver.list_owned(), "it is still there")


@check("Destroying ends a command under way, which does not end as if all were well")
def _destroy_running(bench: Bench) -> None:
    computer = bench.computer()
    ends: list[object] = []

    def run() -> None:
        try:
            done = sh(computer, "touch on; sleep 60")
            ends.append(done.exit_code)
        except ComputerError as error:
            ends.append(error)

    running = threading.Thread(target=run)
    running.start()
    out(computer, "i=0; while [ ! -e on ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.05; done; test -e on")
    computer.destroy()
    running.join(15)
    expect(len(ends) == 1 and ends[0] != 0, ends)
    expect(computer.spec.id not in bench.driver.list_owned(), "it is still there")


@check("A destroyed computer answers that it is lost")
def _lost(bench: Bench) -> None:
    computer = bench.computer()
    computer.destroy()
    expect_raises(ComputerLost, lambda: sh(computer, "true"))
    expect_raises(ComputerLost, lambda: computer.put("x", b""))
    expect_raises(ComputerLost, lambda: bench.collect(computer))


@check("A computer that is removed under a command is told as lost or as an ended command, never as well")
def _lost_beneath(bench: Bench) -> None:
    computer = bench.computer()
    other = bench.twin()
    remover = threading.Timer(0.7, lambda: other.reap([]))
    remover.start()
    try:
        done = sh(computer, "sleep 30")
        expect(done.exit_code != 0, done)
    except ComputerLost:
        return
    finally:
        remover.join()


@check("Making a computer again under its id finds the same one")
def _adopt(bench: Bench) -> None:
    first = bench.computer()
    out(first, "echo mine >file")
    again = bench.create(first.spec, by=bench.twin())
    expect(out(again, "cat file") == "mine", "it is another one")
    again.destroy()
    expect(first.spec.id not in bench.driver.list_owned(), "it is still there")


@check("A reaper removes what is not to be kept, and tells it")
def _reap(bench: Bench) -> None:
    kept, gone = bench.computer(), bench.computer()
    told = bench.driver.reap(_all_but(bench, gone))
    expect(list(told) == [gone.spec.id], told)
    expect(out(kept, "echo well") == "well", "the kept one is broken")
    expect(gone.spec.id not in bench.driver.list_owned(), "it is still there")


def _all_but(bench: Bench, gone: Computer) -> list[str]:
    return [computer for computer in bench.driver.list_owned() if computer != gone.spec.id]


@check("A new process of the node finds and removes what a dead one left running")
def _successor(bench: Bench) -> None:
    computer = bench.computer()
    running = threading.Thread(target=lambda: _until_gone(computer))
    running.start()
    out(computer, "i=0; while [ ! -e on ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.05; done; test -e on")
    successor = bench.twin()
    expect(computer.spec.id in successor.list_owned(), "it does not see it")
    told = successor.reap([other for other in successor.list_owned() if other != computer.spec.id])
    expect(list(told) == [computer.spec.id], told)
    running.join(15)
    expect(not running.is_alive(), "the command lives on")


def _until_gone(computer: Computer) -> None:
    with quiet_end():
        sh(computer, "touch on; sleep 60")


@check("A reaper leaves the computers of another node alone")
def _other_node(bench: Bench) -> None:
    other = bench.twin(node=f"other-{uuid.uuid4().hex[:8]}")
    theirs = bench.create(bench.spec(), by=other)
    expect(theirs.spec.id not in bench.driver.list_owned(), "it is listed as ours")
    bench.driver.reap(list(bench.driver.list_owned()))
    expect(out(theirs, "echo well") == "well", "it was touched")
    expect(list(other.list_owned()) == [theirs.spec.id], "the other node lost it")


@check("A job that demands more isolation than there is is refused, never downgraded")
def _isolation(bench: Bench) -> None:
    assert bench.info.isolation is not None
    offered = bench.info.isolation.kind
    computer = bench.computer(min_isolation=offered)
    expect(computer.isolation.kind >= offered, computer.isolation)
    if offered < _STRONGEST:
        stronger = Isolation(offered + 1)
        expect_raises(IsolationTooWeak, lambda: bench.computer(min_isolation=stronger))


@check("Ids that could mean something else are refused")
def _bad_ids(bench: Bench) -> None:
    for bad in ("", "../x", "a/b", "-x", "a b", "x" * 200, "a\nb", ".."):
        expect_raises(Invalid, lambda bad=bad: bench.create(ComputerSpec(id=bad)))  # type: ignore[misc]


@check("Computers are made and used at the same time by many threads")
def _parallel(bench: Bench) -> None:
    answers: list[str] = []

    def use() -> None:
        computer = bench.computer()
        answers.append(out(computer, f"echo {computer.spec.id} >id; sleep 0.1; cat id"))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(len(set(answers)) == 4, answers)


@check("Nothing of one computer is left for the next: files, processes, listeners")
def _fresh(bench: Bench) -> None:
    for _ in range(3):
        computer = bench.computer()
        expect(out(computer, "ls -A") == "", "files of the one before")
        out(computer, "echo x >file; mkdir artifacts; (sleep 60 &) >/dev/null 2>&1; true")
        computer.destroy()


@check("A created computer is ready at once")
def _ready(bench: Bench) -> None:
    began = time.monotonic()
    done = sh(bench.computer(), "exit 0")
    expect(done.end is ExecEnd.exited and time.monotonic() - began < 15, done)
