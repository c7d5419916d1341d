"""`coordinator dispatch`: the process that places jobs, publishes tickets and repairs."""

from __future__ import annotations

import os
import signal
import threading

import structlog
import typer

from coordinator.cli.options import HomeOption, settings_from
from coordinator.dispatcher import Dispatcher
from coordinator.resources import make_resources
from coordinator.starting import require_current
from coordinator.weak_secrets import require_strong
from shared import logs

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

app = typer.Typer(add_completion=False)
log = structlog.get_logger(__name__)


@app.command()
def dispatch(home: HomeOption = None) -> None:
    """Place jobs, publish tickets, repair what went wrong. Of several dispatchers one leads, the others stand by."""
    settings = settings_from(home=home)
    require_strong(settings)
    logs.configure(settings.log_format)
    # Taken by sigwait alone: a handler could interrupt the dispatcher in the middle of a lock that stopping needs.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    resources = make_resources(settings)
    require_current(resources.database)
    worked = _work_until_told(Dispatcher(resources))
    resources.database.dispose()
    raise typer.Exit(0 if worked else 1)


def _work_until_told(dispatcher: Dispatcher) -> bool:
    """Run it in a thread of its own until a signal comes; whether it ended as told."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            dispatcher.run()
        except BaseException as fault:
            log.exception("dispatcher.crashed")
            faults.append(fault)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run, name="dispatcher")
    thread.start()
    signal.sigwait(STOP_SIGNALS)
    dispatcher.stop()
    thread.join()
    return not faults
