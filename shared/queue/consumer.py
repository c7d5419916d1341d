"""A real Celery worker inside a process of ours: it reads one node's queue and hands each ticket to a handler."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from celery import Celery, Task
from celery.app.trace import setup_worker_optimizations
from celery.exceptions import Ignore
from celery.worker import WorkController
from celery.worker import state as celery_state
from celery.worker.strategy import default as default_strategy
from kombu.asynchronous import set_event_loop

from shared.queue.app import make_app
from shared.queue.names import NUDGE, PING, RUN, consumer_name
from shared.queue.tickets import TICKET_VERSION, RunTicket

SPARE_THREADS = 2
"""Beside those for attempts: a nudge must never wait for a job to end."""

_STOP_SECONDS = 15.0

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)


class TicketRefused(Exception):
    """The claim was refused; the ticket is dropped and nothing failed."""


class AttemptFailed(Exception):
    """The attempt ran and did not succeed; the text says how it ended."""


class TicketHandler(Protocol):
    """What a node does with tickets. Called from many threads."""

    def run(self, ticket: RunTicket, shown: str) -> None:
        """Claim the attempt and run it to its end; raises TicketRefused or AttemptFailed. `shown` is for people.

        It is called by the loop itself for a light ticket, and must return at once.
        """

    def nudge(self) -> None: ...

    def ping(self) -> None: ...


class _Alarm:
    """Wakes a loop that waits for its sockets: a pair of them, of which the loop watches one."""

    def __init__(self) -> None:
        self._watched, self._rung = socket.socketpair()
        self._watched.setblocking(False)
        self._rung.setblocking(False)

    @property
    def fileno(self) -> int:
        return self._watched.fileno()

    def ring(self) -> None:
        # A full pair means that it rings already; a closed one, that nobody sleeps any more.
        with contextlib.suppress(OSError):
            self._rung.send(b"!")

    def take(self) -> None:
        """Called by the loop, so that one ring wakes it once."""
        with contextlib.suppress(BlockingIOError):
            self._watched.recv(64)

    def close(self) -> None:
        self._watched.close()
        self._rung.close()


class _Controller(WorkController):
    """A Celery worker that says when it has left its loop: the threads of its pool may go on for hours after that."""

    left_loop: threading.Event
    alarm: _Alarm

    def on_before_init(self, **kwargs: Any) -> None:
        # What `celery worker` does too. Without it the pool's threads look for our tasks in whichever app is current.
        setup_worker_optimizations(self.app, self.hostname)

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        hub.add_reader(self.alarm.fileno, self.alarm.take)
        # What the pool holds is run by the pool, and what it does not hold is sent again. Putting it back would make
        # doubles of the first, and would need the right to write to the queue.
        self.consumer.task_consumer.channel.do_restore = False

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        self.left_loop.set()
        super().stop(in_sighandler=in_sighandler, exitcode=exitcode)

    def terminate(self, in_sighandler: bool = False) -> None:
        self.left_loop.set()
        super().terminate(in_sighandler=in_sighandler)


class TicketConsumer:
    """One run of the Celery worker: started once, stopped once. A process has at most one that is not stopped."""

    def __init__(
        self,
        broker_url: str,
        *,
        node_id: str,
        threads: int,
        handler: TicketHandler,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.app = make_app(broker_url, node_id=node_id)
        _register(self.app, node_id, handler)
        # The hub is a global of kombu. A stopped worker's hub is closed when its last thread ends, so that a new worker
        # must not share it.
        set_event_loop(None)
        self._controller = _Controller(
            app=self.app,
            hostname=consumer_name(node_id),
            pool="threads",
            concurrency=threads + SPARE_THREADS,
            task_events=True,
            without_gossip=True,
            without_mingle=True,
            ready_callback=self._on_ready,
        )
        self._controller.left_loop = threading.Event()
        self._controller.alarm = _Alarm()
        self._ready = threading.Event()
        self._tell_ready = on_ready
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)

    def start(self) -> None:
        """Begin to consume; returns at once. A broker that is away is tried until it comes."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it has ever begun to consume."""
        return self._ready.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether it is still meant to consume: it has not been stopped and has not given up."""
        return self._thread.is_alive() and not self._controller.left_loop.is_set()

    @property
    def is_connected(self) -> bool:
        """Whether it holds a connection to the broker now."""
        connection = getattr(getattr(self._controller, "consumer", None), "connection", None)
        return self.is_alive and connection is not None and bool(connection.connected)

    def stop(self, timeout: float = _STOP_SECONDS) -> bool:
        """Take no further ticket. Attempts that run go on in their threads; returns whether the loop has ended."""
        if not self._thread.is_alive():
            return True
        # The flag is read by whichever loop runs in this process, and ours is the only one.
        celery_state.should_stop = 0
        try:
            self._controller.alarm.ring()
            return self._controller.left_loop.wait(timeout)
        finally:
            celery_state.should_stop = None

    def join(self, timeout: float) -> bool:
        """Wait for the threads that still ran attempts when it was stopped; whether they have all ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._controller.start()
        finally:
            self._controller.alarm.close()

    def _on_ready(self, _consumer: Any) -> None:
        self._ready.set()
        self._tell_ready()


