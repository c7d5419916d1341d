"""Bytes of files over HTTP: multipart uploads coming in, attachments going out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Response, request
from werkzeug.datastructures import FileStorage
from werkzeug.http import http_date

from coordinator.domains.tasks.filenames import attachment
from coordinator.domains.tasks.service import files as service
from coordinator.domains.tasks.service.files import Saved
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.http.slice import Call
from coordinator.resources import Resources
from shared.errors import Invalid, UnsupportedMediaType

FIELD = "file"


def uploaded() -> FileStorage:
    """The file of this multipart request. Large ones are on the disk by now, never in memory."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send multipart/form-data with the field file", given=request.mimetype or None)
    found = request.files.get(FIELD)
    if found is None:
        raise Invalid("file: is missing", field=FIELD, reason="is missing")
    return found


@contextmanager
def saved(call: Call, upload: FileStorage, *, filename: str) -> Iterator[Saved]:
    """The upload's content in the storage; taken out again when the block, which gives it a row, fails."""
    content = service.save(call.resources, upload.stream, filename=filename, content_type=upload.mimetype)
    try:
        yield content
    except BaseException:
        service.discard(call.resources, content)
        raise


def download(resources: Resources, file: StoredFile) -> Response:
    """The file as an attachment that no browser looks into; a single Range is honoured."""
    headers = {
        "Content-Type": file.content_type,
        "Content-Disposition": attachment(file.filename),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "ETag": f'"{file.sha256}"',
        "Last-Modified": http_date(file.created_at),
    }
    if file.sha256 in request.if_none_match:
        return Response(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    start, end, status = 0, file.size, 200
    if request.range is not None and request.range.units == "bytes" and len(request.range.ranges) == 1:
        wanted = request.range.range_for_length(file.size)
        if wanted is None:
            return Response(status=416, headers={**headers, "Content-Range": f"bytes */{file.size}"})
        start, end, status = *wanted, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status=status, headers=headers)
    return Response(service.content(resources, file, start=start, end=end), status, headers, direct_passthrough=True)
