"""The Celery app of a node, and every Celery setting that we rely on, each with its reason."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue

from shared.queue.broker import Broker, parse_broker
from shared.queue.names import node_queue

SOCKET_SECONDS = 5.0


def make_app(broker_url: str, *, node_id: str | None = None) -> Celery:
    """An app on this broker; with a `node_id` it reads that node's queue and no other."""
    broker = parse_broker(broker_url)
    app = Celery("longshore", broker=broker.celery_url, set_as_current=False)
    app.conf.update(settings(broker, node_id))
    return app


def settings(broker: Broker, node_id: str | None = None) -> dict[str, Any]:
    """Celery's settings for this broker."""
    found: dict[str, Any] = {
        # Ids only travel here, and JSON cannot run code.
        "task_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        # Results and states live in the database; Redis keeps none of them.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # The claim in the database is the real acknowledgement, so the ticket is done with as soon as a thread has it.
        "task_acks_late": False,
        "task_publish_retry": False,
        # How many tickets lie on a node is decided where they are published. worker_disable_prefetch stays off: without
        # acknowledgements nothing would wake the loop when a slot frees, and the node falls to a ticket a second.
        "worker_prefetch_multiplier": 0,
        # Nobody on the broker may tell a node what to do; the coordinator does, over HTTP.
        "worker_enable_remote_control": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Running attempts do not depend on the broker.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": _transport_options(broker, node_id),
        "broker_use_ssl": broker.tls or False,
    }
    if node_id is not None:
        own = node_queue(node_id)
        # Not declared: a list needs no declaring, and reading it is then all that the node does with it.
        queue = Queue(own, no_declare=True)  # type: ignore[no-untyped-call]
        found |= {"task_default_queue": own, "task_queues": [queue]}
    return found


def _transport_options(broker: Broker, node_id: str | None) -> dict[str, Any]:
    suffix = f".{node_id}" if node_id else ""
    return {
        # Early acknowledgements need no book on the broker: keeping one was half of a node's CPU, and an
        # acknowledgement that failed in a pause of Redis left a worker that never consumed again.
        "ack_emulation": False,
        # Read only if the line above is ever turned round, and then two nodes must not share the book.
        "unacked_key": f"unacked{suffix}",
        "unacked_index_key": f"unacked_index{suffix}",
        "unacked_mutex_key": f"unacked_mutex{suffix}",
        "visibility_timeout": 300,
        # Order is decided where jobs are placed. With one priority there is one list, and a node's login one key.
        "priority_steps": [0],
        # Every answer is due within a second, BRPOP's too. A connection that carries nothing any more would hold the
        # loop for ever, or a consumer that is being stopped. (With acknowledgements a timeout made workers deaf.)
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        **broker.transport_options,
    }
