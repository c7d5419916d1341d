"""Claims and reports on their way to the coordinator: many threads hand them in, one thread sends them in batches."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import orjson
import structlog

from shared.client.backoff import Backoff, Interrupted, persist
from shared.client.errors import Unreachable
from shared.contracts.node import Grant, Outcome, Report, SyncReply
from shared.errors import Conflict, Forbidden, LongshoreError, Unauthenticated
from worker.answer import Answer
from worker.journal import Claimed, Ended, Entry, Forgotten, Granted, Journal

WINDOW_SECONDS = 0.002
"""Under load a batch waits this long for company; an idle line sends at once."""
FULL = 64
MAX_ITEMS = 200
MAX_BYTES = 1024 * 1024
FAULTS = 4
"""So many internal errors in a row may be the fault of one item of the batch."""

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What became of a report."""

    accepted = "accepted"
    stale = "stale"
    """The coordinator gave the work to others, or ended it."""
    unsent = "unsent"
    """The daemon ends before the coordinator answered; the journal keeps it for the next start."""


OnGrant = Callable[[Grant], None]
OnVerdict = Callable[[Verdict], None]


class Link(Protocol):
    """What the uplink needs of the node's HTTP client."""

    def sync(self, body: bytes) -> SyncReply: ...


class _Fault(LongshoreError):
    """The coordinator fails on what we send, again and again, while it is there."""


@dataclass(slots=True)
class _Claim:
    attempt: str
    answer: Answer[Grant]
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def text(self) -> bytes:
        return orjson.dumps({"attempt_id": self.attempt, "nonce": self.nonce})

    def entry(self) -> Entry:
        return Claimed(self.attempt, self.nonce)


@dataclass(slots=True)
class _Report:
    attempt: str
    token: str
    text: bytes
    answer: Answer[Verdict]
    is_reduced: bool = False

    def entry(self) -> Entry:
        return Ended(self.attempt, self.token, self.text)


@dataclass(slots=True)
class _Forget:
    attempt: str
    text: bytes = b""

    def entry(self) -> Entry:
        return Forgotten(self.attempt)


_Item = _Claim | _Report | _Forget


