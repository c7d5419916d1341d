"""The Redis login of one node: what it may do on the broker, and how it is given, looked for and taken away.

A node reads its own queue and tells onlookers what happened. It can write to no key at all, so that it can neither
send messages nor fill the broker's memory, and it can see nothing of others.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from shared.queue.events import EXCHANGE
from shared.queue.names import node_queue

PREFIX = "longshore-node-"

Command = Callable[..., Any]
"""A command sent as words; the library has no types for it."""

_COMMANDS = ("+brpop", "+publish", "+ping")


class LoginsRefused(Exception):
    """The broker lets us make no logins: our own may not, or the server knows none. The text is the server's."""


def username_of(node_id: str) -> str:
    return f"{PREFIX}{node_id}"


def digest(password: str) -> str:
    """What Redis keeps of a password, and what it is told instead of it: its monitor and slow log show arguments."""
    return hashlib.sha256(password.encode()).hexdigest()


def rules_of(node_id: str, password: str, *, database: int, names_library: bool) -> list[str]:
    """The rules of a node's login, from nothing upwards."""
    return [
        "reset",
        "on",
        f"#{digest(password)}",
        "resetkeys",
        f"~{node_queue(node_id)}",
        "resetchannels",
        f"&/{database}.{EXCHANGE}/*",
        "-@all",
        *_COMMANDS,
        *(["+select"] if database else []),
        # Only so that the server's log of refusals stays empty: clients say who they are and go on when they may not.
        *(["+client|setinfo"] if names_library else []),
    ]


def grant(client: redis.Redis, passwords: Mapping[str, str], *, database: int) -> None:
    """Give each node (id → password) its login, or bring the one it has up to date."""
    try:
        names_library = _knows_setinfo(client)
        with client.pipeline(transaction=False) as pipe:
            command: Command = pipe.execute_command
            for node_id, password in passwords.items():
                rules = rules_of(node_id, password, database=database, names_library=names_library)
                command("ACL SETUSER", username_of(node_id), *rules)
            pipe.execute()
    except ResponseError as error:
        raise LoginsRefused(_reason(error)) from error


def withdraw(client: redis.Redis, node_ids: Sequence[str]) -> None:
    """Take the logins of these nodes away: whatever is connected by them ends now."""
    try:
        with client.pipeline(transaction=False) as pipe:
            command: Command = pipe.execute_command
            for node_id in node_ids:
                name = username_of(node_id)
                # Disarmed first: killing needs a user that exists, and nobody can come back meanwhile.
                command("ACL SETUSER", name, "reset")
                command("CLIENT KILL", "USER", name)
                command("ACL DELUSER", name)
            pipe.execute()
    except ResponseError as error:
        raise LoginsRefused(_reason(error)) from error


def try_out(client: redis.Redis) -> None:
    """Do everything that keeping logins takes, to a login that nobody has; LoginsRefused when something may not be."""
    known(client)
    withdraw(client, [f"nobody-{secrets.token_hex(8)}"])


def known(client: redis.Redis) -> dict[str, str]:
    """The logins that the broker has: node id → digest of the password; an empty one when it is switched off."""
    command: Command = client.execute_command
    try:
        lines = command("ACL LIST")
    except ResponseError as error:
        raise LoginsRefused(_reason(error)) from error
    words = (_text(line).split(" ") for line in lines)
    return {found[1].removeprefix(PREFIX): _digest_in(found) for found in words if found[1].startswith(PREFIX)}


def _digest_in(words: Sequence[str]) -> str:
    digests = [word[1:] for word in words if word.startswith("#")]
    return digests[0] if "on" in words and len(digests) == 1 else ""


def _knows_setinfo(client: redis.Redis) -> bool:
    command: Command = client.execute_command
    answer = command("COMMAND INFO", "client|setinfo")
    return any(bool(item) for item in (answer.values() if isinstance(answer, dict) else answer))


def _reason(error: ResponseError) -> str:
    return str(error).splitlines()[0]


def _text(line: Any) -> str:
    return line.decode() if isinstance(line, bytes) else str(line)
