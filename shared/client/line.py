"""One keep-alive connection of one loop to the coordinator, on http.client.

A node under load makes hundreds of small requests a second. httpx costs it 0.9 ms of CPU for each, which was two fifths
of all that a node did; http.client costs 0.2 ms. Everything that is not on that path uses `Connection`.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

import shared
from shared.client.errors import Unreachable, error_of

_BROKEN = (OSError, http.client.HTTPException)


class Line:
    """Sends JSON, brings back JSON. One request at a time; a second thread waits for the first.

    A connection that the other side closed while it lay idle is made anew without a word. What is sent here must bear
    being sent twice, as all of the node protocol does.
    """

    def __init__(self, url: str, *, token: str, timeout: float = 10.0, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._timeout = timeout
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {
            "authorization": f"Bearer {token}",
            "user-agent": f"longshore/{shared.__version__}",
            "accept": "application/json",
            "content-type": "application/json",
        }
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def call(self, method: str, path: str, body: Any = None, *, timeout: float | None = None) -> Any:
        """Send JSON (a value, or bytes that are JSON already), answer the JSON of the reply; raises our errors."""
        content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        with self._lock:
            status, answer, retry_after = self._exchange(method, path, content, timeout or self._timeout)
        if status >= 400:
            raise error_of(status, answer, retry_after=retry_after)
        return orjson.loads(answer) if answer else None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _exchange(self, method: str, path: str, content: bytes | None, timeout: float) -> tuple[int, bytes, str | None]:
        was_open = self._is_open()
        try:
            return self._ask(method, path, content, timeout)
        except TimeoutError as error:
            raise self._unreachable(error) from error
        except _BROKEN as error:
            if not was_open:
                raise self._unreachable(error) from error
        # It was closed between our look at it and our request.
        self._drop()
        try:
            return self._ask(method, path, content, timeout)
        except _BROKEN as error:
            raise self._unreachable(error) from error

    def _ask(self, method: str, path: str, content: bytes | None, timeout: float) -> tuple[int, bytes, str | None]:
        connection = self._connection or self._connect(timeout)
        assert connection.sock is not None
        connection.sock.settimeout(timeout)
        connection.request(method, self._path + path, body=content, headers=self._headers)
        response = connection.getresponse()
        if response.length is None and not response.chunked:
            # http.client takes an answer that was cut off in its head for a whole one.
            raise http.client.HTTPException("the answer does not say how long it is")
        answer = response.read()
        if response.will_close:
            self._drop()
        return response.status, answer, response.headers.get("retry-after")

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._tls
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        made.connect()
        # Header and body are two writes; without this the second may wait for the acknowledgement of the first.
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = made
        return made

    def _is_open(self) -> bool:
        """Whether there is a connection that the other side has not closed: a quiet one has nothing to read."""
        sock = self._connection.sock if self._connection is not None else None
        if sock is None:
            self._drop()
            return False
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if poll.poll(0):
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _unreachable(self, error: Exception) -> Unreachable:
        self._drop()
        return Unreachable(f"the coordinator does not answer: {str(error) or type(error).__name__}")
