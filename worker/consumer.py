"""The node's ear on the broker: keeps a Celery worker reading our queue for as long as the coordinator wants it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
import structlog

from shared.queue.broker import BrokerUrlError, parse_broker
from shared.queue.consumer import TicketConsumer, TicketHandler
from shared.queue.events import TaskEvents
from shared.queue.names import consumer_name

_CLOSE_SECONDS = 3.0
_START_SECONDS = 15.0
"""Until then a consumer that is not there yet is only late."""

log = structlog.get_logger(__name__)


class Ear:
    """Starts, restarts and stops the consumer, on a thread of its own: a broker that hangs must not hold the heartbeat.

    `want` says what is wanted; what is there follows.
    """

    def __init__(self, *, node_id: str, threads: int, handler: TicketHandler, on_hearing: Callable[[], None]) -> None:
        self._node_id = node_id
        self._on_hearing = on_hearing
        self._threads = threads
        self._handler = handler
        self._wanted: str | None = None
        self._restart = False
        self._closing = False
        self._settled = True
        self._stopped = threading.Event()
        self._url: str | None = None
        self._consumer: TicketConsumer | None = None
        self._listening_since: float | None = None
        self._is_refused = False
        self._retired: list[TicketConsumer] = []
        self._events: TaskEvents | None = None
        self._client: redis.Redis | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)
        self.pings = 0
        self._last_ping: float | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def events(self) -> TaskEvents | None:
        """Where to tell onlookers; None while there is no broker."""
        return self._events

    @property
    def is_ok(self) -> bool | None:
        """Whether it hears; None while it is not meant to, or has only begun to listen."""
        consumer, since = self._consumer, self._listening_since
        if self._is_refused:
            return False
        if self._wanted is None or since is None:
            return None
        if consumer is not None and not consumer.is_ready and time.monotonic() - since < _START_SECONDS:
            return None
        return bool(consumer and consumer.is_connected)

    def told(self) -> dict[str, float | None]:
        """What the coordinator judges by whether we really hear: canaries, and how old this consumer is."""
        return {
            "pings": self.pings,
            "last_ping_seconds_ago": _age(self._last_ping),
            "listening_seconds": _age(self._listening_since if self._consumer else None),
        }

    def heard_ping(self) -> None:
        self.pings += 1
        self._last_ping = time.monotonic()

    def want(self, url: str | None, *, restart: bool = False) -> None:
        """Listen at this broker, or at none; start anew when told to, or when the consumer has given up."""
        with self._changed:
            if self._closing:
                return
            self._wanted = url
            self._restart = self._restart or restart
            self._settled = False
            self._changed.notify_all()

    def stop_listening(self, timeout: float) -> bool:
        """Take no further ticket, for good; whether that was so within `timeout`. Onlookers are still told."""
        with self._changed:
            self._closing = True
            self._settled = False
            self._changed.notify_all()
        return self._stopped.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Tell onlookers what is left to tell; whether every thread that ran a ticket has ended within `timeout`."""
        self.stop_listening(timeout)
        self._close_events()
        give_up = time.monotonic() + timeout
        return all(consumer.join(max(0.0, give_up - time.monotonic())) for consumer in self._retired)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._settled)
                wanted, restart, closing = self._wanted, self._restart, self._closing
                self._settled, self._restart = True, False
            if closing:
                self._stop_consumer()
                self._stopped.set()
                return
            self._follow(wanted, restart=restart)

    def _follow(self, url: str | None, *, restart: bool) -> None:
        if url != self._url:
            self._stop_consumer()
            self._close_events()
            self._url = url
            self._is_refused = False
            if url is not None:
                self._open_events(url)
        elif self._consumer is not None and (restart or not self._consumer.is_alive):
            log.warning("consumer_restarted", asked=restart)
            self._stop_consumer()
        if self._events is not None and self._consumer is None and url is not None:
            self._start_consumer(url)

    def _open_events(self, url: str) -> None:
        try:
            broker = parse_broker(url)
        except BrokerUrlError as error:
            self._is_refused = True
            log.error("broker_url_refused", error=str(error))
            return
        log.info("broker_given", broker=broker.shown)
        self._client = broker.client()
        self._events = TaskEvents(self._client, hostname=consumer_name(self._node_id), database=broker.database)

    def _start_consumer(self, url: str) -> None:
        self._listening_since = time.monotonic()
        self._consumer = TicketConsumer(
            url, node_id=self._node_id, threads=self._threads, handler=self._handler, on_ready=self._on_hearing
        )
        self._consumer.start()

    def _stop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        if not consumer.stop():
            log.error("consumer_does_not_stop")
        self._retired = [item for item in self._retired if not item.join(0)] + [consumer]

    def _close_events(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.close(_CLOSE_SECONDS)
        if self._client is not None:
            self._client.close()
            self._client = None


def _age(moment: float | None) -> float | None:
    return None if moment is None else round(time.monotonic() - moment, 1)
