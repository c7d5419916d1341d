"""Starts the keeper: `python -m worker.keeper LISTENER CLIENT LOCK SOCKET_PATH SWEEP`, all made by the daemon."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from worker.keeper.process import Keeper


def main(listener: str, client: str, _lock: str, home: str, sweep: str) -> None:
    """The lock's descriptor stays open for as long as this process lives: it is how others know."""
    whose = json.loads(sweep)
    keeper = Keeper(
        listener=socket.socket(fileno=int(listener)),
        client=socket.socket(fileno=int(client)),
        sweep=lambda: _sweep(whose),
    )
    keeper.run()
    (Path(home) / "keeper.sock").unlink(missing_ok=True)
    # The interpreter's own farewell is slow beside that.
    sys.stderr.flush()
    os._exit(0)


def _sweep(whose: dict[str, Any]) -> bool:
    # Only now: a keeper that holds still should cost as little memory as it can.
    from worker.computer.contract import ComputerError  # noqa: PLC0415
    from worker.computer.docker.driver import DockerDriver  # noqa: PLC0415

    driver = DockerDriver(**whose)
    try:
        gone = driver.reap(())
        driver.close()
    except ComputerError as error:
        _say(f"the computers could not be removed: {error.message}")
        return False
    _say(f"no daemon came back; removed: {', '.join(gone) or 'nothing'}")
    return True


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} keeper: {text}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