def strategy(task: Task, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own way for what takes a thread; light tickets are handed on by the loop that read them.

    A request object, a hand-over to the pool and a trace cost several times what handing on a light ticket does.
    A message that is no message of ours is dropped: Celery's own way ends the whole consumer for one.
    """
    usual = default_strategy(task, app, consumer, **options)

    def handle(message: Any, body: Any, ack: Callable[..., Any], reject: Callable[..., Any], callbacks: Any) -> Any:
        match message.payload:
            case [list(), {"light": True} as kwargs, _]:
                ack(logger, consumer.connection_errors)
                return task.hand_on(kwargs, message.headers.get("argsrepr") or "")
            case [list(), dict(), _]:
                return usual(message, body, ack, reject, callbacks)
        log.warning("message_not_understood", task=task.name)
        return ack(logger, consumer.connection_errors)

    return handle


def _register(app: Celery, node_id: str, handler: TicketHandler) -> None:
    # send_events is off: the handler sends those of attempts itself, in batches, and the others interest nobody.
    options = {"shared": False, "send_events": False, "Strategy": f"{__name__}:{strategy.__name__}"}

    def take(kwargs: dict[str, Any], shown: str) -> None:
        ticket = _read(kwargs, node_id)
        try:
            if ticket is not None:
                handler.run(ticket, shown)
        except TicketRefused:
            return
        except Exception:
            # This is the loop's own thread: whatever is wrong with one ticket, the next ones must be read.
            log.exception("ticket_not_handed_on")

    @app.task(
        bind=True,
        name=RUN,
        throws=(AttemptFailed,),
        hand_on=staticmethod(take),
        **options,
    )
    def run(task: Task, **kwargs: Any) -> None:
        ticket = _read(kwargs, node_id)
        if ticket is None:
            raise Ignore
        try:
            handler.run(ticket, task.request.argsrepr or "")
        except TicketRefused:
            raise Ignore from None

    @app.task(name=NUDGE, hand_on=staticmethod(lambda _kwargs, _shown: handler.nudge()), **options)
    def nudge() -> None:
        handler.nudge()

    @app.task(name=PING, hand_on=staticmethod(lambda _kwargs, _shown: handler.ping()), **options)
    def ping() -> None:
        handler.ping()


def _read(kwargs: dict[str, Any], node_id: str) -> RunTicket | None:
    """The ticket, or None for one that is not ours or that we cannot read."""
    match kwargs:
        case {"v": version, "node": node, "attempt": str(attempt), "job": str(job), "number": int(number)} if (
            version == TICKET_VERSION and node == node_id
        ):
            return RunTicket(attempt, job, number, node_id, takes_slot=not kwargs.get("light"))
    log.warning("ticket_not_ours", version=kwargs.get("v"), node=kwargs.get("node"))
    return None
