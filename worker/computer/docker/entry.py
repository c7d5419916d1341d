"""How work enters a container: one exec for each command, and the execs that end it again."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

from worker.computer.contract import ComputerLost, Lifeline
from worker.computer.docker.engine import Engine, EngineError, container_path
from worker.computer.docker.frames import FrameDecoder
from worker.computer.docker.recipe import JOB_USER, exec_body
from worker.computer.running import MARKER
from worker.computer.supervise import OutputSource

Begun = TypeVar("Begun")

_KILLED = 137
_GONE = (404, 409)
_BEGIN_AGAIN = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, None)
_NEVER_BEGAN = ("read init-p", "connection reset by peer", "resource temporarily unavailable")
_SECOND_LOOKS = (0.0, 0.05, 0.15)

# Signals every process whose environment holds the marker, again and again until none is left. `tr` and `grep`
# are in every image that has a shell worth the name; without them the caller's patience leads to kill_everything.
_SWEEP = (
    "for round in 1 2 3 4 5 6 7 8 9 10; do found=; for e in /proc/[0-9]*/environ; do p=${e#/proc/}; p=${p%/environ}; "
    '[ "$p" = $$ ] && continue; if tr "\\000" "\\n" <"$e" 2>/dev/null | grep -qxF "$MARK"; then kill "-$SIGNAL" "$p" '
    '2>/dev/null && found=1; fi; done; [ -n "$found" ] && [ "$SIGNAL" = 9 ] || break; done'
)
_KILL_EVERYTHING = "kill -9 -1"


class ContainerEntry:
    """Starts commands in one container as the job's user."""

    def __init__(self, engine: Engine, container: str, *, on_lost: Callable[[], ComputerLost], alone: bool) -> None:
        self._engine = engine
        self._container = container
        self._on_lost = on_lost
        self._alone = alone
        self._lock = threading.Lock()
        self._running = 0

    def start(self, argv: Sequence[str], env: Mapping[str, str], *, with_stdin: bool) -> StartedExec:
        with self._lock:
            self._running += 1
        try:
            exec_id, sock = self._begin(argv, env, with_stdin=with_stdin, user=JOB_USER)
        except BaseException:
            self._ended()
            raise
        marker = env.get(MARKER, "")
        return StartedExec(self, exec_id, sock, marker=marker, with_stdin=with_stdin, on_close=self._ended)

    def again(self, exec_id: str, sock: socket.socket, marker: str) -> StartedExec:
        """A command that an earlier process of this node started."""
        with self._lock:
            self._running += 1
        return StartedExec(self, exec_id, sock, marker=marker, with_stdin=False, on_close=self._ended)

    def ask(self, script: str, *, user: str) -> StartedQuestion:
        """Starts a question of our own: it does not count as a command, so it never changes how one is ended."""
        exec_id, sock = self._begin(["sh", "-c", script], {}, with_stdin=False, user=user)
        return StartedQuestion(self, exec_id, sock, marker="", with_stdin=False, on_close=_nothing)

    def _begin(
        self, argv: Sequence[str], env: Mapping[str, str], *, with_stdin: bool, user: str
    ) -> tuple[str, socket.socket]:
        """A command that runs, and its streams."""

        def begin() -> tuple[str, socket.socket]:
            exec_id = self.create(argv, env, with_stdin=with_stdin, user=user)
            return exec_id, self._engine.hijack(_exec_path(exec_id, "start"), {"Detach": False, "Tty": False})

        return self._until_begun(begin)

    def _until_begun(self, begin: Callable[[], Begun]) -> Begun:
        """What `begin` starts, begun anew as long as nothing of it has run.

        The runtime's own process inside the container can be killed before it becomes the command: by a kill of
        everything that is still going round, or for want of a process under the limit.
        """
        for pause in _BEGIN_AGAIN:
            try:
                return begin()
            except EngineError as error:
                if pause is None or not any(words in str(error) for words in _NEVER_BEGAN):
                    raise self._told(error) from error
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def create(
        self, argv: Sequence[str], env: Mapping[str, str], *, with_stdin: bool = False, user: str = JOB_USER
    ) -> str:
        body = exec_body(list(argv), env, user=user, with_stdin=with_stdin)
        try:
            answer = self._engine.post(container_path(self._container, "exec"), body=body)
        except EngineError as error:
            raise self._told(error) from error
        return str(answer["Id"])

    def detached(self, script: str, env: Mapping[str, str]) -> str:
        """Starts a helper without reading it: its end may not be told while a flooding neighbour is not read."""

        def begin() -> str:
            exec_id = self.create(["sh", "-c", script], env)
            self._engine.post(_exec_path(exec_id, "start"), body={"Detach": True, "Tty": False})
            return exec_id

        return self._until_begun(begin)

    def exit_code(self, exec_id: str, *, killed_by_us: bool = True) -> int | None:
        try:
            state = self._engine.get(_exec_path(exec_id, "json"))
        except EngineError as error:
            raise self._told(error) from error
        if state["Running"] or state["ExitCode"] is None:
            return None
        code = int(state["ExitCode"])
        if code == _KILLED and not killed_by_us:
            self._check_alive()
        return code

    def signal(self, marker: str, number: int) -> None:
        """All processes of one command, or simply all when it has the computer to itself."""
        with self._lock:
            by_itself = self._alone and self._running <= 1
        if number == 9 and by_itself:
            self.kill_everything()
        else:
            self.detached(_SWEEP, {"MARK": f"{MARKER}={marker}", "SIGNAL": str(number)})

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether no command runs in a task's computer: after a kill only the keepers should be there."""
        with self._lock:
            return self._alone and self._running == 0

    def kill_everything(self) -> str:
        return self.detached(_KILL_EVERYTHING, {})

    def kill_container(self) -> None:
        try:
            self._engine.post(container_path(self._container, "kill"))
        except EngineError as error:
            if error.status_code not in _GONE:
                raise

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1

    def _check_alive(self) -> None:
        """A command that we did not kill died by SIGKILL: alone, or because all of the container did?

        The daemon tells the end of a command before the end of the container that caused it, so ask some times.
        """
        for pause in _SECOND_LOOKS:
            time.sleep(pause)
            try:
                state = self._engine.get(container_path(self._container, "json"))["State"]
            except EngineError as error:
                raise self._told(error) from error
            if not state["Running"]:
                raise self._on_lost()

    def _told(self, error: EngineError) -> Exception:
        return self._on_lost() if error.status_code in _GONE else error


