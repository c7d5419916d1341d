"""A client as it should be: it submits work all the while, and repeats what was not answered with the same key."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tests.faults.tempo import slowness

CREATED, UNAVAILABLE, TOO_MANY = 201, 503, 429
REPEATED_SHARE = 0.1
_PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.1
_SLOWEST = 3.0


@dataclass(frozen=True, slots=True)
class Answered:
    """How long one request took that was answered at all."""

    at: float
    seconds: float
    status: int


@dataclass
class Client:
    """Submits over a connection of its own and remembers what it was promised. One thread at a time."""

    url: str
    headers: Mapping[str, str]
    accepted: dict[str, float] = field(default_factory=dict)
    """Job id → when the answer came."""
    answers: list[Answered] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.url, headers=dict(self.headers), timeout=30)
        self._breath = threading.Event()

    def close(self) -> None:
        self._breath.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self, job_id: str) -> int:
        """Cancel, until there is an answer; its status."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            try:
                status = self._http.post(f"/api/v1/tasks/{job_id}/cancel").status_code
            except httpx.TransportError:
                status = UNAVAILABLE
            if status != UNAVAILABLE:
                return status
            self._breath.wait(_PAUSE_SECONDS)
        raise TimeoutError(f"nobody answered for {_PATIENCE_SECONDS} s whether job {job_id} is cancelled")

    def submit(self, body: Mapping[str, Any], *, twice: bool = False) -> str:
        """The id of the accepted job; with `twice` asked again, as a client does that lost the answer."""
        key = uuid.uuid4().hex
        job_id = self._ask(key, body)
        if twice and (again := self._ask(key, body)) != job_id:
            self.wrong.append(f"the same Idempotency-Key gave job {job_id} and then job {again}")
        self.accepted[job_id] = time.monotonic()
        return job_id

    def _ask(self, key: str, body: Mapping[str, Any]) -> str:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            answer = self._try(key, body)
            if answer is not None and answer.status_code == CREATED:
                job_id: str = answer.json()["id"]
                return job_id
            if answer is not None and answer.status_code not in (UNAVAILABLE, TOO_MANY):
                self.wrong.append(f"POST /tasks was answered {answer.status_code}: {answer.text[:300]}")
            self._breath.wait(_PAUSE_SECONDS)
        raise TimeoutError(f"no job was accepted for {_PATIENCE_SECONDS} s")

    def _try(self, key: str, body: Mapping[str, Any]) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = self._http.post("/api/v1/tasks", json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None
        self.answers.append(Answered(began, time.monotonic() - began, answer.status_code))
        return answer


class Load:
    """Submits jobs of a random length at a steady rate, on a thread of its own, until it is closed."""

    def __init__(self, client: Client, bodies: Any, *, rate: float, seed: int) -> None:
        self.client = client
        self._bodies = bodies
        self._rate = rate
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> Mapping[str, float]:
        return self.client.accepted

    def close(self) -> None:
        """End; raises what went wrong on its thread."""
        self._stop.set()
        self._thread.join()
        self.client.close()
        if self._failed:
            raise self._failed[0]

    def _pause(self) -> float:
        """Longer on a machine that is busy: work that only waits its turn shows nothing."""
        return min(slowness(), _SLOWEST) / self._rate

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._random.uniform(0.5, 1.5) * self._pause()):
                self.client.submit(self._bodies(self._random), twice=self._random.random() < REPEATED_SHARE)
        except BaseException as error:  # noqa: BLE001 - raised again where the load is closed
            self._failed.append(error)
