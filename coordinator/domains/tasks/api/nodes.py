"""Endpoints by which a node fetches the inputs of an attempt and hands in what it brought out."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import AttemptFacts
from coordinator.domains.tasks.api import shown, transfer
from coordinator.domains.tasks.api.transfer import Upload
from coordinator.domains.tasks.schemas import ArtifactBody, FileView
from coordinator.domains.tasks.service import files as service
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.http.slice import NODE, Call, Slice
from coordinator.store.database import Transaction
from shared.contracts.node import ATTEMPT_TOKEN_HEADER
from shared.errors import Conflict

node_files = Slice("node-files", "Files on their way to a node and back, one attempt at a time")


@node_files.get(
    "/workers/<id:worker_id>/attempts/<id:attempt_id>/files/<id:file_id>",
    may=NODE,
    returns="binary",
    transaction="none",
    errors=(409,),
)
def fetch_input_file(call: Call, worker_id: str, attempt_id: str, file_id: str) -> Response:
    """The content of an input file, for the node that holds the attempt."""
    with call.read() as tx:
        file = service.input_of_attempt(tx, _proven(tx, worker_id, attempt_id), file_id)
    return transfer.download(call.resources, file)


@node_files.post(
    "/workers/<id:worker_id>/attempts/<id:attempt_id>/artifacts",
    may=NODE,
    accepts="multipart",
    body=ArtifactBody,
    reply=FileView,
    status=201,
    location="/files/{id}",
    errors=(409,),
)
def hand_in_artifact(call: Call, worker_id: str, attempt_id: str) -> dict[str, Any]:
    """Hand in one file of /work/artifacts; the same file again gets the same answer."""
    with call.read() as tx:
        _proven(tx, worker_id, attempt_id)
    with transfer.uploaded() as upload:
        name = service.artifact_name(upload.form.get("name") or upload.file.filename)
        return shown.file_view(_taken(call, worker_id, attempt_id, upload, name))


def _taken(call: Call, worker_id: str, attempt_id: str, upload: Upload, name: str) -> StoredFile:
    with transfer.saved(call, upload, filename=name) as content, call.write() as tx:
        # The attempt may have been lost while its file came in.
        facts = _proven(tx, worker_id, attempt_id)
        known = service.same_artifact(tx, facts, name)
        if known is None:
            told = upload.form.get("sha256")
            return service.record_artifact(tx, call.resources, facts, content, told_sha256=told)
    service.discard(call.resources, content)
    if known.sha256 != content.sha256:
        raise Conflict(f"the attempt has handed in another file called {name} already")
    return known


def _proven(tx: Transaction, worker_id: str, attempt_id: str) -> AttemptFacts:
    token = request.headers.get(ATTEMPT_TOKEN_HEADER, "")
    return queue.require_attempt(tx, node_id=worker_id, attempt_id=attempt_id, token=token)
