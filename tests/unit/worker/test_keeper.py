"""The keeper: what it holds, to whom it gives it, and when it clears away; and the spool beside it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from worker.computer.spool import Spool
from worker.keeper import wire
from worker.keeper.process import Keeper


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A keeper on a thread, and the daemons that come and go."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = Clock()
        self.sweeps: list[str] = []
        self.can_sweep = threading.Event()
        self.can_sweep.set()
        self.tried = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with wire.address(home) as path:
            self.listener.bind(path)
        self.listener.listen()
        self.daemon, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.keeper = Keeper(listener=self.listener, client=theirs, sweep=self._sweep, clock=self.clock)
        self.thread = threading.Thread(target=self.keeper.run, daemon=True)
        self.thread.start()

    def _sweep(self) -> bool:
        self.tried.set()
        if self.can_sweep.is_set():
            self.sweeps.append("all")
        return self.can_sweep.is_set()

    def come(self) -> tuple[dict[str, tuple[dict[str, object], list[int]]], float | None]:
        """A daemon that asks what there is."""
        self.daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with wire.address(self.home) as path:
            self.daemon.connect(path)
        wire.send(self.daemon, {"op": wire.TAKE})
        found: dict[str, tuple[dict[str, object], list[int]]] = {}
        while (packet := wire.receive(self.daemon)) is not None:
            message, descriptors = packet
            if message["op"] == wire.DONE:
                return found, message["until"]
            found[message["attempt"]] = (message["handle"], descriptors)
        raise AssertionError("the keeper went away")

    def ended(self) -> bool:
        self.thread.join(10)
        return not self.thread.is_alive()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    made = Kept(deep)
    yield made
    made.can_sweep.set()
    with suppress(OSError):
        wire.send(made.daemon, {"op": wire.BYE})
    made.daemon.close()
    assert made.ended()
    made.listener.close()


def unexpected(error: OSError) -> None:
    raise AssertionError("the spool broke") from error


def hold(kept: Kept, attempt: str) -> int:
    """Give the keeper one end of a pipe, and keep none of it; the other end is answered."""
    out, into = os.pipe()
    wire.send(kept.daemon, {"op": wire.HOLD, "attempt": attempt, "handle": {"exec": attempt}}, [out])
    os.close(out)
    return into


def test_what_one_daemon_gave_the_next_one_gets_with_everything_that_was_written_meanwhile(kept: Kept) -> None:
    into = hold(kept, "a1")
    wire.send(kept.daemon, {"op": wire.RENEW, "until": 1030.0})
    kept.daemon.close()
    os.write(into, b"while nobody was there")
    found, until = kept.come()
    handle, (out,) = found["a1"]
    assert (handle, until) == ({"exec": "a1"}, 1030.0)
    assert os.read(out, 100) == b"while nobody was there"
    assert kept.sweeps == []
    os.close(out)
    os.close(into)


def test_what_is_dropped_is_held_by_nobody(kept: Kept) -> None:
    into = hold(kept, "a1")
    wire.send(kept.daemon, {"op": wire.DROP, "attempt": "a1"})
    wire.send(kept.daemon, {"op": wire.BYE})
    assert kept.ended()
    with pytest.raises(BrokenPipeError):
        os.write(into, b"x")
    assert kept.sweeps == []
    os.close(into)


def test_one_that_holds_nothing_clears_away_and_ends_at_once_when_its_daemon_dies(kept: Kept) -> None:
    wire.send(kept.daemon, {"op": wire.RENEW, "until": 9999.0})
    kept.daemon.close()
    assert kept.ended()
    assert kept.sweeps == ["all"]


def test_when_the_time_is_over_it_lets_go_clears_away_and_ends(kept: Kept) -> None:
    into = hold(kept, "a1")
    wire.send(kept.daemon, {"op": wire.RENEW, "until": 999.0})
    kept.daemon.close()
    assert kept.ended()
    assert kept.sweeps == ["all"]
    with pytest.raises(BrokenPipeError):
        os.write(into, b"x")
    os.close(into)


def test_a_daemon_that_comes_while_it_cannot_clear_away_finds_it_empty_handed(kept: Kept) -> None:
    kept.can_sweep.clear()
    into = hold(kept, "a1")
    wire.send(kept.daemon, {"op": wire.RENEW, "until": 999.0})
    kept.daemon.close()
    assert kept.tried.wait(10)
    assert kept.come()[0] == {}
    assert kept.sweeps == []
    os.close(into)


def test_a_spool_stores_what_it_reads_and_tells_it_again(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    spool = Spool(tmp_path / "s", on_broken=unexpected)
    with pytest.raises(BlockingIOError):
        spool.pull(ours.fileno())
    theirs.sendall(b"first ")
    assert spool.pull(ours.fileno()) == b"first "
    # Killed here: what it had moved on its way to the file lies in the pipe, which somebody else holds.
    theirs.sendall(b"second ")
    os.splice(ours.fileno(), spool.pipe[1], 100)
    theirs.sendall(b"third")
    heir = Spool(tmp_path / "s", pipe=(os.dup(spool.pipe[0]), os.dup(spool.pipe[1])), on_broken=unexpected)
    assert b"".join(heir.replay()) == b"first second "
    assert heir.pull(ours.fileno()) == b"third"
    theirs.close()
    assert heir.pull(ours.fileno()) == b""
    assert b"".join(heir.replay()) == b"first second third"
    for end in (spool, heir, ours):
        end.close()


def test_a_spool_that_cannot_store_is_given_up_and_nothing_that_was_read_is_lost(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    broken: list[OSError] = []
    spool = Spool(Path("/dev/full"), on_broken=broken.append)
    theirs.sendall(b"some output")
    assert spool.pull(ours.fileno()) == b"some output"
    assert len(broken) == 1
    theirs.sendall(b"more")
    assert spool.pull(ours.fileno()) == b"more"
    spool.close()
    ours.close()
    theirs.close()
