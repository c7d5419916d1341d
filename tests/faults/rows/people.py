"""Rows 12, 14, 15 and 16: work that kills nodes, storms of cancels and redrives, services that refuse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.ledger import Run
from tests.faults.reader import Row as Record
from tests.faults.reader import jobs_of, moment
from tests.faults.row import Row, Tally
from tests.faults.rows.plans import ON_POSTGRESQL, ON_SQLITE, STRICT

if TYPE_CHECKING:
    from tests.faults.lab import Lab

GRACE_SECONDS = 5.0
REDRIVE_POINTS = ("redrive-written", "redrive-committed")
REFUSAL_SECONDS = 120.0
POISON_LOSSES = 3
FORK_BOMB = "bomb() { bomb | bomb & }; bomb; sleep 20"
MEMORY_BOMB = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"


# ---- row 12


def poison(lab: Lab, random: Random, count: int) -> Tally:
    """Jobs on which every daemon dies; jobs that eat memory or processes. The others must not notice."""
    kinds = ("daemon", "memory", "processes")
    tally = Tally(facts={"kinds": dict.fromkeys(kinds, 0)})
    for number in range(count):
        kind = kinds[number % len(kinds)]
        if kind == "daemon":
            _kill_whoever_runs(lab, tally)
        else:
            _run_a_bomb(lab, tally, MEMORY_BOMB if kind == "memory" else FORK_BOMB)
        tally.facts["kinds"][kind] += 1
        tally.count += 1
    return tally


def _kill_whoever_runs(lab: Lab, tally: Tally) -> None:
    job_id = lab.submit("sleep 600")
    tally.jobs.add(job_id)
    tally.doomed.add(job_id)
    killed: list[str] = []

    def is_over() -> bool:
        (job,) = jobs_of(lab.stack.reader, [job_id])
        attempt = next((row for row in lab.attempts(job_id) if row["state"] == "running"), None)
        if attempt is not None and attempt["id"] not in killed and _runs(lab, job_id, attempt["number"]):
            killed.append(attempt["id"])
            node = next(node for node in lab.nodes if node.id == attempt["node_id"])
            node.kill()
            node.start()
        return str(job["state"]) == "dead"

    lab.until(is_over, what="an end of the poison", real_seconds=300)
    (job,) = jobs_of(lab.stack.reader, [job_id])
    nodes = {row["node_id"] for row in lab.attempts(job_id)}
    if job["reason_code"] != "poison_suspected" or (len(killed) > POISON_LOSSES and len(nodes) > 2):
        tally.wrong.append(f"job {job_id} killed {len(killed)} daemons and is dead of {job['reason_code']}")


def _runs(lab: Lab, job_id: str, number: int) -> bool:
    return any(run.attempt == number for run in lab.ledger.of([job_id]))


def _run_a_bomb(lab: Lab, tally: Tally, bomb: str) -> None:
    computer = {"network": "open", "timeout_seconds": 5, "memory_mb": 64, "pids": 64}
    agent = lab.stack.agent(name=f"bomb-{time.monotonic_ns()}", runtime="command", computer=computer)
    job_id = lab.submit(bomb, agent_id=agent, retry={"max_attempts": 1})
    tally.jobs.add(job_id)
    tally.doomed.add(job_id)
    lab.until_state([job_id], "dead", "succeeded", real_seconds=120)


# ---- row 14


def cancel_storm(lab: Lab, random: Random, count: int) -> Tally:
    """Jobs are cancelled at every moment of their lives, eight at a time; some do not listen to SIGTERM."""
    tally = Tally(facts={"answers": {"200": 0, "409": 0}})
    told: dict[str, tuple[int, float]] = {}
    lock = threading.Lock()

    def one(number: int, seconds: float, wait: float, is_deaf: bool) -> None:
        with lab.client() as client:
            trap = 'trap "" TERM; ' if is_deaf else ""
            job_id = client.submit(lab.body(f"{trap}sleep {seconds:.2f}"))
            lab.breathe(wait)
            status = client.cancel(job_id)
            with lock:
                told[job_id] = (status, time.monotonic())

    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(one, number, random.uniform(0, 1.5), random.uniform(0, 1.5), random.random() < 0.2)
            for number in range(count)
        ]
        for each in waiting:
            each.result()
    tally.jobs |= set(told)
    tally.count = len(told)
    lab.until_state(told, "succeeded", "cancelled", real_seconds=120)
    runs = {run.job: run for run in lab.ledger.of(told)}
    for job_id, (status, at) in told.items():
        tally.facts["answers"][str(status)] = tally.facts["answers"].get(str(status), 0) + 1
        tally.wrong += _wrong_about(lab, job_id, status, at, runs.get(job_id))
    return tally


def _wrong_about(lab: Lab, job_id: str, status: int, at: float, run: Run | None) -> Iterator[str]:
    state = lab.state(job_id)
    if (status, state) not in ((200, "cancelled"), (409, "succeeded")):
        yield f"job {job_id} was answered {status} when it was cancelled, and is {state}"
    limit = lab.stack.tempo.within(GRACE_SECONDS + 15)
    if (
        status == httpx.codes.OK
        and run is not None
        and not lab.ledger.wait_gone(run, seconds=max(0, at + limit - time.monotonic()))
    ):
        yield f"the computer of job {job_id} was still there {limit:.0f} s after it was cancelled"


# ---- row 15


def redrive(lab: Lab, random: Random, count: int) -> Tally:
    """Ten people retry all dead letters at once, some with one key, while the coordinator is killed in the middle."""
    tally = Tally(facts={"redriven": 0, "kills": dict.fromkeys(REDRIVE_POINTS, 0)})
    first = random.randrange(2)
    for number in range(count):
        dead = _bury(lab, tally, 12)
        point = REDRIVE_POINTS[(first + number // 2) % 2]
        if number % 2 == 0:
            lab.stack.arm(point)
        keys = [f"{number}-{random.random()}" for _ in range(5)]
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda key: _retry_all(lab, key), [*keys, *keys[:1] * 5]))
        _retry_all(lab, f"{number}-last")
        tally.facts["kills"][point] += lab.stack.has_struck() and number % 2 == 0
        tally.facts["redriven"] += len(dead)
        tally.count += 1
        lab.restart_dead()
        lab.until_state(dead, "succeeded", real_seconds=300)
        for job in jobs_of(lab.stack.reader, dead):
            if job["generation"] != 2:
                tally.wrong.append(f"job {job['id']} was redriven {job['generation'] - 1} times")
        if len({answer for answer in (answers[0], *answers[-5:]) if answer is not None}) > 1:
            tally.wrong.append(f"one key was answered with {answers[0]} and {answers[-5:]}")
    return tally


def _bury(lab: Lab, tally: Tally, count: int) -> list[str]:
    """Jobs that fail at their first try, and only then."""
    dying = [
        lab.submit("[ $ATTEMPT -gt 1 ] || exit 9", retry={"max_attempts": 1}, title="to be redriven")
        for _ in range(count)
    ]
    tally.jobs |= set(dying)
    lab.until_state(dying, "dead", real_seconds=120)
    return dying


def _retry_all(lab: Lab, key: str) -> int | None:
    """How many it sent round again; None when the key is taken: its request is under way, or died on its way."""
    headers = {"Authorization": lab.stack.http.headers["Authorization"], "Idempotency-Key": key}
    answers: list[httpx.Response] = []

    def ask() -> bool:
        with suppress(httpx.TransportError):
            url = f"{lab.stack.url}/api/v1/dead-letter/retry-all"
            answers.append(httpx.post(url, json={}, headers=headers, timeout=30))
        return bool(answers) and answers[-1].status_code in (httpx.codes.OK, httpx.codes.CONFLICT)

    lab.until(ask, what="an answer about dead letters", real_seconds=300)
    return answers[-1].json()["retried_count"] if answers[-1].is_success else None


# ---- row 16


def refuse(lab: Lab, random: Random, count: int) -> Tally:
    """What jobs depend on refuses everybody for a while; a breaker keeps them from trying."""
    tally = Tally(facts={"attempts": 0, "openings": 0, "probes": 0})
    for _ in range(count):
        agent = f"dependent-{random.randrange(1_000_000)}"
        agent_id = lab.stack.agent(name=agent, runtime="command", computer={"network": "open"})
        name = f"agent:{agent}"
        lab.stack.post("/api/v1/circuit-breakers", {"name": name, **_breaker(lab)})
        with _provider() as (port, let_in):
            body = f"exec 4<>/dev/tcp/{lab.stack.host}/{port}; read -r said <&4; [ $said = yes ] || exit 5"
            retry = {"max_attempts": 100, "base_seconds": 0.1, "cap_seconds": 0.3}
            jobs = [lab.submit(body, agent_id=agent_id, retry=retry) for _ in range(20)]
            tally.jobs |= set(jobs)
            lab.pause(REFUSAL_SECONDS)
            let_in()
            lab.until_state(jobs, "succeeded", real_seconds=600)
        _judge_breaker(lab, tally, name, jobs)
        tally.count += 1
    return tally


def _breaker(lab: Lab) -> dict[str, float]:
    tempo = lab.stack.tempo
    return {
        "failure_threshold": 5,
        "window_seconds": tempo.scaled(120),
        "recovery_timeout_seconds": tempo.scaled(30),
        "success_threshold": 3,
    }


@contextmanager
def _provider() -> Iterator[tuple[int, Callable[[], None]]]:
    """Says no to whoever connects, until it is told to let them in."""
    said = [b"no\n"]
    server = socket.create_server(("", 0), backlog=128)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed
            with connection:
                connection.sendall(said[0])

    threading.Thread(target=serve, name="provider", daemon=True).start()
    try:
        yield server.getsockname()[1], lambda: said.__setitem__(0, b"yes\n")
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _judge_breaker(lab: Lab, tally: Tally, name: str, jobs: list[str]) -> None:
    """While it is open nothing is placed; while it is half open one attempt at a time."""
    changes = lab.stack.reader.rows("SELECT * FROM breaker_changes WHERE name = ? ORDER BY id", name)
    attempts = [row for job_id in jobs for row in lab.attempts(job_id)]
    tally.facts["attempts"] += len(attempts)
    tally.facts["openings"] += sum(change["target"] == "open" for change in changes)
    for change, after in zip(changes, [*changes[1:], None], strict=True):
        if change["target"] not in ("open", "half_open"):
            continue
        during = [row for row in attempts if _is_between(row["dispatched_at"], change, after)]
        if change["target"] == "open" and during:
            tally.wrong.append(f"{len(during)} attempts were burned while {name} was open")
        if change["target"] == "half_open":
            tally.facts["probes"] += len(during)
            tally.wrong += _side_by_side(name, during)
    if not any(change["target"] == "open" for change in changes):
        tally.wrong.append(f"{name} never opened: nothing was tried")


def _is_between(at: Any, change: Record, after: Record | None) -> bool:
    when, since = moment(at), moment(change["at"])
    until = moment(after["at"]) if after is not None else None
    assert when is not None
    assert since is not None
    return since < when and (until is None or when < until)


def _side_by_side(name: str, probes: list[Record]) -> list[str]:
    ordered = sorted(probes, key=lambda row: str(moment(row["dispatched_at"])))
    return [
        f"two probes of {name} at once: attempts {one['id']} and {two['id']}"
        for one, two in pairwise(ordered)
        if one["ended_at"] is None or moment(one["ended_at"]) > moment(two["dispatched_at"])  # type: ignore[operator]
    ]


ROWS = (
    Row(
        number=12,
        name="poison",
        fault="a job that kills every daemon that runs it; jobs that eat all memory, or all processes",
        mechanism="losses on several nodes are counted; every computer has limits",
        criterion="dead of poison_suspected after three; the others do not notice",
        inject=poison,
        plan=STRICT,
        aim=20,
        few=3,
        rate=1.0,
    ),
    Row(
        number=14,
        name="cancels",
        fault="cancelled at any moment of its life",
        mechanism="a job that is being cancelled can end in one way only; the node tells when its computer is gone",
        criterion="the computer is gone within grace and 15 s; no success after a cancel",
        inject=cancel_storm,
        plan=ON_SQLITE,
        aim=1000,
        few=40,
        chunk=200,
    ),
    Row(
        number=15,
        name="redrive",
        fault="ten times retry-all at once, with the same and with other keys, and a kill in the middle",
        mechanism="a dead letter is closed in the transaction that sends its job round again",
        criterion="each job goes round once",
        inject=redrive,
        plan=ON_POSTGRESQL,
        aim=50,
        few=2,
    ),
    Row(
        number=16,
        name="breaker",
        fault="what jobs depend on refuses everybody for two minutes",
        mechanism="a breaker that the whole fleet shares, with one probe at a time",
        criterion="no attempt while it is open, one at a time while it is half open; all succeed in the end",
        inject=refuse,
        plan=ON_SQLITE,
        aim=10,
        few=1,
    ),
)
