"""Bytes of files over HTTP: multipart uploads coming in, attachments going out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from flask import Response, request
from werkzeug.datastructures import FileStorage
from werkzeug.formparser import FormDataParser
from werkzeug.http import http_date

from coordinator.domains.tasks.filenames import attachment
from coordinator.domains.tasks.service import files as service
from coordinator.domains.tasks.service.files import Saved
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.http.slice import Call
from coordinator.resources import Resources
from shared.errors import BadRequest, Invalid, UnsupportedMediaType

FIELD = "file"
SPOOLED_BYTES = 256 * 1024
MAX_FIELD_BYTES = 1024 * 1024
"""The most that is held in memory of one part. The parser counts its own buffer, several reads long, against it too."""
MAX_PARTS = 16


@dataclass(frozen=True, slots=True)
class Upload:
    """The file of a multipart request, and the plain fields beside it."""

    file: FileStorage
    form: Mapping[str, str]


@contextmanager
def uploaded() -> Iterator[Upload]:
    """Read this multipart request. A large file is on the disk meanwhile, never in memory, and gone afterwards."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send multipart/form-data with the field file", given=request.mimetype or None)
    with ExitStack() as opened:

        def receive(*_args: Any, **_facts: Any) -> IO[bytes]:
            return opened.enter_context(SpooledTemporaryFile(SPOOLED_BYTES))

        form, files = _parsed(receive)
        if FIELD not in files:
            raise Invalid("file: is missing", field=FIELD, reason="is missing")
        yield Upload(files[FIELD], form)


def _parsed(receive: Callable[..., IO[bytes]]) -> tuple[Mapping[str, str], Mapping[str, FileStorage]]:
    # Flask's own reading would leave the temporary file open when a body turns out to be too long or broken.
    parser = FormDataParser(
        receive,
        max_form_memory_size=MAX_FIELD_BYTES,
        max_content_length=request.max_content_length,
        max_form_parts=MAX_PARTS,
        silent=False,
    )
    try:
        _, form, files = parser.parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    except ValueError as error:
        raise BadRequest("the body is not valid multipart/form-data", reason=str(error)) from None
    return form, files


@contextmanager
def saved(call: Call, upload: Upload, *, filename: str) -> Iterator[Saved]:
    """The upload's content in the storage; taken out again when the block, which gives it a row, fails."""
    content = service.save(call.resources, upload.file.stream, filename=filename, content_type=upload.file.mimetype)
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
