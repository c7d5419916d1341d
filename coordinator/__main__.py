"""`python -m coordinator` is the `coordinator` command."""

from __future__ import annotations

from coordinator.cli import main

main()
