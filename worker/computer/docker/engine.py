"""A small client of the Docker Engine API: kept-alive connections and the raw stream of an exec, nothing else."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from worker.computer.contract import ComputerError, DriverUnavailable

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_NEWEST_KNOWN_API = (1, 47)
_TIMEOUT_SECONDS = 120.0
_READ_BYTES = 65536

Query = Mapping[str, str | int]


class EngineError(ComputerError):
    """The daemon answered with an error; `status_code` and its own words are kept."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(f"Docker answered {status_code}: {message}", status_code=status_code)
        self.status_code = status_code
        self.reason = message


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """One daemon. Safe to use from many threads: each call takes an idle connection or opens one."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or DEFAULT_SOCKET
        self._parts = urlsplit(self.url)
        if self._parts.scheme not in ("unix", "tcp", "http"):
            raise DriverUnavailable(f"cannot talk to Docker at {self.url!r}: use unix:///path or tcp://host:port")
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._prefix: str | None = None

    # -- calls

    def get(self, path: str, query: Query | None = None) -> Any:
        return self._json("GET", path, query, None)

    def post(self, path: str, query: Query | None = None, body: object = None) -> Any:
        return self._json("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> None:
        self._json("DELETE", path, query, None)

    def put_stream(self, path: str, query: Query, chunks: Iterable[bytes]) -> None:
        """Sends a body of unknown length, such as a tar made on the way."""
        connection = self._fresh()
        try:
            self._send(connection, self._target(path, query), chunks)
            self._checked(connection.getresponse())
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    @contextmanager
    def get_stream(self, path: str, query: Query) -> Iterator[http.client.HTTPResponse]:
        """A body read bit by bit; leaving early closes the connection, so the daemon stops sending."""
        with self._stream("GET", path, query) as response:
            yield response

    @contextmanager
    def post_stream(self, path: str, query: Query) -> Iterator[http.client.HTTPResponse]:
        """The same for a call that tells of its progress."""
        with self._stream("POST", path, query) as response:
            yield response

    @contextmanager
    def _stream(self, method: str, path: str, query: Query) -> Iterator[http.client.HTTPResponse]:
        connection = self._fresh()
        try:
            yield self._answer(connection, method, self._target(path, query))
        finally:
            connection.close()

    def hijack(self, path: str, body: object) -> socket.socket:
        """Starts an exec and hands over its raw connection."""
        connection = self._fresh()
        connection.connect()
        sock = connection.sock
        payload = json.dumps(body).encode()
        head = (
            f"POST {self._target(path, None)} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        try:
            sock.sendall(head.encode() + payload)
            _read_upgrade(sock)
        except OSError as error:
            sock.close()
            raise DriverUnavailable(f"the Docker daemon at {self.url} broke off: {error}") from error
        except BaseException:
            sock.close()
            raise
        sock.settimeout(None)
        return sock

    def version(self) -> Mapping[str, Any]:
        """Asked without a version in the path: the one call every daemon answers."""
        answer = self._exchange("GET", "/version", None, {})
        return dict(json.loads(answer))

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- inside

    def _json(self, method: str, path: str, query: Query | None, body: object) -> Any:
        headers = {} if body is None else {"Content-Type": "application/json"}
        payload = None if body is None else json.dumps(body).encode()
        answer = self._exchange(method, self._target(path, query), payload, headers)
        return json.loads(answer) if answer.strip() else None

    def _exchange(self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]) -> bytes:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._once(connection, method, target, payload, headers)
            except (http.client.HTTPException, ConnectionError):
                # An idle connection that the daemon closed meanwhile (a restart); a fresh one tells the truth.
                connection.close()
        fresh = self._fresh()
        try:
            return self._once(fresh, method, target, payload, headers)
        except (http.client.HTTPException, OSError) as error:
            fresh.close()
            raise self._unreachable(error) from error

    def _once(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        payload: bytes | None,
        headers: Mapping[str, str],
    ) -> bytes:
        connection.request(method, target, body=payload, headers=dict(headers))
        response = connection.getresponse()
        try:
            return self._checked(response)
        finally:
            self._give_back(connection, response)

    def _answer(self, connection: http.client.HTTPConnection, method: str, target: str) -> http.client.HTTPResponse:
        try:
            connection.request(method, target)
            response = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            self._checked(response)
        return response

    def _give_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        if response.will_close or not response.isclosed():
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def _checked(self, response: http.client.HTTPResponse) -> bytes:
        answer = response.read()
        if response.status >= 400:
            raise EngineError(response.status, _words(answer))
        return answer

    def _send(self, connection: http.client.HTTPConnection, target: str, chunks: Iterable[bytes]) -> None:
        try:
            headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
            connection.request("PUT", target, body=chunks, headers=headers, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            # The daemon refused before it read all of the body; its answer says why.
            return

    def _target(self, path: str, query: Query | None) -> str:
        suffix = f"?{urlencode(query)}" if query else ""
        return f"{self._versioned()}{path}{suffix}"

    def _versioned(self) -> str:
        if self._prefix is None:
            self._prefix = f"/v{api_version(str(self.version()['ApiVersion']))}"
        return self._prefix

    def _fresh(self) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path)
        return http.client.HTTPConnection(
            self._parts.hostname or "localhost", self._parts.port or 2375, timeout=_TIMEOUT_SECONDS
        )

    def _unreachable(self, error: Exception) -> DriverUnavailable:
        return DriverUnavailable(f"no Docker daemon answers at {self.url}: {error}")


def api_version(newest: str) -> str:
    """The newest version that both sides know."""
    major, minor = (int(part) for part in newest.split(".")[:2])
    return ".".join(str(part) for part in min((major, minor), _NEWEST_KNOWN_API))


def container_path(container: str, *rest: str) -> str:
    return "/".join(("/containers", quote(container, safe=""), *rest))


def _read_upgrade(sock: socket.socket) -> None:
    """Takes exactly the head of the answer from the socket; all that follows is the stream and stays in it."""
    head = b""
    while b"\r\n\r\n" not in head:
        seen = sock.recv(_READ_BYTES, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError("the daemon closed the connection before it answered")
        end = (head + seen).find(b"\r\n\r\n")
        head += sock.recv(len(seen) if end < 0 else end + 4 - len(head))
    status = int(head.split(b" ", 2)[1])
    if status not in (101, 200):
        raise EngineError(status, _words(_whole_body(sock, head)))


def _whole_body(sock: socket.socket, head: bytes) -> bytes:
    body, length = b"", 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length and (chunk := sock.recv(_READ_BYTES)):
        body += chunk
    return body


def _words(answer: bytes) -> str:
    text = answer.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text or "no reason given"
