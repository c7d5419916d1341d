"""The real web server as a child process, and the queue it serves, moved by the test itself."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import httpx
import simple_websocket
from flask import Flask
from simple_websocket import ConnectionClosed

from coordinator.config import Settings, load_settings
from coordinator.domains.identity.rights import Role
from coordinator.http import auth
from coordinator.resources import Resources, make_resources
from tests.factories.people import credentials_of, make_person
from tests.services import processes
from tests.services.ports import free_port

_SERVE = """
import json, sys
from coordinator.config import load_settings
from coordinator.http.server import run
run(load_settings(**json.loads(sys.argv[1])))
"""


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class WebServer:
    """A coordinator's web tier on its own database, with `resources` on the same one for the test to write with."""

    def __init__(self, directory: Path, database_url: str, redis_url: str, **choices: Any) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        given = {
            "home": str(directory),
            "database_url": database_url,
            "redis_url": redis_url,
            "secret_key": "tests-" + "0" * 42,
            "master_key": "tests-" + "1" * 42,
            "bind": self.address,
            "log_format": "json",
            **choices,
        }
        self.settings: Settings = load_settings(**given)
        self.resources: Resources = make_resources(self.settings)
        argv = [sys.executable, "-c", _SERVE, json.dumps(given)]
        self.child = processes.start(argv, log=directory / "web.log")
        try:
            self.child.wait_until(self._answers, what="an answer")
        except BaseException:
            self.child.stop()
            raise
        self._app = Flask(__name__)
        auth.install_jwt(self._app, self.resources)
        tokens = auth.Tokens(self.resources)
        self._app.extensions["longshore"] = SimpleNamespace(resources=self.resources, tokens=tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()
        self.resources.database.dispose()
        self.resources.redis.close()

    def token(self, role: Role = Role.VIEWER, *, seconds: int = 1800) -> str:
        """An access token of somebody new with this role."""
        person = make_person(self.resources.database, role=role)
        return credentials_of(self._app, person, seconds=seconds)["Authorization"].removeprefix("Bearer ")

    def get(self, path: str, *, token: str | None = None, seconds: float = 30) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.get(f"http://{self.address}{path}", headers=headers, timeout=seconds)

    def connect(self, path: str, *, token: str | None = None, **headers: str) -> Socket:
        """An open WebSocket; `token` goes into the query."""
        query = "" if token is None else f"{'&' if '?' in path else '?'}token={token}"
        return Socket(f"ws://{self.address}/api/v1{path}{query}", headers)

    def refusal(self, path: str, *, token: str | None = None, **headers: str) -> int:
        """The HTTP status with which a handshake is refused."""
        answer = httpx.get(
            f"http://{self.address}/api/v1{path}",
            params=None if token is None else httpx.QueryParams(path.partition("?")[2]).set("token", token),
            headers={**HANDSHAKE, **headers},
            timeout=30,
        )
        assert answer.json()["error"]["code"]
        return answer.status_code

    def raw(self, path: str, token: str, *, receive_bytes: int) -> socket.socket:
        """A handshake done, and then silence: a reader that reads only when told."""
        host, _, port = self.address.partition(":")
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.settimeout(30)
        plain.connect((host, int(port)))
        lines = [
            f"GET /api/v1{path}?token={token} HTTP/1.1",
            f"Host: {self.address}",
            *(f"{name}: {value}" for name, value in HANDSHAKE.items()),
        ]
        plain.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = plain.recv(12)
        assert answer == b"HTTP/1.1 101", answer
        return plain

    def _answers(self) -> bool:
        try:
            return self.get("/health", seconds=5).status_code == 200
        except httpx.TransportError:
            return False


class Socket:
    """A WebSocket as a client has it: messages as dictionaries, and how it was closed."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = simple_websocket.Client.connect(url, headers=headers)

    def say(self, message: Any) -> None:
        self._client.send(message if isinstance(message, str) else json.dumps(message))

    def hear(self, *, seconds: float = 15) -> dict[str, Any]:
        """The next message."""
        text = self._client.receive(timeout=seconds)
        assert text is not None, f"nothing came for {seconds} s"
        message: dict[str, Any] = json.loads(text)
        return message

    def hear_until(self, enough: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Every message up to and with the first that is `enough`."""
        heard = [self.hear()]
        while not enough(heard[-1]):
            heard.append(self.hear())
        return heard

    def ask(self, message: Any) -> dict[str, Any]:
        self.say(message)
        return self.hear()

    def end(self) -> tuple[list[dict[str, Any]], int, str | None]:
        """What still comes, and the code and reason with which the server closes."""
        heard = []
        try:
            while True:
                heard.append(self.hear())
        except ConnectionClosed as closed:
            return heard, int(closed.reason), closed.message

    def close(self) -> None:
        with suppress(ConnectionClosed):
            self._client.close()
