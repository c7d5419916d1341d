"""The node's daemon: its parts, how they start, and how they end."""

from __future__ import annotations

import math
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from shared.client.node import NodeClient, NodeFiles
from shared.contracts.node import Heartbeat, HeartbeatReply
from shared.errors import LongshoreError
from shared.queue.consumer import TicketRefused
from shared.queue.tickets import RunTicket
from worker.attempts import Attempts, Stop
from worker.computer.choose import Choice
from worker.config import Settings
from worker.consumer import Ear
from worker.enrolling import computers_of, connection_to, line_to
from worker.fence import SHARE_OF_LEASE, Fence
from worker.heartbeat import BEFORE_FIRST_REPLY, Pulse
from worker.home import Home, Identity
from worker.jobs.computers import Computers
from worker.jobs.echo import Echo
from worker.jobs.runner import Runner
from worker.jobs.script import COMMAND, PYTHON, Script
from worker.journal import Journal
from worker.keeping import Keeping
from worker.lastcall import LastCall
from worker.lifelines import Lifelines
from worker.loglines import LogShipper
from worker.orders import Orders
from worker.recovery import Recovery
from worker.uplink import Uplink
from worker.vitals import Vitals, software

OK = 0
BROKEN = 1
CREDENTIAL_VOID = 3
AGAIN = -1
"""Not for the shell: whoever called is to begin anew with the same words."""

_CODES = {"void": CREDENTIAL_VOID, "broken": BROKEN, "again": AGAIN}
_LOOPS = frozenset({"uplink", "heartbeat", "fence", "ear", "log-lines", "recovery"})

_FAREWELLS = {
    "stop": "stopping: what runs here is handed back",
    "drained": "drained: nothing runs here any more",
    "broken": "a part of the node failed, see the log: what runs here is handed back",
    "again": "beginning anew: what runs here goes on",
    "void": "the coordinator no longer knows this node; enrol it anew with a fresh --home",
}

