"""The files that work starts from, and those it brings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.domains.queue.service import JobView
from coordinator.domains.tasks.service import orders
from coordinator.domains.tasks.store.files import StoredFile


def named(file_ids: Sequence[str], known: Mapping[str, StoredFile]) -> list[dict[str, Any]]:
    """The files a client names as inputs, as a node is told of them; each must be there and have its own name."""
    names: set[str] = set()
    found: list[dict[str, Any]] = []
    for index, file_id in enumerate(file_ids):
        if file_id not in known:
            raise orders.fault(f"input_files[{index}]", "there is no such file")
        file = known[file_id]
        if file.filename in names:
            raise orders.fault(f"input_files[{index}]", f"another input file is called {file.filename} too")
        names.add(file.filename)
        found.append(orders.input_of(file))
    return found


def brought_out(job: JobView, artifacts: Sequence[StoredFile]) -> list[StoredFile]:
    """The artifacts that count: the accepted attempt's, and until one is accepted the latest attempt's."""
    if not artifacts:
        return []
    accepted = job.accepted_attempt_id
    counts = accepted if accepted is not None else max(file.attempt_id or "" for file in artifacts)
    return [file for file in artifacts if file.attempt_id == counts]
