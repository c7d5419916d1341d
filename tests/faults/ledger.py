"""What jobs really did, as seen by somebody who is no part of Longshore: a server to which each of them holds a line.

A job connects, says who it is, and says so again when it is done. The connection stays open for as long as any process
of its computer lives, so the kernel tells when a computer is gone. All moments are of one clock, the ledger's own.
"""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_CLONE_NEWNET = 0x40000000
_SCRIPT = """exec bash -c '
exec 3<>/dev/tcp/{host}/{port} || exit 71
echo "start $JOB_ID $ATTEMPT {mark}" >&3
read -r told <&3 || exit 72
{body}
echo "end $JOB_ID $ATTEMPT" >&3
read -r told <&3 || exit 73
'"""


@dataclass(slots=True)
class Run:
    """One attempt that really ran. Times are of the ledger's clock; None means not yet."""

    job: str
    attempt: int
    mark: str
    started: float
    ended: float | None = None
    gone: float | None = None
    """When the last process that held the line was gone."""


@dataclass
class Ledger:
    """Listens on every address, so that jobs in other network namespaces reach it too."""

    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("", 0), backlog=512)
        self.port: int = self._server.getsockname()[1]
        self._changed = threading.Condition()
        self._servers: list[socket.socket] = []
        self._serve_on(self._server)

    def close(self) -> None:
        for server in self._servers:
            # A thread in accept() notices this, and not a mere close.
            server.shutdown(socket.SHUT_RDWR)
            server.close()

    def listen_in(self, namespace: Path) -> None:
        """Listen in another network namespace too, on the same port."""
        made: list[socket.socket] = []

        def make() -> None:
            # Only this thread enters; the socket stays where it was made.
            with namespace.open() as handle:
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server(("", self.port), backlog=512))

        thread = threading.Thread(target=make, name="ledger abroad")
        thread.start()
        thread.join()
        self._serve_on(made[0])

    def _serve_on(self, server: socket.socket) -> None:
        self._servers.append(server)
        threading.Thread(target=self._accept, args=(server,), name="ledger", daemon=True).start()

    def script(self, body: str, *, host: str = "127.0.0.1", mark: str = "-") -> str:
        """A shell script that writes itself down around `body` (bash, without single quotes)."""
        return _SCRIPT.format(host=host, port=self.port, body=body, mark=mark)

    def of(self, jobs: Iterable[str]) -> list[Run]:
        """The runs of these jobs, in the order in which they began."""
        wanted = set(jobs)
        with self._changed:
            return [run for run in self.runs if run.job in wanted]

    def open(self) -> list[Run]:
        """The runs of which something still lives."""
        with self._changed:
            return [run for run in self.runs if run.gone is None]

    def wait_for(self, job: str, *, seconds: float) -> Run:
        """The first run of this job, once it has begun."""

        def find() -> Run | None:
            return next((run for run in self.runs if run.job == job), None)

        with self._changed:
            found = self._changed.wait_for(find, seconds)
        if found is None:
            raise TimeoutError(f"job {job} did not begin within {seconds} s")
        return found

    def wait_gone(self, run: Run, *, seconds: float) -> bool:
        """Whether nothing of the run is left, within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: run.gone is not None, seconds)

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), name="ledger line", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        run: Run | None = None
        with connection, connection.makefile("rwb", buffering=0) as line:
            try:
                for text in line:
                    run = self._note(text.decode().split(), run)
                    self._acknowledge(line)
            except OSError:
                pass  # A computer that is ended in the middle of a line resets the connection: it is gone, too.
        if run is not None:
            with self._changed:
                run.gone = time.monotonic()
                self._changed.notify_all()

    def _note(self, words: list[str], run: Run | None) -> Run | None:
        now = time.monotonic()
        with self._changed:
            match words:
                case ["start", job, attempt, mark]:
                    run = Run(job, int(attempt), mark, now)
                    self.runs.append(run)
                case ["end", _, _] if run is not None:
                    run.ended = now
                case _:
                    raise ValueError(f"a job said {words}")
            self._changed.notify_all()
        return run

    @staticmethod
    def _acknowledge(line: IO[bytes] | socket.SocketIO) -> None:
        line.write(b"ok\n")
