"""WebSocket endpoints: declared in slices, admitted like requests, then handed from the web server to the event loop.

The web server's thread is free again as soon as the handshake is read: sockets cost plain requests nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from flask import Blueprint as FlaskBlueprint
from flask import Response, request
from wsproto import ConnectionType, WSConnection
from wsproto.utilities import RemoteProtocolError

from coordinator.config import Settings
from coordinator.domains.identity import ip_rules
from coordinator.http import asked_space, rights, websocket
from coordinator.http.actor import DEFAULT_SPACE, Actor
from coordinator.http.auth import Credential, Gatekeeper, shown
from coordinator.http.carrier import CARRIER
from coordinator.http.reading import QueryReader
from coordinator.http.rights import May, declared, precise
from coordinator.http.slice import Endpoint, Slice
from coordinator.http.stopping import when_stopping
from coordinator.http.talk import Session, Talk
from coordinator.http.trail import Clerk
from coordinator.http.websocket import Closing, Connection
from coordinator.http.witness import Witness, plain_address
from coordinator.http.wsgi import REQUEST_ID
from coordinator.resources import Resources
from shared.errors import BadRequest, Forbidden, Unauthenticated, Unavailable

WS = "WS"
"""The method of a declared WebSocket endpoint."""

UNKNOWN_SHARE = 4
"""At most one in so many sockets may be one that has not shown its token yet."""
REFUSALS = 64
"""So many more than allowed are told in words to come later; beyond, the handshake itself is refused."""

HANDSHAKE = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version")

when_stopping(CARRIER.shut_down)


@dataclass(frozen=True, slots=True)
class Opening:
    """An authenticated and authorised wish for a socket."""

    actor: Actor
    space: str
    query: Mapping[str, Any]
    resources: Resources


Handler = Callable[..., Session]


def declare(
    owner: Slice, path: str, *, may: May, query: Any = None, versions: tuple[Literal["v0", "v1"], ...] = ("v1",)
) -> Callable[[Handler], Handler]:
    """Declare a WebSocket endpoint in a slice; the handler makes its session."""
    alternatives = precise(declared(may), method=WS, creates=False, lists=False)

    def add(handler: Handler) -> Handler:
        owner.endpoints.append(
            Endpoint(
                method=WS,
                path=path,
                handler=handler,
                may=alternatives,
                name=handler.__name__,
                tag=owner.name,
                summary=(handler.__doc__ or "").strip().partition("\n")[0],
                description="",
                query=query,
                versions=versions,
                transaction="none",
                # OpenAPI has no words for sockets: the slice's own summary tells what there is.
                documented=False,
            )
        )
        return handler

    return add


def mount(
    blueprint: FlaskBlueprint,
    name: str,
    endpoint: Endpoint,
    *,
    resources: Resources,
    gate: Gatekeeper,
    clerk: Clerk,
) -> None:
    """Let the app serve a declared socket."""
    edge = SocketEdge(endpoint, resources, gate, clerk)
    FlaskBlueprint.add_url_rule(blueprint, endpoint.path, name, edge, methods=["GET"], websocket=True)


class SocketEdge:
    """The way of a handshake: origin, token, rights, query, and then out of the web server."""

    def __init__(self, endpoint: Endpoint, resources: Resources, gate: Gatekeeper, clerk: Clerk) -> None:
        self._endpoint = endpoint
        self._resources = resources
        self._gate = gate
        self._clerk = clerk
        self._query = None if endpoint.query is None else QueryReader(endpoint.query)

    def __call__(self, **path_args: str) -> Response:
        if request.method != "GET":
            raise BadRequest("a WebSocket is opened with GET")
        settings = self._resources.settings
        _refuse_other_origins()
        ip_rules.require_let_in(self._resources.database, plain_address(request.environ.get("REMOTE_ADDR")))
        token = self._shown_token(path_args)
        refusal = _refusal(settings, has_token=token is not None)
        handshake = _handshake()
        entrance = Entrance(
            self._endpoint,
            self._resources,
            self._gate,
            self._clerk,
            remote=request.environ.get("REMOTE_ADDR"),
            request_id=request.environ[REQUEST_ID],
            space=request.headers.get("X-Space") or request.args.get("space") or None,
            query=self._query.read(request) if self._query is not None else {},
            path_args=path_args,
        )
        known = entrance.enter(token) if token is not None and refusal is None else None
        try:
            taken, left_behind = _taken_over()
        except BaseException:
            if known is not None:
                known[1].leave()
            raise
        headers = [(b"X-Request-ID", str(request.environ[REQUEST_ID]).encode())]

        def make() -> Talk:
            return Talk(
                Connection(taken, handshake, ping_seconds=settings.live_ping_seconds),
                entrance,
                known=known,
                headers=headers,
                auth_seconds=settings.live_auth_seconds,
                now=self._resources.clock.now,
                refusal=refusal,
            )

        CARRIER.adopt(make)
        answer = Response(status=101)
        answer.call_on_close(left_behind.close)
        return answer

    def _shown_token(self, path_args: Mapping[str, str]) -> str | None:
        """The token that came with the handshake, if one did."""
        if "Authorization" not in request.headers and "X-API-Key" not in request.headers:
            return request.args.get("token") or None
        try:
            return self._gate.presented(request.headers).token
        except Unauthenticated as refusal:
            witness = Witness(request.environ.get("REMOTE_ADDR"), request.environ[REQUEST_ID])
            self._clerk.note(self._endpoint, witness, refusal, token=shown(request.headers), path_args=path_args)
            raise


@dataclass(slots=True)
class Entrance:
    """The way into one socket, for a token that came with the handshake and for one that comes after it."""

    endpoint: Endpoint
    resources: Resources
    gate: Gatekeeper
    clerk: Clerk
    remote: str | None
    request_id: str
    space: str | None
    query: Mapping[str, Any]
    path_args: Mapping[str, str]
    actor_id: str | None = None

    def admit(self, token: str) -> Credential:
        credential, _ = self._admitted(token)
        return credential

    def enter(self, token: str) -> tuple[Credential, Session]:
        credential, actor = self._admitted(token)
        opening = Opening(actor, actor.space, self.query, self.resources)
        session: Session = self.endpoint.handler(opening, **self.path_args)
        return credential, session

    def _admitted(self, token: str) -> tuple[Credential, Actor]:
        witness = Witness(self.remote, self.request_id)
        try:
            return self._known(token, witness)
        except (Unauthenticated, Forbidden) as refusal:
            self.clerk.note(self.endpoint, witness, refusal, token=token, path_args=self.path_args)
            raise

    def _known(self, token: str, witness: Witness) -> tuple[Credential, Actor]:
        credential = self.gate.examined(token)
        with self.resources.database.read() as tx:
            space = self.space or DEFAULT_SPACE
            actor = witness.actor = self.gate.admitted(tx, credential, space)
        asked_space.require_known(actor, space)
        rights.require(self.endpoint.may, actor, self.path_args)
        if self.actor_id not in (None, actor.id):
            raise Unauthenticated("this socket belongs to somebody else")
        self.actor_id = actor.id
        return credential, actor


def _refuse_other_origins() -> None:
    """A page of another site may not use a visitor's browser to connect here."""
    origin = request.headers.get("Origin")
    # Host names alone: proxies (and some clients) leave the port out of the Host header.
    if origin is not None and urlsplit(origin).hostname != urlsplit(f"//{request.host}").hostname:
        raise Forbidden("a page of another origin may not open sockets here", origin=origin)


