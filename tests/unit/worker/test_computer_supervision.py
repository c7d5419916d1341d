"""The loop that watches a command, the finding of processes and the holders, without any container."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from worker.computer.contract import ComputerError, ExecEnd
from worker.computer.docker.engine import EngineError
from worker.computer.docker.holders import Holders
from worker.computer.docker.recipe import Identity
from worker.computer.output import Output
from worker.computer.process import hosting
from worker.computer.process.hosting import ProcessId
from worker.computer.supervise import Outcome, OutputSource, Terms, supervise


class Pipe:
    """A command under way that the test plays itself: what it writes is the output, `finish` ends it."""

    exit_fd: int | None = None

    def __init__(self, *, with_stdin: bool = False) -> None:
        read, self.write_end = os.pipe()
        self.outputs: Sequence[OutputSource] = [OutputSource(read, lambda data: [("stdout", data)])]
        self._read = read
        self.input_end: int | None = None
        self.stdin: int | None = None
        if with_stdin:
            self.input_end, self.stdin = os.pipe()
        self.calls: list[str] = []
        self.code: int | None = None
        self.dies = True

    def say(self, text: bytes) -> None:
        os.write(self.write_end, text)

    def finish(self, code: int) -> None:
        self.code = code
        os.close(self.write_end)

    def end_input(self) -> None:
        assert self.stdin is not None
        os.close(self.stdin)
        self.stdin = None

    def exit_code(self) -> int | None:
        return self.code

    def settle(self) -> None:
        self.calls.append("settle")

    def terminate(self) -> None:
        self.calls.append("terminate")

    def kill(self) -> None:
        self.calls.append("kill")
        if self.dies and self.code is None:
            self.finish(137)

    def kill_hard(self) -> None:
        self.calls.append("kill_hard")
        self.finish(137)

    def close(self) -> None:
        self.calls.append("close")
        os.close(self._read)


def _output(**changes: Any) -> Output:
    return Output(**{"on_output": None, "max_bytes": 1000, "keep_bytes": 1000} | changes)


def _run(pipe: Pipe, output: Output, **terms: Any) -> Outcome:
    return supervise(pipe, output, Terms(**{"timeout_seconds": 10.0} | terms))


def test_a_command_that_ends_is_told_with_its_code() -> None:
    pipe, output = Pipe(), _output()
    pipe.say(b"hello")
    pipe.finish(3)
    outcome = _run(pipe, output)
    assert (outcome.end, outcome.exit_code, output.kept("stdout")) == (ExecEnd.exited, 3, b"hello")
    assert pipe.calls == ["close"]


def test_a_deadline_kills_and_keeps_what_was_said() -> None:
    pipe, output = Pipe(), _output()
    pipe.say(b"partly")
    outcome = _run(pipe, output, timeout_seconds=0.05)
    assert (outcome.end, outcome.exit_code, output.kept("stdout")) == (ExecEnd.timeout, 137, b"partly")
    assert pipe.calls == ["kill", "close"]


def test_cancelling_asks_first_and_kills_after_the_grace() -> None:
    pipe, cancel = Pipe(), threading.Event()
    cancel.set()
    outcome = _run(pipe, _output(), cancel=cancel, grace_seconds=0.05)
    assert outcome.end is ExecEnd.cancelled
    assert pipe.calls == ["terminate", "kill", "close"]


def test_what_obeys_within_the_grace_is_still_swept_for_its_children() -> None:
    pipe, cancel = Pipe(), threading.Event()
    cancel.set()
    pipe.terminate = lambda: pipe.finish(0)  # type: ignore[method-assign]
    outcome = _run(pipe, _output(), cancel=cancel, grace_seconds=30)
    assert (outcome.end, outcome.exit_code) == (ExecEnd.cancelled, 0)
    assert "kill" in pipe.calls


def test_a_flood_is_ended_also_when_its_source_already_did() -> None:
    pipe = Pipe()
    pipe.say(b"x" * 50)
    pipe.finish(0)
    assert _run(pipe, _output(max_bytes=10)).end is ExecEnd.output_limit
    assert "kill" in pipe.calls


def test_the_disk_watch_ends_a_command() -> None:
    pipe, over = Pipe(), threading.Event()
    over.set()
    assert _run(pipe, _output(), over_quota=over).end is ExecEnd.disk_limit


def test_what_survives_a_kill_meets_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.computer.supervise._KILL_PATIENCE_SECONDS", 0.05)
    pipe = Pipe()
    pipe.dies = False
    assert _run(pipe, _output(), timeout_seconds=0.01).end is ExecEnd.timeout
    assert pipe.calls == ["kill", "kill_hard", "close"]


def test_what_survives_even_that_is_an_error_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.computer.supervise._KILL_PATIENCE_SECONDS", 0.05)
    pipe = Pipe()
    pipe.dies = False
    pipe.kill_hard = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ComputerError, match="could not be ended"):
        _run(pipe, _output(), timeout_seconds=0.01)
    os.close(pipe.write_end)


def test_a_listener_that_fails_does_not_leave_the_command_running() -> None:
    pipe = Pipe()

    def broken(stream: str, chunk: bytes) -> None:
        raise ZeroDivisionError

    pipe.say(b"x")
    with pytest.raises(ZeroDivisionError):
        _run(pipe, _output(on_output=broken))
    assert pipe.calls == ["kill", "close"]


def test_input_is_written_whole_and_then_ended() -> None:
    pipe = Pipe(with_stdin=True)
    taken: list[bytes] = []

    def read_all() -> None:
        assert pipe.input_end is not None
        with os.fdopen(pipe.input_end, "rb") as source:
            taken.append(source.read())
        pipe.finish(0)

    reader = threading.Thread(target=read_all)
    reader.start()
    supervise(pipe, _output(), Terms(10.0), b"y" * 300_000)
    reader.join()
    assert taken == [b"y" * 300_000]


# ---- processes


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], env={"COMPUTER_EXEC": "unit", "PATH": os.defpath}) as process:
        yield process
        process.kill()


def test_a_process_is_hit_only_under_its_own_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    found = hosting.process_id(sleeper.pid)
    assert found is not None
    assert not hosting.send(ProcessId(found.pid, found.started + 1), signal.SIGKILL)
    assert sleeper.poll() is None
    assert hosting.send(found, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    assert not hosting.send(found, signal.SIGKILL)


def test_processes_are_found_by_what_their_environment_holds(sleeper: subprocess.Popen[bytes]) -> None:
    assert [found.pid for found in hosting.with_variable("COMPUTER_EXEC", "unit")] == [sleeper.pid]
    assert list(hosting.with_variable("COMPUTER_EXEC", "uni")) == []
    assert sleeper.pid in [found.pid for found in hosting.descendants(os.getpid())]


# ---- holders


class FakeEngine:
    """Answers the few calls that holders make."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self._made = 0

    def post(self, path: str, query: object = None, body: object = None) -> Any:
        if path == "/containers/create":
            self._made += 1
            self.alive.append(f"h{self._made}")
            return {"Id": f"h{self._made}"}
        return None

    def get(self, path: str, query: object = None) -> Any:
        if path.split("/")[2] not in self.alive:
            raise EngineError(404, "No such container")
        return {"State": {"Running": True}}

    def delete(self, path: str, query: object = None) -> None:
        name = path.split("/")[2]
        if name not in self.alive:
            raise EngineError(404, "No such container")
        self.alive.remove(name)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def _holders(engine: FakeEngine, now: list[float]) -> Holders:
    return Holders(engine, Identity("o", "n"), image="i", runtime=None, clock=lambda: now[0])  # type: ignore[arg-type]