class Uplink:
    """The batcher. `on_void`: our credential counts no more. `on_refused`: the coordinator will not hear us now."""

    def __init__(
        self,
        link: Link,
        journal: Journal,
        *,
        epoch: str,
        on_void: Callable[[], None],
        on_refused: Callable[[LongshoreError], None],
    ) -> None:
        self._link = link
        self._journal = journal
        self._epoch = orjson.dumps(epoch)
        self._on_void = on_void
        self._on_refused = on_refused
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._closed = False
        self._give_up = threading.Event()
        self._backoff = Backoff()
        self._faults = 0
        self._last_size = 0
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def claim(self, attempt_id: str) -> Grant:
        """Ask for an attempt; blocks until the coordinator has answered."""
        return self._claim(_Claim(attempt_id, Answer())).result()

    def claim_then(self, attempt_id: str, on_grant: OnGrant) -> None:
        """Ask for an attempt without waiting; `on_grant` is called by the thread that sends, so it must be quick."""
        self._claim(_Claim(attempt_id, Answer(on_grant)))

    def _claim(self, claim: _Claim) -> Answer[Grant]:
        with self._changed:
            closing = self._closing
            if not closing:
                self._put(claim)
        if closing:
            claim.answer.set(Grant(claim.attempt, refused="node_stopping"))
        return claim.answer

    def report(self, report: Report) -> Verdict:
        """Tell how an attempt ended; blocks until the coordinator has taken or refused it.

        The report is on the disk before the first try, and is tried for as long as this daemon lives, then by the next.
        """
        return self.hand_in(report).result()

    def keep(self, report: Report) -> None:
        """Put the report on the disk before its time has come to be sent."""
        try:
            self._journal.write([Ended(report.attempt_id, report.token, _text(report))], durable=True)
        except OSError as error:
            log.exception("journal_not_written", error=str(error))

    def hand_in(self, report: Report, on_verdict: OnVerdict | None = None) -> Answer[Verdict]:
        """The same without waiting; `on_verdict` is called by the thread that sends, so it must be quick."""
        return self.resend(Ended(report.attempt_id, report.token, _text(report)), on_verdict)

    def resend(self, ended: Ended, on_verdict: OnVerdict | None = None) -> Answer[Verdict]:
        """Hand in a report that is written already, without waiting."""
        item = _Report(ended.attempt, ended.token, ended.report, Answer(on_verdict))
        with self._changed:
            if not self._closed:
                self._put(item)
                return item.answer
        # Too late for the line, not for the disk.
        self._journal.write([item.entry()], durable=True)
        item.answer.set(Verdict.unsent)
        return item.answer

    def forget(self, attempt_id: str) -> None:
        """Nothing will be reported of this attempt."""
        with self._changed:
            if not self._closed:
                self._put(_Forget(attempt_id))

    def close(self, timeout: float) -> bool:
        """Take no more claims, send what waits for up to `timeout`, end; whether everything was answered."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        in_time = not self._thread.is_alive()
        self._give_up.set()
        self._thread.join()
        return in_time

    def _put(self, item: _Item) -> None:
        self._waiting.append(item)
        if len(self._waiting) in (1, FULL):
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._exchange(batch)

    def _next_batch(self) -> list[_Item]:
        """What waits, as soon as something does; after a busy time a full batch, or what 2 ms bring."""
        with self._changed:
            if not self._waiting:
                self._changed.wait_for(lambda: self._waiting or self._closing)
            elif not self._closing and (self._last_size > 1 or len(self._waiting) > 1):
                self._changed.wait_for(lambda: len(self._waiting) >= FULL or self._closing, WINDOW_SECONDS)
            batch = self._take()
            self._last_size = len(batch)
            self._closed = not batch
            return batch

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < MAX_ITEMS:
            size += len(self._waiting[0].text)
            if batch and size > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _exchange(self, batch: Sequence[_Item]) -> None:
        kept = self._keep(batch)
        self._send([item for item in batch if not isinstance(item, _Forget) and (kept or self._goes_unkept(item))])

    def _keep(self, batch: Sequence[_Item]) -> bool:
        """Write the batch to the journal; False when the disk does not take it."""
        try:
            self._journal.write([item.entry() for item in batch], durable=True)
        except OSError as error:
            log.exception("journal_not_written", error=str(error))
            return False
        return True

    def _goes_unkept(self, item: _Item) -> bool:
        """Without a journal we start nothing new; what has ended is told all the same."""
        if isinstance(item, _Claim):
            item.answer.set(Grant(item.attempt, refused="journal_not_written"))
            return False
        return True

    def _send(self, items: Sequence[_Claim | _Report]) -> None:
        if not items:
            return
        body = self._body(items)
        try:
            reply = persist(lambda: self._ask(body), stop=self._give_up, backoff=self._backoff)
        except Interrupted:
            self._answer_all(items, refused="node_stopping", verdict=Verdict.unsent)
        except Unauthenticated:
            self._answer_all(items, refused="credential_void", verdict=Verdict.unsent)
            self._on_void()
        except Forbidden as error:
            # The coordinator has given everything of ours to others when it cut us off.
            self._answer_all(items, refused="node_not_approved", verdict=Verdict.stale)
            self._on_refused(error)
        except LongshoreError as error:
            self._send_apart(items, error)
        else:
            self._faults = 0
            self._backoff.reset()
            self._settle(items, reply)

    def _ask(self, body: bytes) -> SyncReply:
        try:
            return self._link.sync(body)
        except Conflict as error:
            # Another daemon's heartbeat came last, or none of ours yet. One of ours makes it right.
            self._on_refused(error)
            raise Unreachable(error.message) from error
        except LongshoreError as error:
            self._faults = self._faults + 1 if error.status == LongshoreError.status else 0
            if self._faults >= FAULTS:
                self._faults = 0
                raise _Fault(error.message) from error
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Something in between answers in the coordinator's place.
            raise Unreachable(f"the coordinator's answer makes no sense: {error}") from error

    def _send_apart(self, items: Sequence[_Claim | _Report], error: LongshoreError) -> None:
        """A batch that is refused as a whole has one bad item; find it, so that it takes no other with it."""
        if len(items) > 1:
            for item in items:
                self._send([item])
            return
        item = items[0]
        log.error("sync_refused", attempt=item.attempt, code=error.code, error=error.message)
        if isinstance(error, _Fault):
            self._put_off(item)
        elif isinstance(item, _Claim):
            self._answer_all(items, refused=error.code.lower(), verdict=Verdict.stale)
        elif item.is_reduced:
            self._answer_all(items, refused="", verdict=Verdict.stale)
        else:
            item.text, item.is_reduced = _reduced(item.text, error), True
            self._exchange([item])

    def _put_off(self, item: _Claim | _Report) -> None:
        """Let others go first: what ails the coordinator may pass, and a report is never given up for it."""
        if self._give_up.is_set():
            self._answer_all([item], refused="node_stopping", verdict=Verdict.unsent)
            return
        with self._changed:
            self._waiting.append(item)

    def _body(self, items: Sequence[_Claim | _Report]) -> bytes:
        claims = b",".join(item.text for item in items if isinstance(item, _Claim))
        reports = b",".join(item.text for item in items if isinstance(item, _Report))
        return b'{"epoch":' + self._epoch + b',"claims":[' + claims + b'],"reports":[' + reports + b"]}"

    def _settle(self, items: Sequence[_Claim | _Report], reply: SyncReply) -> None:
        grants = {grant["attempt_id"]: Grant.from_json(grant) for grant in reply.grants}
        entries: list[Entry] = []
        for item in items:
            if isinstance(item, _Report):
                entries.append(Forgotten(item.attempt))
                continue
            grant = grants.get(item.attempt) or Grant(item.attempt, refused="no_answer")
            entries.append(_granted(grant) or Forgotten(item.attempt))
        self._note(entries)
        for item in items:
            if isinstance(item, _Report):
                item.answer.set(_verdict(reply.reports.get(item.attempt)))
            else:
                item.answer.set(grants.get(item.attempt) or Grant(item.attempt, refused="no_answer"))

    def _answer_all(self, items: Sequence[_Claim | _Report], *, refused: str, verdict: Verdict) -> None:
        gone = [item for item in items if isinstance(item, _Claim) or verdict is not Verdict.unsent]
        self._note([Forgotten(item.attempt) for item in gone])
        for item in items:
            if isinstance(item, _Report):
                item.answer.set(verdict)
            else:
                item.answer.set(Grant(item.attempt, refused=refused))

    def _note(self, entries: Sequence[Entry]) -> None:
        try:
            self._journal.write(entries, durable=False)
        except OSError as error:
            log.exception("journal_not_written", error=str(error))


def _granted(grant: Grant) -> Granted | None:
    if grant.refused or grant.token is None or grant.spec is None:
        return None
    return Granted(grant.attempt_id, grant.token, grant.job_id or "")


def _verdict(word: str | None) -> Verdict:
    return Verdict.accepted if word == Verdict.accepted else Verdict.stale


def _text(report: Report) -> bytes:
    judged = [report.outcome, report.exit_code, report.reason_code, report.error, report.result]
    digest = hashlib.sha256(orjson.dumps(judged, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps(replace(report, digest=digest))


def _reduced(text: bytes, error: LongshoreError) -> bytes:
    """The report of a result that the coordinator does not take: the attempt failed, and why."""
    told = Report.from_json(orjson.loads(text))
    message = f"the coordinator did not take the result: {error.message}"
    return _text(
        replace(
            told,
            outcome=str(Outcome.failed) if told.outcome == Outcome.succeeded else told.outcome,
            reason_code="result_refused",
            error={"code": error.code, "message": message, "retryable": False},
            result=None,
        )
    )
