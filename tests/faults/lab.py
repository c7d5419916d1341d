"""A stack under load, faults thrown at it, and the verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import psycopg

from tests.faults.failing import STRUCK
from tests.faults.invariants import crowding, violations
from tests.faults.ledger import Ledger, Run
from tests.faults.load import Client, Load
from tests.faults.reader import attempts_of, jobs_of, unfinished
from tests.faults.row import Row, Tally
from tests.faults.stack import Node, Part, Plan, Stack, running
from tests.services.processes import wait_until

GONE_SECONDS = 60.0
"""How long after healing no computer without a live attempt may be left, in real seconds."""
_SAMPLE_SECONDS = 0.5
_POLL_SECONDS = 0.05
_SHORT, _LONG = 0.1, 1.2
"""How long the jobs of the load take."""


@dataclass
class Report:
    """The verdict on some injections of one row."""

    key: str
    seed: int
    count: int
    jobs: int
    reruns: int
    slowest_seconds: float
    """The longest, in this run's seconds, that an accepted job waited to begin or to begin again."""
    slowest_real_seconds: float
    """The same at the speed of real life, as far as it scales."""
    facts: dict[str, Any]
    wrong: list[str]
    """What must never be: work lost, doubled, accepted from the wrong hands, left behind."""
    late: list[str]
    """What took longer than it may."""