_LIGHT_THREADS = 2
"""For tickets that are refused at once. Light ones hold no thread, and more threads make the consumer slower."""
_DRAIN_BEAT_SECONDS = 5.0
_STOP_LISTENING_SECONDS = 5.0
_CLEAR_SECONDS = 20.0
_TIE_SECONDS = 10.0
"""A computer that is being made gets its command, and with it a lifeline, within that."""
_FLUSH_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Daemon:
    """One node, from start to end. `run` returns the exit code."""

    def __init__(
        self,
        settings: Settings,
        *,
        home: Home,
        identity: Identity,
        choice: Choice,
        keeping: Keeping,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._home = home
        self._choice = choice
        self._say = say
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_clean = False
        """Whether every thread that ran a ticket has ended."""
        self._draining = False
        self._stopping = False
        self._listed_at = -math.inf
        self._beat_seconds = BEFORE_FIRST_REPLY
        self.epoch = secrets.token_hex(8)
        self._vitals = Vitals(home.path)
        self._attempts = Attempts()
        self._journal = Journal(home.journal)
        self._keeping = keeping
        home.scratch.mkdir(mode=0o700, exist_ok=True)
        self._lifelines = Lifelines(home.scratch, keeping.line, keeping.kept)
        image = settings.computer_image if choice.driver.name == "docker" else None
        self._computers = Computers(choice.driver, slots=settings.slots, default_image=image)
        self._fence = Fence(self._on_silence)
        # Each loop has a connection of its own, so that none waits for another's request.
        beats, syncs, lines = (NodeClient(line_to(settings, identity), identity.id) for _ in range(3))
        files = NodeFiles(connection_to(settings, identity), identity.id)
        self._clients = (beats, syncs, lines, files)
        self._pulse = Pulse(
            beats, tell=self._tell, on_reply=self._on_reply, on_void=self._on_void, on_cut_off=self._on_cut_off
        )
        self._uplink = Uplink(
            syncs, self._journal, epoch=self.epoch, on_void=self._on_void, on_refused=self._on_refused
        )
        self._shipper = LogShipper(
            lines,
            max_bytes=settings.log_buffer_bytes,
            patience_seconds=settings.log_patience_seconds,
            on_stale=self._on_stale,
        )
        tickets = _Tickets(self._run_ticket, self._pulse.now, self._on_ping)
        self._ear = Ear(
            node_id=identity.id,
            threads=settings.slots + _LIGHT_THREADS,
            handler=tickets,
            on_hearing=self._pulse.now,
        )
        self._last_call = LastCall(self._end_drain)
        self._scripts = {"command": self._script(COMMAND, files), "python": self._script(PYTHON, files)}
        self._runner = Runner(
            line=self._uplink,
            attempts=self._attempts,
            computers=self._computers,
            runtimes={"echo": Echo(), **self._scripts},
            events=lambda: self._ear.events,
            is_heard=lambda: self._pulse.is_heard,
            threads=settings.light_slots,
        )
        self._orders = Orders(
            attempts=self._attempts,
            computers=self._computers,
            ear=self._ear,
            fence=self._fence,
            last_call=self._last_call,
            say=say,
        )
        self._recovered = Recovery(
            self._journal.left_over(),
            lifelines=self._lifelines,
            scripts=self._scripts,
            attempts=self._attempts,
            computers=self._computers,
            uplink=self._uplink,
        )
        self._reaper = threading.Thread(target=self._reap_regularly, name="reaper", daemon=True)
        self._recovery = threading.Thread(target=self._recover, name="recovery", daemon=True)
        self._ended = threading.Event()

    def run(self) -> int:
        """Be the node until told to stop, drained, or void."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_drain_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        threading.excepthook = self._on_thread_death
        self._start()
        while (told := self._told.get()) == "drain":
            self._begin_drain(self._home.drain_within())
        return self._stop(told)

    # -- starting

    def _start(self) -> None:
        self._recovered.hold()
        if self._recovered.goes_on and self._keeping.until is not None:
            self._fence.expect(self._keeping.until)
        for part in (self._uplink, self._shipper, self._fence, self._ear, self._pulse, self._recovery, self._reaper):
            part.start()
        log.info("node_started", epoch=self.epoch, computers=self._choice.reason, slots=self._settings.slots)

    def _recover(self) -> None:
        self._recovered.run(self._runner)

    def _reap_regularly(self) -> None:
        while not self._ended.wait(self._settings.reap_seconds):
            self._computers.reap(self._attempts.known_ids())

    def _script(self, interpreter: str, files: NodeFiles) -> Script:
        return Script(
            interpreter,
            computers=self._computers,
            files=files,
            shipper=self._shipper,
            scratch=self._home.scratch,
            lifelines=self._lifelines,
            limits=lambda: self._orders.limits,
            max_output_bytes=self._settings.max_output_bytes,
        )

    # -- what the parts tell

    def _run_ticket(self, ticket: RunTicket, shown: str) -> None:
        if self._stopping:
            # Not claimed, so it counts against nothing; the coordinator sends it elsewhere.
            raise TicketRefused("the node is stopping")
        self._runner.run(ticket, shown)

    def _on_ping(self) -> None:
        self._ear.heard_ping()

    def _on_reply(self, reply: HeartbeatReply, sent_at: float) -> None:
        if reply.is_approved:
            share = SHARE_OF_LEASE if self._settings.self_fence else 1.0
            self._keeping.renew(sent_at + reply.lease_seconds * share)
        self._beat_seconds = reply.heartbeat_seconds
        if not self._stopping:
            self._orders.obey(reply, sent_at)

    def _on_silence(self) -> None:
        if self._settings.self_fence:
            self._orders.stop_all(Stop.fence, grace_seconds=self._settings.stop_grace_seconds)

    def _on_cut_off(self) -> None:
        self._orders.cut_off()

    def _on_refused(self, error: LongshoreError) -> None:
        log.warning("sync_refused", error=error.message)
        self._pulse.now()

    def _on_stale(self, attempt_id: str) -> None:
        self._orders.stale(attempt_id)

    def _on_void(self) -> None:
        self._told.put("void")

    def _on_thread_death(self, told: threading.ExceptHookArgs) -> None:
        """A node that has lost one of its loops only looks alive: better to end, and to be started anew."""
        name = told.thread.name if told.thread else "?"
        log.error("thread_died", thread=name, exc_info=told.exc_value)
        if name in _LOOPS:
            self._told.put("broken")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._told.put("stop")

    def _on_drain_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._told.put("drain")

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        # Where there is a terminal it means that the terminal is gone.
        self._told.put("stop" if sys.stdin is not None and sys.stdin.isatty() else "again")

    def _present(self) -> list[str] | None:
        """Told with the regular beats alone: asking the driver costs more than the rest of a beat."""
        now = time.monotonic()
        if now - self._listed_at < self._beat_seconds / 2:
            return None
        self._listed_at = now
        return self._computers.present()

    def _tell(self) -> Heartbeat:
        cpu, memory, disk = self._vitals.percents()
        vitals = self._vitals.read(computers=self._computers.count)
        vitals["queue"] = self._ear.told()
        return Heartbeat(
            epoch=self.epoch,
            cpu_usage_percent=cpu,
            memory_usage_percent=memory,
            disk_usage_percent=disk,
            vitals=vitals,
            docker_ok=self._choice.driver.answers() if self._choice.driver.name == "docker" else None,
            queue_ok=self._ear.is_ok,
            slots=self._settings.slots,
            slots_used=self._computers.used,
            light_slots=self._settings.light_slots,
            draining=self._draining,
            attempts=self._attempts.held(),
            present=self._present(),
            computers={**computers_of(self._choice), "image": self._settings.computer_image},
            software=software(),
        )

    # -- ending

    def _begin_drain(self, within: float | None) -> None:
        if within is not None:
            self._last_call.set(within)
        if not self._draining:
            self._draining = True
            self._say("draining: finishing what runs here, taking nothing new")
            threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        # Once the coordinator knows, it sends nothing more; what is on its way until then is still run.
        self._pulse.beat_and_wait(_DRAIN_BEAT_SECONDS)
        self._ear.stop_listening(_STOP_LISTENING_SECONDS)
        self._attempts.wait_empty(None)
        self._told.put("drained")

    def _end_drain(self) -> None:
        self._say("draining has taken long enough: what still runs is handed back")
        self._orders.stop_all(Stop.hand_back, grace_seconds=self._settings.stop_grace_seconds)

    def _stop(self, why: str) -> int:
        """End everything; a second signal meanwhile ends all grace."""
        self._stopping = True
        # Who begins anew is back before anybody could be told that it had been away.
        self._draining = why != "again"
        self._say(_FAREWELLS[why])
        threading.Thread(target=self._finish, args=(why,), name="finish", daemon=True).start()
        while (told := self._told.get()) != "finished":
            if told == "stop":
                for attempt in self._attempts.all():
                    attempt.hurry()
        return _CODES.get(why, OK)

    def _finish(self, why: str) -> None:
        began = time.monotonic()
        try:
            if why == "again":
                self._let_run()
            else:
                self._end_attempts(Stop.kill if why == "void" else Stop.hand_back)
                self._end_loops()
            log.info("node_stopped", why=why, seconds=round(time.monotonic() - began, 2))
        finally:
            self._told.put("finished")

    def _let_run(self) -> None:
        """End this daemon alone. What is tied to a lifeline goes on without it, the rest is handed back."""
        self._ear.stop_listening(_STOP_LISTENING_SECONDS)
        self._attempts.stop_new(Stop.hand_back)
        if self._keeping.line is not None:
            self._attempts.wait_until(self._all_tied, _TIE_SECONDS)
        for attempt in self._attempts.all():
            if not self._lifelines.is_tied(attempt.id):
                grace = min(self._settings.stop_grace_seconds, attempt.spec.cancel_grace_seconds)
                attempt.stop(Stop.hand_back, grace_seconds=grace)
        self._computers.wake()
        self._attempts.wait_until(self._all_tied, self._settings.stop_grace_seconds + _CLEAR_SECONDS)
        # The reports first: one that came after the last lines could go without them.
        self._uplink.close(_FLUSH_SECONDS)
        self._shipper.close(_FLUSH_SECONDS)

    def _all_tied(self) -> bool:
        if self._attempts.claims_wait and self._pulse.is_heard:
            # What is granted now and known to nobody later would be lost.
            return False
        return all(self._lifelines.is_tied(attempt.id) for attempt in self._attempts.all())

    def _end_attempts(self, reason: Stop) -> None:
        self._pulse.now()
        self._attempts.stop_new(reason)
        self._orders.stop_all(reason, grace_seconds=self._settings.stop_grace_seconds)
        self._ear.stop_listening(_STOP_LISTENING_SECONDS)
        self._attempts.wait_until(self._is_told, self._settings.stop_grace_seconds + _CLEAR_SECONDS)
        if not self._is_told():
            log.error("attempts_do_not_end", attempts=[item.id for item in self._attempts.all()])

    def _is_told(self) -> bool:
        """Whether nothing is left but reports that nobody takes at the moment: they are safe on the disk."""
        if self._pulse.is_heard:
            return self._attempts.wait_empty(0)
        return all(attempt.phase == "reporting" for attempt in self._attempts.all())

    def _end_loops(self) -> None:
        self._ended.set()
        self._shipper.close(_FLUSH_SECONDS)
        if not self._uplink.close(_FLUSH_SECONDS):
            log.warning("reports_not_sent", kept_in=str(self._home.journal))
        self.is_clean = self._ear.close(_STOP_LISTENING_SECONDS)
        self._pulse.close()
        self._fence.close()
        if len(self._attempts):
            self._computers.reap(())
        else:
            self._runner.close()
        self._computers.close()
        self._journal.close()
        for client in self._clients:
            client.close()
        self._keeping.dismiss()


@dataclass(frozen=True, slots=True)
class _Tickets:
    """What the consumer's threads call."""

    runs: Callable[[RunTicket, str], None]
    nudges: Callable[[], None]
    pings: Callable[[], None]

    def run(self, ticket: RunTicket, shown: str) -> None:
        self.runs(ticket, shown)

    def nudge(self) -> None:
        self.nudges()

    def ping(self) -> None:
        self.pings()
