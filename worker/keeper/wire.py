"""How daemon and keeper talk: one JSON object a packet, with descriptors beside it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = "keeper.sock"
LOCK = "keeper.lock"
LOG = "keeper.log"
HOLD, DROP, RENEW, TAKE, KEPT, DONE, BYE = "hold", "drop", "renew", "take", "kept", "done", "bye"

_MAX_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 8


def send(sock: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(sock, [json.dumps(message).encode()], list(descriptors))


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next packet; None when the other side is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, _MAX_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return (json.loads(data), descriptors) if data else None


@contextmanager
def address(home: Path) -> Iterator[str]:
    """The socket's path by way of its directory: a home may lie deeper than a socket's name may be long."""
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)
