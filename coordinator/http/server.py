"""gunicorn, configured in code: threads, several addresses, our log, metrics that hold over all web processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import structlog
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.gthread import ThreadWorker

from coordinator.app import create_app, domain_slices
from coordinator.config import Settings
from coordinator.http import metrics, stopping
from coordinator.http.wsgi import QUIET, REQUEST_ID
from coordinator.resources import make_resources
from shared.logs import configure, redact_text

GRACEFUL_SECONDS = 20
SILENT_WORKER_SECONDS = 120
KEEP_ALIVE_SECONDS = 75
"""Longer than a usual proxy keeps its side open, so that it is the proxy that closes."""

access_log = structlog.get_logger("longshore.access")


class Logger(GunicornLogger):
    """gunicorn's messages go where ours go; one line a request, with secrets masked."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS["info"]
        self._access_log_enabled = True
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Note an answered request; one that is asked all the time is worth a line only when it fails."""
        status = int(str(resp.status).split(None, 1)[0])
        write = access_log.debug if environ.get(QUIET) and status < 400 else access_log.info
        query = environ.get("QUERY_STRING", "")
        write(
            "request",
            method=environ.get("REQUEST_METHOD"),
            path=environ.get("PATH_INFO"),
            query=redact_text(f"?{query}") if query else None,
            status=status,
            sent_bytes=getattr(resp, "sent", None),
            ms=round(request_time.total_seconds() * 1000, 2),
            remote=environ.get("REMOTE_ADDR"),
            agent=environ.get("HTTP_USER_AGENT"),
            request_id=environ.get(REQUEST_ID),
        )


class WebWorker(ThreadWorker):
    """A threaded worker that ends what would go on for long as soon as it is told to stop."""

    def run(self) -> None:
        try:
            super().run()
        finally:
            stopping.stop()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # The main thread goes on serving what was begun; goodbyes must not hold it up.
        Thread(target=stopping.stop, name="stopping", daemon=True).start()


class Server(BaseApplication):
    """The coordinator's web tier as one gunicorn application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        # In each web process, after the fork: no connection and no thread is ever shared between two.
        app = create_app(make_resources(self._settings))
        app.extensions["longshore"].clerk.settle_by_itself()
        return app


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings for ours."""
    return {
        "bind": list(settings.binds),
        "workers": settings.web_workers,
        "threads": settings.web_threads,
        "worker_class": WebWorker,
        "worker_connections": max(1000, settings.web_threads * 4),
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
        "timeout": SILENT_WORKER_SECONDS,
        "graceful_timeout": GRACEFUL_SECONDS,
        "keepalive": KEEP_ALIVE_SECONDS,
        "control_socket_disable": True,
        "logger_class": Logger,
        "accesslog": "-",
        "proc_name": "longshore-web",
        "child_exit": _child_exit,
    }


def run(settings: Settings) -> None:
    """Serve until told to stop; ends the process."""
    configure(settings.log_format)
    metrics.share_between_processes(settings.home / "metrics" / f"web-{settings.binds[0].replace(':', '-')}")
    # Imported once before the fork, so that the web processes share the memory and start in a moment.
    domain_slices()
    Server(settings).run()


def _child_exit(_server: Any, worker: Any) -> None:
    metrics.forget_process(worker.pid)
