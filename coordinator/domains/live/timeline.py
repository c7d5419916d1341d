"""The socket of one task or execution: what has happened to it, then what happens, then goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.domains.live import words
from coordinator.domains.live.follower import Leave, follower_of
from coordinator.domains.live.outbox import Outbox
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import ENDED, JobEvent, JobView, Standing
from coordinator.http.sockets import Opening
from coordinator.http.websocket import Connection
from shared.errors import BadRequest, NotFound

PAGE = 200
WAITING_LINES = 2000
"""Lines that may wait for a reader. One who is further behind reads on from the database, at their own pace."""


class TimelineSession:
    """One client of a stream. Each row is told once, in order; a row's `seq` is where to go on after a lost socket."""

    def __init__(self, opening: Opening, kind: str, job_id: str) -> None:
        self._resources = opening.resources
        self._kind = kind
        self._space = opening.space
        self._job_id = job_id
        self._seq: int = opening.query["after_seq"]
        self._outbox: Outbox[JobEvent] = Outbox(WAITING_LINES)
        self._leave: Leave | None = None
        self._page()

    def leave(self) -> None:
        if self._leave is not None:
            self._leave()

    def said(self, message: Mapping[str, Any]) -> dict[str, Any]:
        raise BadRequest("the type must be ping or auth", given=str(message.get("type"))[:64])

    async def tell(self, connection: Connection) -> None:
        while True:
            job, rows = await asyncio.to_thread(self._page)
            await self._send(connection, job, rows)
            if len(rows) == PAGE:
                continue
            if job.state in ENDED:
                return
            await self._follow(connection, job)

    async def _follow(self, connection: Connection, job: Standing) -> None:
        """Tell what comes; returns when the database must be asked: the job may have ended, or lines were lost."""
        if self._leave is None:
            self._leave = follower_of(self._resources).watch_job(self._job_id, self._seq, self._outbox.offer)
        while (rows := await self._outbox.take()) is not None:
            await self._send(connection, job, rows)
            if any(words.is_end(row) for row in rows):
                return

    async def _send(self, connection: Connection, job: Standing, rows: Sequence[JobEvent]) -> None:
        for row in rows:
            if row.id > self._seq:
                outcome = await asyncio.to_thread(self._outcome, row) if words.is_end(row) else None
                await connection.send(words.text_of(words.line_message(row, job, outcome)))
                self._seq = row.id

    def _page(self) -> tuple[Standing, list[JobEvent]]:
        with self._resources.database.read() as tx:
            # The state is read first: should the job end in between, its last rows are merely read once more.
            job = queue.standing(tx, self._job_id)
            if job is None or job.space != self._space or job.kind != self._kind:
                raise NotFound(f"there is no such {self._kind}", id=self._job_id)
            return job, queue.events_after(tx, self._job_id, self._seq, PAGE)

    def _outcome(self, row: JobEvent) -> JobView | None:
        """How the job ended, unless it was driven again since."""
        with self._resources.database.read() as tx:
            view = queue.get(tx, self._job_id)
        return view if words.ended_as(view, row) else None
