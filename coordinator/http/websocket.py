"""One WebSocket on the event loop: messages in and out, pings, bounded patience, an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any

from wsproto import WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED, TOO_BIG, BROKEN, TRY_LATER = 1000, 1001, 1002, 1003, 1009, 1011, 1013
UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_SLOW = 4401, 4403, 4404, 4408

LARGEST_MESSAGE = 64 * 1024
STALL_SECONDS = 30.0
"""How long a message may wait for a reader that takes nothing."""
GOODBYE_SECONDS = 10.0
SEND_BUFFER_BYTES = 128 * 1024
LONGEST_REASON = 123


class Closing(Exception):
    """Ends a socket from our side. The client is told the code, the reason and, before it, the `last` message."""

    def __init__(self, code: int, reason: str, *, last: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.last = last


class Gone(Exception):
    """The other side has closed, or is not there any more."""


class Connection:
    """A WebSocket whose handshake was read. Lives on the event loop; nothing here may be called from elsewhere."""

    def __init__(self, taken: socket.socket, protocol: WSConnection, *, ping_seconds: float) -> None:
        self._socket = taken
        self._protocol = protocol
        self._ping_seconds = ping_seconds
        self._events: deque[Event] = deque()
        self._parts: list[str] = []
        self._heard = 0.0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer the handshake."""
        try:
            # A small buffer in the kernel shows early who does not read.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        except OSError:
            self._socket.close()
            raise Gone from None
        self._heard = asyncio.get_running_loop().time()
        self._write(AcceptConnection(extra_headers=headers))

    async def receive(self) -> str:
        """The next text message. Gone when there will be none, Closing when the client does what it may not."""
        while True:
            while self._events:
                text = self._taken(self._events.popleft())
                if text is not None:
                    return text
            await self._read()

    async def send(self, text: str) -> None:
        """Send a text message; returns when there is room for another, Closing when that takes too long."""
        self._write(TextMessage(data=text))
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            raise Closing(TOO_SLOW, "too slow: nothing was read for a while") from None
        except OSError:
            raise Gone from None

    async def keep_alive(self) -> None:
        """Ping now and then; Gone when nothing at all came back."""
        while True:
            await asyncio.sleep(self._ping_seconds)
            if asyncio.get_running_loop().time() - self._heard > 2 * self._ping_seconds:
                raise Gone
            self._write(Ping())

    async def close(self, end: Closing | None, *, patience: float = GOODBYE_SECONDS) -> None:
        """Say goodbye, give the other side time to hear it, and let go. Without `end` the other side went first."""
        try:
            if end is not None and self._protocol.state is ConnectionState.OPEN:
                if end.last is not None:
                    self._write(TextMessage(data=end.last))
                self._write(CloseConnection(code=end.code, reason=_shortened(end.reason)))
                async with asyncio.timeout(patience):
                    await self._writer.drain()
                    while True:
                        await self.receive()
        except (TimeoutError, OSError, Gone, Closing, LocalProtocolError):
            pass  # It heard us, or it never will.
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def _read(self) -> None:
        try:
            data = await self._reader.read(LARGEST_MESSAGE)
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        self._heard = asyncio.get_running_loop().time()
        try:
            self._protocol.receive_data(data)
            self._events.extend(self._protocol.events())
        except (RemoteProtocolError, LocalProtocolError) as error:
            raise Closing(PROTOCOL_ERROR, str(error)) from None

    def _taken(self, event: Event) -> str | None:
        if isinstance(event, CloseConnection):
            if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                self._write(event.response())
            raise Gone
        if isinstance(event, Ping):
            self._write(event.response())
        elif isinstance(event, BytesMessage):
            raise Closing(UNSUPPORTED, "send text")
        elif isinstance(event, TextMessage):
            return self._assembled(event)
        return None

    def _assembled(self, event: Message[Any]) -> str | None:
        self._parts.append(event.data)
        if sum(map(len, self._parts)) > LARGEST_MESSAGE:
            raise Closing(TOO_BIG, f"a message may have at most {LARGEST_MESSAGE} characters")
        if not event.message_finished:
            return None
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def _write(self, event: Event) -> None:
        try:
            self._writer.write(self._protocol.send(event))
        except LocalProtocolError:
            raise Gone from None


def _shortened(reason: str) -> str:
    """The reason in the room that a close frame has."""
    return reason.encode()[:LONGEST_REASON].decode(errors="ignore")
