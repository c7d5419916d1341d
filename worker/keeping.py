"""Whether this node has a keeper, and what the one that was there held for us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from worker.computer.contract import ComputerDriver
from worker.keeper.line import Found, KeeperLine, KeeperPlace, Kept

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Keeping:
    """The keeper as the daemon sees it. Without a line every command ends with the daemon."""

    line: KeeperLine | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)
    until: float | None = None
    """Until when the coordinator leaves what runs to us (monotonic clock)."""

    def renew(self, until: float) -> None:
        if self.line is not None:
            self.line.renew(until)

    def dismiss(self) -> None:
        if self.line is not None:
            self.line.dismiss()


class Keepers:
    """Finds the keeper before anything is done with computers: one that clears them away has to be through first."""

    def __init__(self, home: Path) -> None:
        self._place = KeeperPlace(home)
        self._found: Found | None = None

    def look(self) -> None:
        self._found = self._place.find()

    def keep_for(self, driver: ComputerDriver) -> Keeping:
        """The keeper for the computers of this driver, if they can outlive a daemon at all."""
        found = self._found
        if driver.adopts and found is not None:
            log.info("keeper_found", holds=len(found.kept))
            return Keeping(found.line, found.kept, found.until)
        if found is not None:
            found.line.dismiss()
        if driver.adopts:
            return Keeping(self._place.start(sweep=driver.sweep()))
        self._place.leave()
        return Keeping()
