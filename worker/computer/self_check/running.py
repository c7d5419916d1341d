"""Checks: how commands run, what goes in and what comes out."""

from __future__ import annotations

import threading
import time

from worker.computer.contract import ExecEnd, Feature
from worker.computer.self_check.checks import SECONDS, Bench, check, expect, out, sh

_MIB = 1024 * 1024


@check("A command's output, exit code and duration come back")
def _plain(bench: Bench) -> None:
    done = sh(bench.computer(), "echo hello; sleep 0.2; exit 7")
    expect(done.end is ExecEnd.exited and done.exit_code == 7 and done.stdout == b"hello\n", done)
    expect(200 <= done.duration_ms < 20_000, done.duration_ms)


@check("Standard output and standard error are kept apart")
def _streams(bench: Bench) -> None:
    done = sh(bench.computer(), "echo one; echo two >&2; echo three; echo four >&2")
    expect((done.stdout, done.stderr) == (b"one\nthree\n", b"two\nfour\n"), done)


@check("Output is bytes: UTF-8 and what is not UTF-8 pass unchanged")
def _bytes(bench: Bench) -> None:
    done = sh(bench.computer(), r"printf 'žluť 漢字 \360\237\230\200 \377\376\000end'")
    expect(done.stdout == "žluť 漢字 😀 ".encode() + b"\xff\xfe\x00end", done.stdout)


@check("Every exit code from 0 to 255 is told as it is")
def _codes(bench: Bench) -> None:
    computer = bench.computer()
    for code in (0, 1, 2, 42, 125, 254, 255):
        expect(sh(computer, f"exit {code}").exit_code == code, code)


@check("A command that a signal ended shows 128 and the signal")
def _signalled(bench: Bench) -> None:
    computer = bench.computer()
    for number in (9, 15, 11):
        done = sh(computer, f"kill -{number} $$")
        expect(done.exit_code == 128 + number and done.end is ExecEnd.exited, done)


@check("A program that is not there ends with 126 or 127 and is no error of ours")
def _missing(bench: Bench) -> None:
    computer = bench.computer()
    done = computer.exec(["no-such-program-here"], timeout_seconds=SECONDS)
    expect(done.exit_code in (126, 127) and done.end is ExecEnd.exited, done)
    expect(out(computer, "echo still here") == "still here", "the computer does not work any more")


@check("A file that may not be executed ends with 126")
def _not_executable(bench: Bench) -> None:
    computer = bench.computer()
    computer.put("script", b"#!/bin/sh\necho no\n", mode=0o644)
    done = computer.exec(["./script"], timeout_seconds=SECONDS)
    expect(done.exit_code == 126, done)


@check("Arguments reach a program untouched: no shell reads them")
def _arguments(bench: Bench) -> None:
    odd = ["a b", "", "$HOME", "`id`", "'\"\\", "line\nbreak", "-n", "*", "žluť", ";exit 3"]
    done = bench.computer().exec(["printf", "%s\\0", *odd], timeout_seconds=SECONDS)
    expect(done.stdout.decode().split("\0")[:-1] == odd, done.stdout)


