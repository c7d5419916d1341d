"""Addresses to listen on: which are free, who has the others, how they are reached from here."""

from __future__ import annotations

import socket

import psutil

from shared.errors import LongshoreError

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


class PortTaken(LongshoreError):
    """Somebody else listens there."""


def split(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, the host without the brackets of IPv6."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def url_of(address: str) -> str:
    """How a program on this machine reaches what listens at `address`."""
    host, port = split(address)
    shown = _WILDCARDS.get(host) or (f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def is_free(address: str) -> bool:
    """Whether one can listen there now."""
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do it: what lingers of closed connections does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_free(address: str, option: str) -> None:
    """Raise PortTaken unless one can listen at `address`; `option` is what to give for another."""
    host, port = split(address)
    try:
        socket.getaddrinfo(host or None, port)
    except OSError as error:
        raise PortTaken(f"cannot listen on {address}: {host} is not an address of this machine ({error})") from None
    if is_free(address):
        return
    if not _is_local(host):
        raise PortTaken(
            f"cannot listen on {address}: {host} is not an address of this machine; give another by {option}"
        )
    if port < 1024 and _owner(port) is None:
        raise PortTaken(f"cannot listen on {address}: ports below 1024 are root's; give another by {option}")
    raise PortTaken(f"{address} is taken by {_owner(port) or 'another program'}; end it, or give another by {option}")


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        number: int = probe.getsockname()[1]
    return number


def _is_local(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _owner(port: int) -> str | None:
    """Who listens on that port, when this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and tuple(connection.laddr)[1:2] == (port,):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None