class StartedExec:
    """One exec under way; its socket carries both streams in frames and takes the input."""

    exit_fd: int | None = None

    def __init__(
        self,
        entry: ContainerEntry,
        exec_id: str,
        sock: socket.socket,
        *,
        marker: str,
        with_stdin: bool,
        on_close: Callable[[], None],
    ) -> None:
        self._entry = entry
        self._exec_id = exec_id
        self._sock = sock
        self._marker = marker
        self._on_close = on_close
        self._killed = False
        self._lifeline: Lifeline | None = None
        sock.setblocking(False)
        self.outputs: Sequence[OutputSource] = [OutputSource(sock.fileno(), FrameDecoder())]
        # Its own descriptor, because a selector wants one for reading and one for writing.
        self.stdin = os.dup(sock.fileno()) if with_stdin else None

    def tie(self, lifeline: Lifeline) -> None:
        """From when the command has all its input it can do without us."""
        self._lifeline = lifeline
        if self.stdin is None:
            self._hold()

    def end_input(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
            self._sock.shutdown(socket.SHUT_WR)
            self._hold()

    def _hold(self) -> None:
        if self._lifeline is not None:
            self._lifeline.hold(self._sock.fileno(), {"exec": self._exec_id, "marker": self._marker})

    def exit_code(self) -> int | None:
        return self._entry.exit_code(self._exec_id, killed_by_us=self._killed)

    def settle(self) -> None:
        """What a command leaves in the background lives on until the computer goes."""

    def terminate(self) -> None:
        self._entry.signal(self._marker, 15)

    def kill(self) -> None:
        self._killed = True
        self._entry.signal(self._marker, 9)

    def kill_hard(self) -> None:
        self._entry.kill_container()

    def close(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
        self._sock.close()
        self._on_close()


class StartedQuestion(StartedExec):
    """A question of ours under way. It ends by itself: ending it as a command is ended would end the job's command."""

    def terminate(self) -> None:
        """Its answer is no longer waited for."""

    def kill(self) -> None:
        """Its answer is no longer waited for."""

    def kill_hard(self) -> None:
        """Its answer is no longer waited for."""


def _nothing() -> None:
    """A question of ours is not counted."""


def _exec_path(exec_id: str, what: str) -> str:
    return f"/exec/{quote(exec_id, safe='')}/{what}"
