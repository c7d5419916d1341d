"""What makes a running command outlive the daemon: its stream with the keeper, its output and its story on the disk."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog

from shared.contracts.node import JobSpec
from worker.attempts import Attempt
from worker.computer.contract import Adopted
from worker.computer.spool import Spool
from worker.keeper.line import KeeperLine, Kept

_STREAM = "stream"
_STORY = "story.json"
_NOT_KEPT: dict[str, Any] = {"script": None, "input": None, "env": {}, "input_files": []}
"""Of the job's spec: it has all that once it runs, and what is secret lies nowhere longer than it must."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits that an attempt began with; a resumed one keeps them, or its lines would get other numbers."""

    output_bytes: int
    result_bytes: int
    log_bytes: int


@dataclass(frozen=True, slots=True)
class Story:
    """What a later daemon has to know of an attempt to go on with it. Moments are on the monotonic clock."""

    attempt: str
    job: str
    number: int
    spec: dict[str, Any]
    computer: dict[str, Any] | None
    caps: Caps
    bytes_in: int
    began: float
    deadline: float | None = None
    handle: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, attempt: Attempt, *, caps: Caps, bytes_in: int) -> Story:
        spec = attempt.spec.to_json() | _NOT_KEPT
        computer = dict(attempt.computer) if attempt.computer else None
        return cls(
            attempt=attempt.id,
            job=attempt.job_id,
            number=attempt.number,
            spec=spec,
            computer=computer,
            caps=caps,
            bytes_in=bytes_in,
            began=time.monotonic(),
            deadline=attempt.deadline,
        )

    def told(self, token: str) -> Attempt:
        """The attempt again."""
        attempt = Attempt(
            attempt_id=self.attempt,
            job_id=self.job,
            number=self.number,
            token=token,
            spec=JobSpec.from_json(self.spec),
            deadline=self.deadline,
        )
        attempt.computer = self.computer
        return attempt


class Lifeline:
    """The lifeline of one attempt."""

    def __init__(self, directory: Path, line: KeeperLine, story: Story, kept: Kept | None = None) -> None:
        self.story = story
        self._directory = directory
        self._line = line
        self._kept = kept
        pipe = (kept.descriptors[1], kept.descriptors[2]) if kept else None
        self._spool = Spool(directory / _STREAM, pipe=pipe, on_broken=self._on_broken)

    def hold(self, stream: int, handle: Mapping[str, str]) -> None:
        told = orjson.dumps(asdict(self.story) | {"handle": dict(handle)})
        try:
            _write_whole(self._directory / _STORY, told)
        except OSError as error:
            self._on_broken(error)
            return
        self._line.hold(self.story.attempt, handle, (stream, *self._spool.pipe))

    def pull(self, stream: int) -> bytes:
        return self._spool.pull(stream)

    def replay(self) -> Iterator[bytes]:
        return self._spool.replay()

    def stop(self) -> None:
        self._spool.stop()

    def adopted(self) -> Adopted:
        """The command as its computer can go on with it."""
        assert self._kept is not None, "nobody held it"
        return Adopted(self._kept.descriptors[0], self.story.handle, self.story.began, self)

    def close(self) -> None:
        self._spool.close()

    def _on_broken(self, error: OSError) -> None:
        log.warning("lifeline_broken", attempt=self.story.attempt, error=str(error), means="it ends with this daemon")
        self._line.drop(self.story.attempt)
        (self._directory / _STORY).unlink(missing_ok=True)


class Lifelines:
    """All lifelines of a node, below its scratch directory. Without a keeper there are none."""

    def __init__(self, scratch: Path, line: KeeperLine | None, kept: Mapping[str, Kept] | None = None) -> None:
        self._scratch = scratch
        self._line = line
        self._kept = dict(kept or {})
        self._open: dict[str, Lifeline] = {}
        self._lock = threading.Lock()

    def tie(self, attempt: Attempt, *, caps: Caps, bytes_in: int) -> Lifeline | None:
        """A lifeline for a command that is about to start."""
        if self._line is None:
            return None
        story = Story.of(attempt, caps=caps, bytes_in=bytes_in)
        return self._remember(Lifeline(self._scratch / attempt.id, self._line, story))

    def story(self, attempt_id: str) -> Story | None:
        """What an earlier daemon wrote down."""
        path = self._scratch / attempt_id / _STORY
        try:
            told = orjson.loads(path.read_bytes())
            return Story(**told | {"caps": Caps(**told["caps"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            # Of a version that wrote it otherwise: then it is not resumed, as if it had not been written.
            log.warning("story_not_understood", attempt=attempt_id, error=str(error))
            return None

    def is_held(self, attempt_id: str) -> bool:
        """Whether the stream of an earlier daemon's command is here."""
        return attempt_id in self._kept

    def take_up(self, story: Story) -> Lifeline:
        """The lifeline that an earlier daemon tied."""
        assert self._line is not None, "only a keeper holds streams"
        return self._remember(Lifeline(self._scratch / story.attempt, self._line, story, self._kept.pop(story.attempt)))

    def printed(self, attempt_id: str) -> Iterator[bytes]:
        """What an attempt had printed whose end is known already."""
        with (self._scratch / attempt_id / _STREAM).open("rb") as file:
            while data := file.read(65536):
                yield data

    def is_tied(self, attempt_id: str) -> bool:
        """Whether the attempt would go on if this daemon fell now."""
        return (self._scratch / attempt_id / _STORY).exists()

    def cut(self, attempt_id: str) -> None:
        """The attempt is reported, or not ours: nothing of it is needed any more."""
        with self._lock:
            lifeline = self._open.pop(attempt_id, None)
        if lifeline is not None and self._line is not None:
            self._line.drop(attempt_id)
            lifeline.close()
        shutil.rmtree(self._scratch / attempt_id, ignore_errors=True)

    def clear(self, *, running: set[str], told: set[str]) -> None:
        """Forget what earlier daemons left, but the streams of what runs and what was printed by those in `told`."""
        for attempt_id in set(self._kept) - running:
            self._kept.pop(attempt_id).close()
            if self._line is not None:
                self._line.drop(attempt_id)
        for path in self._scratch.iterdir():
            if path.name not in told:
                shutil.rmtree(path, ignore_errors=True)

    def _remember(self, lifeline: Lifeline) -> Lifeline:
        with self._lock:
            self._open[lifeline.story.attempt] = lifeline
        return lifeline


def _write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing. No sync: it has to survive this process, not the machine, with which the command ends."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)