def _refusal(settings: Settings, *, has_token: bool) -> Closing | None:
    if CARRIER.is_stopping:
        raise Unavailable("the server is stopping")
    if CARRIER.count >= settings.live_sockets + REFUSALS:
        raise Unavailable("too many live connections", retry_after_seconds=5)
    if CARRIER.count >= settings.live_sockets:
        return Closing(websocket.TRY_LATER, "too many live connections; try again later")
    if not has_token and CARRIER.waiting >= max(1, settings.live_sockets // UNKNOWN_SHARE):
        return Closing(websocket.TRY_LATER, "too many connections without a token; try again later")
    return None


def _handshake() -> WSConnection:
    protocol = WSConnection(ConnectionType.SERVER)
    # The web server has parsed the request; only what belongs to the protocol itself is left to be judged.
    headers = [(b"Host", b"here")]
    headers += [
        (name.encode(), request.headers[name].encode("latin-1")) for name in HANDSHAKE if name in request.headers
    ]
    try:
        protocol.initiate_upgrade_connection(headers, b"/")
        list(protocol.events())
    except RemoteProtocolError as error:
        raise BadRequest(f"not a WebSocket handshake: {error}") from None
    return protocol


def _taken_over() -> tuple[socket.socket, socket.socket]:
    """The client's connection, taken from the web server, and the end of what the server is left with.

    The server keeps its file descriptor, which from now on leads to a socket pair: it may write its answer there and
    close it, as it does with any connection, without touching the client's.
    """
    held = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    if held is None or isinstance(held, ssl.SSLSocket):
        raise Unavailable("this web server cannot carry WebSockets")
    taken = socket.socket(fileno=os.dup(held.fileno()))
    inner, outer = socket.socketpair()
    with inner:
        os.dup2(inner.fileno(), held.fileno(), inheritable=False)
    return taken, outer