@check("Standard input arrives whole, also when it is megabytes")
def _stdin(bench: Bench) -> None:
    text = bytes(range(256)) * (5 * _MIB // 256)
    done = sh(bench.computer(), "cat", stdin=text, keep_output_bytes=6 * _MIB)
    expect(done.stdout == text, f"{len(done.stdout)} of {len(text)} bytes, {done.end}")


@check("Without input a command reads the end of its input at once")
def _no_stdin(bench: Bench) -> None:
    computer = bench.computer()
    for stdin in (None, b""):
        done = sh(computer, "cat; echo done", stdin=stdin, timeout_seconds=10)
        expect(done.stdout == b"done\n" and done.end is ExecEnd.exited, done)


@check("A command that does not read its input ends all the same")
def _unread_stdin(bench: Bench) -> None:
    done = sh(bench.computer(), "exit 4", stdin=bytes(5 * _MIB), timeout_seconds=10)
    expect(done.exit_code == 4 and done.end is ExecEnd.exited, done)


@check("A command starts in the work directory, which $WORK names and which it may write")
def _work(bench: Bench) -> None:
    computer = bench.computer()
    told = out(computer, 'pwd; echo "$WORK"; touch "$WORK/file" && ls').split("\n")
    expect(told == [computer.work_dir, computer.work_dir, "file"], told)


@check("The work directory is /work", Feature.absolute_work)
def _absolute_work(bench: Bench) -> None:
    computer = bench.computer()
    expect(computer.work_dir == "/work" and out(computer, "cd / && ls -d /work") == "/work", computer.work_dir)


@check("What one command wrote the next one finds")
def _state(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "echo 41 >number")
    expect(out(computer, "cat number") == "41", "the file is gone")


@check("A command has the environment it was given and nothing of the worker's")
def _environment(bench: Bench) -> None:
    computer = bench.computer()
    names = out(computer, "env | sed -n 's/^\\([A-Za-z_]*\\)=.*/\\1/p'", env={"GIVEN": "x"}).split("\n")
    known = {"GIVEN", "WORK", "HOME", "PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME", "TMPDIR"}
    ours = {"COMPUTER_EXEC", "COMPUTER_ID"}
    expect("GIVEN" in names and set(names) <= known | ours, names)


@check("Values of the environment arrive as they are, and only for that one command")
def _values(bench: Bench) -> None:
    computer = bench.computer()
    value = "a 'b' \"c\" $d\nsecond line = ž"
    expect(out(computer, 'printf %s "$SECRET"', env={"SECRET": value}) == value, "the value changed")
    expect(out(computer, 'echo "[$SECRET]"') == "[]", "the next command has it too")


@check("Output is passed on while the command still runs")
def _live(bench: Bench) -> None:
    computer = bench.computer()
    seen: list[float] = []
    began = time.monotonic()
    sh(computer, "echo first; sleep 2", on_output=lambda _stream, _chunk: seen.append(time.monotonic() - began))
    expect(seen and seen[0] < time.monotonic() - began - 1, seen)


@check("Megabytes of output are passed on whole and in order")
def _much(bench: Bench) -> None:
    chunks: list[bytes] = []
    done = sh(bench.computer(), "seq 1 400000", on_output=lambda _stream, chunk: chunks.append(chunk))
    whole = b"".join(chunks)
    expect(whole == b"".join(b"%d\n" % number for number in range(1, 400_001)), f"{len(whole)} bytes, {done.end}")


@check("Of long output the end is kept, and it is said that it is not all")
def _tail(bench: Bench) -> None:
    done = sh(bench.computer(), "seq 1 100000; echo no >&2", keep_output_bytes=1000)
    expect(len(done.stdout) == 1000 and done.stdout.endswith(b"100000\n") and done.truncated, done)
    expect(done.stderr == b"no\n", done.stderr)
    short = sh(bench.computer(), "echo x", keep_output_bytes=1000)
    expect(not short.truncated, "short output counts as truncated")


@check("Two commands run at the same time in one computer")
def _parallel(bench: Bench) -> None:
    computer = bench.computer()
    answers: list[str] = []
    waits = "i=0; while [ ! -e go ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.05; done; test -e go && echo met"
    waiter = threading.Thread(target=lambda: answers.append(out(computer, waits)))
    waiter.start()
    out(computer, "touch go")
    waiter.join()
    expect(answers == ["met"], answers)


@check("A command that closes its output is still awaited")
def _closed_output(bench: Bench) -> None:
    done = sh(bench.computer(), "exec >&- 2>&-; sleep 1; exit 5")
    expect(done.exit_code == 5 and done.duration_ms >= 900, done)


@check("A command in the background does not hold up the result for long")
def _background_output(bench: Bench) -> None:
    done = sh(bench.computer(), "sleep 60 & echo ready")
    expect(done.end is ExecEnd.exited and done.stdout == b"ready\n" and done.duration_ms < 10_000, done)


@check("What a command leaves in the background lives on until the computer goes", Feature.background)
def _background(bench: Bench) -> None:
    computer = bench.computer()
    out(computer, "(while [ ! -e go ]; do sleep 0.05; done; echo yes >answer) >/dev/null 2>&1 &")
    waits = "touch go; i=0; while [ ! -e answer ] && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.05; done; cat answer"
    expect(out(computer, waits) == "yes", "it is gone")
