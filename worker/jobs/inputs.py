"""The input files of a job: fetched from the coordinator, checked, and put into the computer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from shared.client.backoff import Backoff
from shared.client.errors import worth_retrying
from shared.client.node import NodeFiles
from shared.contracts.node import InputFile
from shared.errors import LongshoreError
from worker.attempts import Attempt, Stopped
from worker.computer import contract
from worker.computer.contract import Computer

_TRIES = 4


class InputBroken(LongshoreError):
    """The file that arrived is not the one that was promised."""

    code, status, retryable = "INPUT_BROKEN", 502, True


def place_inputs(remote: NodeFiles, attempt: Attempt, computer: Computer, scratch: Path) -> int:
    """Bring every input file to /work/input; answers how many bytes they have."""
    files = [InputFile.from_json(item) for item in attempt.spec.input_files]
    if not files:
        return 0
    paths = [scratch / f"input-{number}" for number in range(len(files))]
    for file, path in zip(files, paths, strict=True):
        _fetch_patiently(remote, attempt, file, path)
    with ExitStack() as opened:
        sources = [opened.enter_context(path.open("rb")) for path in paths]
        computer.put_files(_placed(files, sources))
    return sum(file.size for file in files)


def _placed(files: Sequence[InputFile], sources: Sequence[BinaryIO]) -> list[contract.InputFile]:
    return [
        contract.InputFile(f"{contract.INPUT}/{Path(file.filename).name}", source, file.size)
        for file, source in zip(files, sources, strict=True)
    ]


def _fetch_patiently(remote: NodeFiles, attempt: Attempt, file: InputFile, path: Path) -> None:
    waits = Backoff()
    for left in reversed(range(_TRIES)):
        attempt.check()
        try:
            _fetch(remote, attempt, file, path)
            return
        except LongshoreError as error:
            if not left or not (worth_retrying(error) or isinstance(error, InputBroken)):
                raise
            if attempt.stopping.wait(waits.next_seconds(error)):
                raise Stopped from error


def _fetch(remote: NodeFiles, attempt: Attempt, file: InputFile, path: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    with (
        path.open("wb") as target,
        remote.fetch(attempt_id=attempt.id, token=attempt.token, file_id=file.id) as chunks,
    ):
        for chunk in chunks:
            attempt.check()
            size += len(chunk)
            if size > file.size:
                break
            digest.update(chunk)
            target.write(chunk)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise InputBroken(f"the input file {file.filename!r} arrived broken", file_id=file.id)
