"""The life of one socket: who it is, what it says, what it is told, and when it must end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import orjson
import structlog

from coordinator.http import websocket
from coordinator.http.answering import dump
from coordinator.http.auth import Credential
from coordinator.http.websocket import Closing, Connection, Gone
from shared.errors import BadRequest, Forbidden, LongshoreError, NotFound, Unauthenticated, Unavailable

RECHECK_SECONDS = 60.0
"""How often a socket's principal is looked up again: who was switched off does not go on listening."""

HANDSHAKE_SECONDS = 0.03
"""Before the first message: some clients take the answer to the handshake and lose what came in the same packet."""

CODES = {Unauthenticated: websocket.UNAUTHENTICATED, Forbidden: websocket.FORBIDDEN, NotFound: websocket.NOT_FOUND}

log = structlog.get_logger(__name__)


class Session(Protocol):
    """What a socket is for. Made, and left, in any thread."""

    def said(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a message of the client; BadRequest or Invalid become an error message."""

    async def tell(self, connection: Connection) -> None:
        """Tell the client everything it is to be told; returning closes the socket normally."""

    def leave(self) -> None:
        """Nobody listens any more."""


class Door(Protocol):
    """The way in, for a socket whose credential comes as its first message. Blocks, so it is not called on the loop."""

    def admit(self, token: str) -> Credential:
        """The credential, if it may (still) be here; Unauthenticated or Forbidden otherwise."""

    def enter(self, token: str) -> tuple[Credential, Session]: ...


class Talk:
    """One socket from its handshake to its end."""

    def __init__(
        self,
        connection: Connection,
        door: Door,
        *,
        known: tuple[Credential, Session] | None,
        headers: list[tuple[bytes, bytes]],
        auth_seconds: float,
        now: Callable[[], datetime],
        refusal: Closing | None = None,
    ) -> None:
        self._connection = connection
        self._door = door
        self._credential: Credential | None = None
        self._session: Session | None = None
        if known is not None:
            self._credential, self._session = known
        self._headers = headers
        self._auth_seconds = auth_seconds
        self._now = now
        self._refusal = refusal
        self._stopped = asyncio.Event()
        self._renewed = asyncio.Event()

    @property
    def is_admitted(self) -> bool:
        return self._session is not None or self._refusal is not None

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        began = time.monotonic()
        try:
            await self._connection.open(self._headers)
            await asyncio.sleep(HANDSHAKE_SECONDS)
            end = await self._outcome()
        except Gone:
            return
        finally:
            if self._session is not None:
                self._session.leave()
        await self._connection.close(end)
        code = None if end is None else end.code
        log.info("socket.closed", code=code, seconds=round(time.monotonic() - began, 3))

    async def _outcome(self) -> Closing | None:
        """How it ended: None when the other side went."""
        life = asyncio.create_task(self._live())
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not life.done():
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            return Closing(websocket.GOING_AWAY, "the server is stopping; connect again")
        try:
            return life.result()
        except Gone:
            return None
        except Closing as end:
            return end
        except LongshoreError as error:
            return Closing(CODES.get(type(error), websocket.BROKEN), error.message)
        except Exception as error:
            log.error("socket.failed", exc_info=error)
            return Closing(websocket.BROKEN, "something went wrong on our side")

    async def _live(self) -> Closing:
        if self._refusal is not None:
            return self._refusal
        if self._session is None:
            self._session = await self._authenticated()
        try:
            async with asyncio.TaskGroup() as together:
                together.create_task(self._listen(self._session))
                together.create_task(self._tell(self._session))
                together.create_task(self._guard())
                together.create_task(self._connection.keep_alive())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        raise AssertionError("telling always ends in an exception")

    async def _authenticated(self) -> Session:
        try:
            async with asyncio.timeout(self._auth_seconds):
                message = _parsed(await self._connection.receive())
        except TimeoutError:
            raise Closing(websocket.UNAUTHENTICATED, "no token came") from None
        except BadRequest as error:
            raise Unauthenticated(f"send an auth message first: {error.message}") from None
        if message.get("type") != "auth":
            raise Unauthenticated('send {"type": "auth", "token": …} first')
        self._credential, session = await asyncio.to_thread(self._door.enter, _token_of(message))
        self._session = session
        await self._say({"type": "authenticated", "data": {}})
        return session

    async def _listen(self, session: Session) -> None:
        while True:
            text = await self._connection.receive()
            try:
                answer = await self._answered(session, _parsed(text))
            except (Unauthenticated, Forbidden):
                raise
            except LongshoreError as error:
                details = {"code": error.code, "message": error.message, "details": error.details}
                answer = {"type": "error", "data": details}
            await self._say(answer)

    async def _answered(self, session: Session, message: Mapping[str, Any]) -> dict[str, Any]:
        match message.get("type"):
            case "ping":
                return {"type": "pong"}
            case "auth":
                self._credential = await asyncio.to_thread(self._door.admit, _token_of(message))
                self._renewed.set()
                return {"type": "authenticated", "data": {}}
        return session.said(message)

    async def _tell(self, session: Session) -> None:
        await session.tell(self._connection)
        raise Closing(websocket.NORMAL, "that was all")

    async def _guard(self) -> None:
        """Look again at who this is when the token ends, and every now and then."""
        while self._credential is not None:
            try:
                async with asyncio.timeout(self._until_check()):
                    await self._renewed.wait()
                self._renewed.clear()
            except TimeoutError:
                try:
                    await asyncio.to_thread(self._door.admit, self._credential.token)
                except Unavailable:
                    log.warning("socket.not_checked")

    def _until_check(self) -> float:
        claims = self._credential.claims if self._credential is not None else None
        if claims is None:
            return RECHECK_SECONDS
        # Looked at a moment after the end, or the token would still be good.
        return max(0.05, min(RECHECK_SECONDS, float(claims["exp"]) - self._now().timestamp() + 0.05))

    async def _say(self, message: Mapping[str, Any]) -> None:
        await self._connection.send(dump(message).decode())


def _parsed(text: str) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the message is not valid JSON", reason=str(error)) from None
    if not isinstance(message, dict):
        raise BadRequest("the message must be a JSON object")
    return message


def _token_of(message: Mapping[str, Any]) -> str:
    token = message.get("token")
    if not isinstance(token, str) or not token:
        raise Unauthenticated("an auth message carries its token as a text")
    return token