def test_a_holder_is_lent_to_one_computer_at_a_time_and_used_again(engine: FakeEngine) -> None:
    holders = _holders(engine, [0.0])
    first, second = holders.borrow(), holders.borrow()
    assert first.container != second.container
    holders.give_back(first)
    assert holders.borrow() is first
    assert holders.known == {"h1", "h2"}


def test_a_worn_holder_is_removed_instead_of_lent_again(engine: FakeEngine) -> None:
    now = [0.0]
    holders = _holders(engine, now)
    holder = holders.borrow()
    now[0] = 4000.0
    holders.give_back(holder)
    assert engine.alive == []
    for _ in range(200):
        holder = holders.borrow()
        holders.give_back(holder)
    assert holder.uses == 200
    assert engine.alive == []


def test_a_dead_holder_is_told_and_its_kind_start_afresh(engine: FakeEngine) -> None:
    holders = _holders(engine, [0.0])
    dead, free = holders.borrow(), holders.borrow()
    holders.give_back(free)
    engine.alive.clear()
    assert not holders.take_back(dead)
    assert holders.known == frozenset()
    assert holders.borrow().container == "h3"


def test_a_living_holder_is_taken_back(engine: FakeEngine) -> None:
    holders = _holders(engine, [0.0])
    holder = holders.borrow()
    assert holders.take_back(holder)
    assert holders.borrow() is holder


def test_closing_removes_what_is_free(engine: FakeEngine) -> None:
    holders = _holders(engine, [0.0])
    lent, free = holders.borrow(), holders.borrow()
    holders.give_back(free)
    holders.close()
    assert engine.alive == [lent.container]
    holders.give_back(lent)
    assert engine.alive == []
