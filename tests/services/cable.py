"""A cable between a program and a server on this machine that can be pulled without either side being told."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

_CHUNK = 65536


class Cable:
    """Listens on a port of its own and carries bytes to the server and back.

    `cut` makes the connections that there are carry nothing any more, and keeps them open: to both sides it looks as if
    the other had nothing to say. Connections made later are not concerned.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._dead: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="cable")
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self) -> int:
        """Let what is connected now hang; answers how many connections that are."""
        with self._lock:
            ends = list(self._pairs)
            for end in ends:
                self._selector.unregister(end)
            self._dead += ends
            self._pairs.clear()
        return len(ends) // 2

    def close(self) -> None:
        self._wake.send(b"!")
        self._thread.join()
        for each in (*self._pairs, *self._dead, self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._carry(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        here, _ = self._listener.accept()
        there = socket.create_connection(self._target)
        with self._lock:
            for one, other in ((here, there), (there, here)):
                self._pairs[one] = other
                self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, end: socket.socket) -> None:
        with self._lock:
            other = self._pairs.get(end)
            if other is None:
                return
            with suppress(OSError):
                if data := end.recv(_CHUNK):
                    other.sendall(data)
                    return
            for one in (end, other):
                self._pairs.pop(one)
                self._selector.unregister(one)
                one.close()