@dataclass
class Lab:
    """What the rows work with."""

    stack: Stack
    ledger: Ledger
    agent: str
    _pauses: threading.Event = field(default_factory=threading.Event)
    _wrong: list[str] = field(default_factory=list)

    # -- for the rows

    @property
    def nodes(self) -> Sequence[Node]:
        return self.stack.nodes

    def pause(self, real_seconds: float) -> None:
        """Let so much of real life pass."""
        self._pauses.wait(self.stack.tempo.scaled(real_seconds))

    def breathe(self, seconds: float) -> None:
        """Let so much of this machine's time pass."""
        self._pauses.wait(seconds)

    def body(self, script: str, **facts: Any) -> dict[str, Any]:
        """A task that runs this in a computer, written down in the ledger."""
        told = self.ledger.script(script, host=self.stack.ledger_host)
        return {"title": "a fault's job", "instructions": told, "agent_id": self.agent} | facts

    def submit(self, script: str, **facts: Any) -> str:
        """The id of the accepted job, asked for until there is an answer: whoever answers may just have been killed."""
        with self.client() as client:
            job_id = client.submit(self.body(script, **facts))
        self._wrong += client.wrong
        return job_id

    def client(self) -> Client:
        return Client(self.stack.url, {"Authorization": self.stack.http.headers["Authorization"]})

    def until(self, probe: Callable[[], Any], *, what: str, real_seconds: float) -> float:
        """Wait for something that may take so long in real life; how long it took here. TimeoutError if it does not."""
        began = time.monotonic()

        def asked() -> Any:
            answer = probe()
            if not answer:
                self._pauses.wait(_POLL_SECONDS)
            return answer

        wait_until(asked, what=what, seconds=self.stack.tempo.within(real_seconds))
        return time.monotonic() - began

    def until_state(self, jobs: Collection[str], *states: str, real_seconds: float) -> float:
        """Wait until each of these jobs is in one of these states."""
        reader = self.stack.reader

        def are_there() -> bool:
            return all(job["state"] in states for job in jobs_of(reader, jobs))

        what = f"{len(jobs)} jobs that are {' or '.join(states)}"
        return self.until(are_there, what=what, real_seconds=real_seconds)

    def until_runs(self, job_id: str) -> Run:
        """Wait until a computer of this job is at work; its first run."""
        return self.ledger.wait_for(job_id, seconds=self.stack.tempo.within(60))

    def until_hears(self, node: Node) -> float:
        """Wait until this node works again."""
        return self.until(lambda: self._hears(node), what=f"{node.name} that hears its queue", real_seconds=60)

    def strike(self, point: str) -> bool:
        """Arm a place and wait until somebody died there; what died is started again."""
        self.stack.arm(point)
        try:
            wait_until(self._struck, what=f"death at {point}", seconds=self.stack.tempo.within(60))
        except TimeoutError:
            return False
        finally:
            (self.stack.control / point).unlink(missing_ok=True)
        return True

    def cancel_soon(self, job_id: str) -> None:
        """Cancel on a thread of its own, again and again until it is answered."""

        def ask() -> None:
            with self.client() as client:
                client.cancel(job_id)

        threading.Thread(target=ask, name="cancel", daemon=True).start()

    def restart_dead(self) -> list[Part]:
        """Start what does not run; what that was."""
        parts: list[Part] = [self.stack.serve, *self.stack.dispatchers, *self.nodes]
        dead = [part for part in parts if not part.is_running]
        for part in dead:
            part.start()
        return dead

    def state(self, job_id: str) -> str:
        (job,) = jobs_of(self.stack.reader, [job_id])
        return str(job["state"])

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        return attempts_of(self.stack.reader, [job_id])

    # -- the trial

    def try_row(self, row: Row, *, count: int, seed: int) -> Report:
        """Inject `count` faults of this row under load, heal, wait, and judge."""
        random = Random(f"{row.key}/{seed}")
        self._wrong.clear()
        with self._watched() as crowded, self._loaded(row, seed) as load:
            tally = row.inject(self, random, count)
            self.stack.heal()
            self.stack.wait_ready()
        accepted = [*(load.accepted if load else ()), *tally.jobs]
        wrong = [*tally.wrong, *self._wrong, *crowded, *(load.client.wrong if load else ())]
        wrong += self._settle(accepted)
        wrong += self._judge(accepted, tally)
        runs = self.ledger.of(accepted)
        slowest = self._slowest(runs, load.accepted if load else {})
        if tally.stall_seconds is not None:
            slowest = tally.stall_seconds
        late = []
        if row.limit_seconds is not None and slowest > (limit := self.stack.tempo.within(row.limit_seconds)):
            late.append(f"a job waited {slowest:.1f} s, and may {limit:.1f} s")
        return Report(
            key=row.key,
            seed=seed,
            count=tally.count,
            jobs=len(accepted),
            reruns=len(runs) - len({run.job for run in runs}),
            slowest_seconds=round(slowest, 2),
            slowest_real_seconds=round(slowest * self.stack.tempo.factor, 1),
            facts=tally.facts,
            wrong=wrong,
            late=late,
        )

    @contextmanager
    def _loaded(self, row: Row, seed: int) -> Iterator[Load | None]:
        if not row.rate:
            yield None
            return
        load = Load(self.client(), self._load_body, rate=row.rate, seed=seed)
        try:
            yield load
        finally:
            load.close()

    def _load_body(self, random: Random) -> Mapping[str, Any]:
        return self.body(f"sleep {random.uniform(_SHORT, _LONG):.2f}")

    @contextmanager
    def _watched(self) -> Iterator[list[str]]:
        """Look all the while whether a job has two live attempts or a node more than its slots."""
        seen: list[str] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(_SAMPLE_SECONDS):
                # While the database is the one that is away, there is nothing to see.
                with suppress(psycopg.OperationalError):
                    seen.extend(told for told in crowding(self.stack.reader) if told not in seen)

        thread = threading.Thread(target=look, name="watch", daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    def _settle(self, accepted: Sequence[str]) -> list[str]:
        """I1 has a time limit, and so has I5: nothing of an attempt that is over is left."""
        reader, patience = self.stack.reader, self.stack.plan.heal_seconds
        with suppress(TimeoutError):
            self.until(lambda: not unfinished(reader, accepted), what="an end of all jobs", real_seconds=patience)
        try:
            self.until(lambda: not self._left_over(), what="an end of all computers", real_seconds=GONE_SECONDS)
        except TimeoutError:
            return [f"I5: {told} is left" for told in self._left_over()]
        return []

    def _left_over(self) -> list[str]:
        runs = [f"attempt {run.attempt} of job {run.job}" for run in self.ledger.open()]
        if self.stack.docker is not None:
            runs += [f"container {' '.join(item['Names'])}" for item in self.stack.docker.containers()]
        return runs + [f"process {process.pid}" for process in self.stack.computers()]

    def _judge(self, accepted: Sequence[str], tally: Tally) -> list[str]:
        runs = self.ledger.of(accepted)
        sound = [job_id for job_id in accepted if job_id not in tally.doomed]
        doomed = [job_id for job_id in accepted if job_id in tally.doomed]
        reader = self.stack.reader
        found = violations(reader, sound, [run for run in runs if run.job not in tally.doomed], may_die=False)
        if doomed:
            found += violations(reader, doomed, [run for run in runs if run.job in tally.doomed])
        return found

    def _slowest(self, runs: Sequence[Run], accepted: Mapping[str, float]) -> float:
        """From acceptance to the first run, and from the end of a run that came to nothing to the next one."""
        waits = [0.0]
        before: dict[str, Run] = {}
        for run in runs:
            last = before.get(run.job)
            since = accepted.get(run.job) if last is None else last.gone
            if since is not None:
                waits.append(run.started - since)
            before[run.job] = run
        return max(waits)

    def _struck(self) -> bool:
        if not self.stack.has_struck():
            self._pauses.wait(_POLL_SECONDS)
            return False
        return bool((self.stack.control / STRUCK).read_text())

    def _hears(self, node: Node) -> bool:
        with suppress(httpx.HTTPError):
            told = self.stack.get(f"/api/v1/workers/{node.id}")
            return bool(told["status"] == "online" and told["queue_ok"])
        return False


@contextmanager
def lab(plan: Plan, **variables: str) -> Iterator[Lab]:
    """A lab with a stack by this plan."""
    ledger = Ledger()
    try:
        with running(plan, **variables) as stack:
            if stack.docker is not None:
                ledger.listen_in(stack.docker.network)
            agent = stack.agent(name="load", runtime="command", computer={"network": "open"})
            yield Lab(stack, ledger, agent)
    finally:
        ledger.close()
