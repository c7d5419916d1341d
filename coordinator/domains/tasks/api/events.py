"""The timeline of a task or an execution as an answer, waited for if asked."""

from __future__ import annotations

from typing import Any

from coordinator.domains.tasks.api import shown
from coordinator.domains.tasks.service import timeline
from coordinator.domains.tasks.service.timeline import Timeline
from coordinator.http.slice import Call


def events_of(call: Call, kind: str, job_id: str) -> dict[str, Any]:
    """The events behind `after`; each look is a transaction of its own, so waiting holds no connection."""

    def look() -> Timeline:
        with call.read() as tx:
            return timeline.read(tx, call.space, kind, job_id, after=call.query["after"], limit=call.query["limit"])

    def wait(seconds: float) -> float:
        return timeline.wait_for_news(call.resources, job_id, call.query["after"], seconds)

    return shown.timeline_view(timeline.follow(look, wait, call.query["wait"]))
