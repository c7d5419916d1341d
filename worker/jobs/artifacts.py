"""What a job leaves behind: its artifacts are handed in, its result is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shared.client.backoff import Backoff
from shared.client.errors import worth_retrying
from shared.client.node import NodeFiles
from shared.errors import LongshoreError
from worker.attempts import Attempt, Stopped
from worker.computer.contract import RESULT, Artifact, Collected

_TRIES = 6


@dataclass(frozen=True, slots=True)
class Read:
    """The result that was read; `problem` says what is wrong with it."""

    value: Any = None
    problem: str | None = None


def read_result(collected: Collected, stdout: bytes) -> Read:
    """/work/result.json when the job wrote one, else what it printed, without the last line's end."""
    if collected.result is None:
        text = stdout.decode(errors="replace").replace("\x00", "")
        return Read(text.removesuffix("\n"))
    try:
        return Read(orjson.loads(collected.result))
    except orjson.JSONDecodeError as error:
        return Read(problem=f"{RESULT} is not valid JSON: {error}")


def hand_in(files: NodeFiles, attempt: Attempt, artifacts: Sequence[Artifact]) -> int:
    """Upload every artifact; answers how many bytes they have."""
    for artifact in artifacts:
        _upload_patiently(files, attempt, artifact.path, artifact.name)
    return sum(artifact.size for artifact in artifacts)


def keep_as_artifact(files: NodeFiles, attempt: Attempt, content: bytes, scratch: Path) -> None:
    """Hand in a result that cannot be read, so that its author can see it."""
    path = scratch / RESULT
    path.write_bytes(content)
    _upload_patiently(files, attempt, path, RESULT)


def _upload_patiently(files: NodeFiles, attempt: Attempt, path: Path, name: str) -> None:
    waits = Backoff()
    for left in reversed(range(_TRIES)):
        attempt.check()
        try:
            files.upload(path, name=name, attempt_id=attempt.id, token=attempt.token)
            return
        except LongshoreError as error:
            if not left or not worth_retrying(error):
                raise
            if attempt.stopping.wait(waits.next_seconds(error)):
                raise Stopped from error
