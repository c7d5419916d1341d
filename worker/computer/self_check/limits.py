"""Checks: memory, processes, processor, disk, and what is told about them."""

from __future__ import annotations

import time

from worker.computer.contract import ComputerSpec, ExecEnd, Feature, LimitTooHigh
from worker.computer.self_check.checks import Bench, check, expect, expect_raises, out, sh

_MIB = 1024 * 1024
_EAT = "head -c {mib}m /dev/zero | tail -c {mib}m >/dev/null"
"""`tail` holds all of its input in memory."""


@check("Memory beyond the limit is not given", Feature.memory_limit)
def _memory(bench: Bench) -> None:
    done = sh(bench.computer(memory_mb=64), _EAT.format(mib=300) + "; test $? = 0 && echo got it")
    expect(b"got it" not in done.stdout, done)


@check("A memory kill is told as one", Feature.oom_told)
def _oom(bench: Bench) -> None:
    done = sh(bench.computer(memory_mb=64), _EAT.format(mib=300))
    expect(done.end is ExecEnd.exited and done.exit_code == 137 and done.oom, done)


@check("Exit code 137 without a memory kill is not taken for one")
def _no_oom(bench: Bench) -> None:
    done = sh(bench.computer(), "kill -9 $$")
    expect(done.exit_code == 137 and not done.oom, done)


@check("A computer works on after a memory kill, and the next command is not blamed for it", Feature.oom_told)
def _after_oom(bench: Bench) -> None:
    computer = bench.computer(memory_mb=64)
    sh(computer, _EAT.format(mib=300))
    done = sh(computer, "kill -9 $$")
    expect(done.exit_code == 137 and not done.oom, done)


@check("Enough memory for the job is there up to its limit")
def _enough_memory(bench: Bench) -> None:
    out(bench.computer(memory_mb=256), _EAT.format(mib=100))


@check("Processes beyond the limit are not made, and the computer answers afterwards", Feature.pids_limit)
def _pids(bench: Bench) -> None:
    computer = bench.computer(pids=32)
    sh(computer, "i=0; while [ $i -lt 100 ]; do i=$((i+1)); sleep 20 & done; echo all $i", timeout_seconds=1)
    computer.kill_all()
    done = sh(computer, "i=0; while [ $i -lt 100 ]; do i=$((i+1)); sleep 20 & done; echo all $i", timeout_seconds=1)
    expect(b"all 100" not in done.stdout, done.stdout)
    expect(out(computer, "echo well") == "well", "the computer does not answer")


@check("A fork bomb is ended by its deadline", Feature.pids_limit, Feature.kills_everything)
def _bomb(bench: Bench) -> None:
    computer = bench.computer(pids=48)
    done = sh(computer, "b() { b | b & }; b; sleep 60", timeout_seconds=2)
    expect(done.duration_ms < 25_000, done)
    computer.kill_all()
    expect(out(computer, "echo well") == "well", "the computer does not answer")


@check("The processor is shared out as asked", Feature.cpu_limit, Feature.usage)
def _cpu(bench: Bench) -> None:
    computer = bench.computer(cpus=0.25)
    began = time.monotonic()
    sh(computer, "while :; do :; done", timeout_seconds=2)
    share = (computer.usage().cpu_ms or 0) / ((time.monotonic() - began) * 1000)
    expect(0 < share < 0.6, f"it took {share:.2f} of a processor")


@check("A disk filled beyond the quota ends the command, and that is told", Feature.disk_watch)
def _disk(bench: Bench) -> None:
    script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); head -c 4m /dev/zero >fill$i; done; sleep 60"
    done = sh(bench.computer(disk_mb=16), script)
    expect(done.end is ExecEnd.disk_limit and done.duration_ms < 20_000, done)


@check("A short command that leaves too much on the disk is told too", Feature.disk_watch)
def _disk_after(bench: Bench) -> None:
    done = sh(bench.computer(disk_mb=16), "head -c 15m /dev/zero >one; head -c 15m /dev/zero >two")
    expect(done.end is ExecEnd.disk_limit, done)


@check("One file cannot grow far beyond the quota")
def _file_size(bench: Bench) -> None:
    computer = bench.computer(disk_mb=16)
    sh(computer, "head -c 200m /dev/zero >file")
    size = int(sh(computer, "wc -c <file").stdout)
    expect(0 < size < 64 * _MIB, f"it has {size} bytes")


@check("Open files are limited")
def _open_files(bench: Bench) -> None:
    expect(int(out(bench.computer(), "ulimit -n")) <= 4096, "there is no limit")


@check("No core files are written")
def _core(bench: Bench) -> None:
    expect(out(bench.computer(), "ulimit -c") == "0", "core files are allowed")


@check("Processor time and peak memory are told", Feature.usage)
def _usage(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; " + _EAT.format(mib=20))
    usage = computer.usage()
    expect(usage.cpu_ms is not None and 20 < usage.cpu_ms < 60_000, usage)
    expect(usage.peak_memory_bytes is not None and usage.peak_memory_bytes > 20 * _MIB, usage)


@check("More than this machine has is refused before anything is made")
def _too_much(bench: Bench) -> None:
    before = list(bench.driver.list_owned())
    for spec in (bench.spec(cpus=100_000.0), bench.spec(memory_mb=1 << 30)):
        _refused(bench, spec)
    expect(list(bench.driver.list_owned()) == before, "something was left")


def _refused(bench: Bench, spec: ComputerSpec) -> None:
    expect_raises(LimitTooHigh, lambda: bench.create(spec))
