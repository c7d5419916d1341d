"""The `coordinator` command: one module a command, imported when it is called."""

from __future__ import annotations

from coordinator.cli.root import main

__all__ = ["main"]
