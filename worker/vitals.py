"""How the machine is doing, by psutil; cheap enough for every heartbeat."""

from __future__ import annotations

import os
import platform
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

import shared


class Vitals:
    """Reads the machine. CPU is measured between two readings, so the first one says little."""

    def __init__(self, home: Path) -> None:
        self._home = home
        psutil.cpu_percent(interval=None)

    def percents(self) -> tuple[float, float, float]:
        """CPU, memory and the disk of the node's home, in percent."""
        return (
            psutil.cpu_percent(interval=None),
            psutil.virtual_memory().percent,
            psutil.disk_usage(str(self._home)).percent,
        )

    def read(self, *, computers: int) -> dict[str, Any]:
        """Everything else, in the shape that the node protocol names."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(self._home))
        network: Any = psutil.net_io_counters()  # None where there is no interface.
        return {
            "load": [round(value, 2) for value in os.getloadavg()],
            "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
            "disk": {"total_bytes": disk.total, "free_bytes": disk.free},
            "network": {"sent_bytes": network.bytes_sent, "received_bytes": network.bytes_recv} if network else {},
            "temperatures": _temperatures(),
            "computers": computers,
            "uptime_seconds": int(time.time() - psutil.boot_time()),
        }


def _temperatures() -> dict[str, float]:
    """The hottest value of each sensor; nothing on machines that have none."""
    found = psutil.sensors_temperatures()
    return {name: round(max(item.current for item in items), 1) for name, items in found.items() if items}


def machine() -> dict[str, Any]:
    """What the machine is: cores, memory, operating system."""
    return {
        "hostname": platform.node() or "localhost",
        "cpu_cores": psutil.cpu_count() or 1,
        "memory_total_mb": psutil.virtual_memory().total // (1024 * 1024),
        "os_info": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
    }


def software() -> dict[str, str]:
    """The versions that matter when something goes wrong."""
    return {"longshore": shared.__version__, "python": platform.python_version()}


def address_towards(url: str) -> str:
    """The address of this machine on the way to `url`. Nothing is sent."""
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, parts.port or 80))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
