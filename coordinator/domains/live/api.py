"""The WebSocket endpoints, and the waiter that long polls use."""

from __future__ import annotations

from coordinator.domains.live import service, words
from coordinator.domains.live.platform import PlatformSession
from coordinator.domains.live.schemas import StreamQuery
from coordinator.domains.live.timeline import TimelineSession
from coordinator.domains.tasks.service.timeline import plug_waiter
from coordinator.http.slice import Slice
from coordinator.http.sockets import Opening, declare
from coordinator.http.stopping import when_stopping

live = Slice(
    "live",
    "WebSockets, which this document cannot list: `/api/v1/ws` (the platform's events), "
    "`/api/v1/executions/{id}/stream` and `/api/v1/tasks/{id}/stream` (replay after `after_seq`, then follow, closed "
    "when done). The token comes in the Authorization header, as `?token=`, or as the first message "
    '`{"type": "auth", "token": …}`',
)

plug_waiter(service.wait_for_news)
when_stopping(service.release_all)


@declare(live, "/ws", may=tuple(sorted(words.RIGHTS.values())))
def stream_events(opening: Opening) -> PlatformSession:
    """Follow the events of the platform."""
    return PlatformSession(opening)


@declare(live, "/executions/<id:execution_id>/stream", may="executions:read", query=StreamQuery)
def stream_execution(opening: Opening, execution_id: str) -> TimelineSession:
    """Follow one execution."""
    return TimelineSession(opening, "execution", execution_id)


@declare(live, "/tasks/<id:task_id>/stream", may="tasks:read", query=StreamQuery)
def stream_task(opening: Opening, task_id: str) -> TimelineSession:
    """Follow one task."""
    return TimelineSession(opening, "task", task_id)
