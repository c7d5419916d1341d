"""Endpoints of files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from coordinator.domains.tasks.api import shown, transfer
from coordinator.domains.tasks.schemas import (
    ContentQuery,
    FileQuery,
    FileUrlView,
    FileView,
    UploadBody,
    UploadQuery,
)
from coordinator.domains.tasks.service import files as service
from coordinator.domains.tasks.service import tasks as task_service
from coordinator.http.slice import OPEN, Call, ListOf, Page, Slice
from shared.errors import LongshoreError

files = Slice("files", "What goes into computers and what comes out of them")


def _upload(call: Call) -> dict[str, Any]:
    task_id = call.query.get("task_id")
    kind = task_service.KIND if task_id else None
    with (
        transfer.uploaded() as upload,
        transfer.saved(call, upload, filename=service.upload_name(upload.file.filename)) as content,
        call.write() as tx,
    ):
        file = service.record(tx, content, space=call.space, by=call.actor.id, job_id=task_id, kind=kind)
    return shown.file_view(file)


@files.post(
    "/files/upload",
    may="files:write",
    accepts="multipart",
    body=UploadBody,
    query=UploadQuery,
    reply=FileView,
    status=201,
    location="/files/{id}",
)
def upload_file(call: Call) -> dict[str, Any]:
    """Upload a file.

    Its name is made harmless, and so is its media type: whatever a browser would run is kept as plain bytes.
    """
    return _upload(call)


@files.post(
    "/files",
    may="files:write",
    accepts="multipart",
    body=UploadBody,
    query=UploadQuery,
    reply=FileView,
    status=201,
    location="/files/{id}",
)
def create_file(call: Call) -> dict[str, Any]:
    """Upload a file; the same as `/files/upload`."""
    return _upload(call)


@files.get("/files", may="files:read", query=FileQuery, reply=ListOf("files", FileView))
def list_files(call: Call) -> Page[dict[str, Any]]:
    """List files, perhaps only those of one task or execution."""
    owners = {call.query[name] for name in ("task_id", "execution_id") if name in call.query}
    if len(owners) > 1:
        return Page([], 0)
    found = service.list_files(call.tx, call.space, call.page, job_id=owners.pop() if owners else None)
    return Page([shown.file_view(file) for file in found.items], found.total)


@files.get("/files/<id:file_id>", may="files:read", reply=FileView)
def get_file(call: Call, file_id: str) -> dict[str, Any]:
    """One file without its content."""
    return shown.file_view(service.get(call.tx, call.space, file_id))


@files.get("/files/<id:file_id>/download", may="files:read", returns="binary", transaction="none")
def download_file(call: Call, file_id: str) -> Response:
    """The content of a file, as an attachment."""
    with call.read() as tx:
        file = service.get(tx, call.space, file_id)
    return transfer.download(call.resources, file)


@files.get("/files/<id:file_id>/url", may="files:read", reply=FileUrlView)
def get_file_url(call: Call, file_id: str) -> dict[str, Any]:
    """An address that anybody can download the file from, for an hour."""
    file = service.get(call.tx, call.space, file_id)
    url = service.storage_url(call.resources, file)
    if url is None:
        query = urlencode(service.signed_query(call.resources, file))
        url = f"{request.host_url}api/v1/files/{file.id}/content?{query}"
    return {"url": url, "filename": file.filename, "expires_in": call.resources.settings.file_url_seconds}


@files.get(
    "/files/<id:file_id>/content",
    may=OPEN,
    door="free",
    query=ContentQuery,
    returns="binary",
    transaction="none",
    errors=(403,),
)
def get_file_content(call: Call, file_id: str) -> Response:
    """The content of a file at the address that `/files/{id}/url` gave out."""
    expires, signature = call.query["expires"], call.query["signature"]
    service.require_signature(call.resources, file_id, expires=expires, signature=signature)
    with call.read() as tx:
        file = service.get_signed(tx, file_id)
    return transfer.download(call.resources, file)


@files.delete("/files/<id:file_id>", may="files:write", status=204, transaction="none", errors=(409,))
def delete_file(call: Call, file_id: str) -> None:
    """Delete a file; 409 while unfinished work needs it as an input."""
    with call.write() as tx:
        service.delete(tx, call.space, file_id)
    try:
        service.purge(call.resources)
    except LongshoreError as error:
        # The file is gone for everybody; its bytes stay marked and go with the next deletion or sweep.
        service.log.warning("file.not_purged", file_id=file_id, reason=error.message)
