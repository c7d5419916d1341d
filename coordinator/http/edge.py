"""The way of a request through one endpoint: read, open the transaction, admit, check, handle, answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from coordinator.http import answering, reading, rights, transaction
from coordinator.http.actor import ANONYMOUS, DEFAULT_SPACE, Actor
from coordinator.http.answering import Answer, Handled
from coordinator.http.auth import Credential, Gatekeeper
from coordinator.http.call import Call, ListOf
from coordinator.http.idempotency import Claim
from coordinator.http.reading import BodyReader, QueryReader
from coordinator.http.slice import Endpoint
from coordinator.http.wsgi import QUIET, REQUEST_ID
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import PageRequest
from shared.errors import LongshoreError, NotFound

NO_PAGE = PageRequest()
MULTIPART_FRAME = 64 * 1024
"""What boundaries and part headers may add to the size of the file itself."""

Checker = Callable[[Endpoint, str, Any, int], None]


@dataclass(frozen=True, slots=True)
class Read:
    """The request after reading; `fault` waits until we know whether the caller may be told."""

    body: dict[str, Any]
    query: dict[str, Any]
    page: PageRequest
    fault: LongshoreError | None = None


class Edge:
    """One endpoint in one version, with everything prepared that does not depend on the request."""

    def __init__(
        self,
        endpoint: Endpoint,
        version: str,
        resources: Resources,
        gatekeeper: Gatekeeper,
        check: Checker | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._resources = resources
        self._gatekeeper = gatekeeper
        self._check = check
        self._body = None if endpoint.body is None else BodyReader(endpoint.body, version=version)
        self._query = None if endpoint.query is None else QueryReader(endpoint.query)
        self._is_open = endpoint.is_open
        self._is_list = isinstance(endpoint.reply, ListOf)
        settings = resources.settings
        multipart = endpoint.accepts == "multipart"
        self._greatest_body = settings.max_file_bytes + MULTIPART_FRAME if multipart else settings.max_body_bytes
        self._reads_body = self._body is not None and endpoint.accepts == "json"

    def __call__(self, **path_args: str) -> Response:
        if self._endpoint.quiet:
            request.environ[QUIET] = True
        credential = None if self._is_open else self._gatekeeper.presented(request.headers)
        reading.refuse_oversize(request, self._greatest_body)
        # Reading and checking come before the transaction, so that a slow or large body never holds a lock.
        read = self._read()
        if self._endpoint.transaction == "none":
            answer = self._without_transaction(credential, read, path_args)
        else:
            with transaction.of_request(self._resources.database, self._endpoint.transaction) as tx:
                answer = self._within(tx, credential, read, path_args)
        if answering.not_modified(answer, request.headers.get("If-None-Match")):
            answer = Answer(304, b"", answer.media_type, answer.headers)
        return answer.response()

    def _read(self) -> Read:
        raw = reading.read_bytes(request, self._greatest_body) if self._reads_body else b""
        try:
            return Read(
                body=self._body.read(raw, request.mimetype) if self._body and self._reads_body else {},
                query=self._query.read(request) if self._query else {},
                page=reading.read_page(request, self._version) if self._is_list else NO_PAGE,
            )
        except LongshoreError as fault:
            return Read({}, {}, NO_PAGE, fault)

    def _without_transaction(self, credential: Credential | None, read: Read, path_args: dict[str, str]) -> Answer:
        database = self._resources.database
        actor = ANONYMOUS
        if credential is not None:
            with transaction.of_request(database, "read") as tx:
                actor = self._admitted(tx, credential, path_args)
        claim = self._claim(actor, read)
        if claim is None:
            return self._handled(None, actor, read, path_args).answer
        with transaction.of_request(database, "write") as tx:
            if (stored := claim.reserve(tx)) is not None:
                return stored
        try:
            handled = self._handled(None, actor, read, path_args)
        except BaseException:
            with transaction.of_request(database, "write") as tx:
                claim.release(tx)
            raise
        with transaction.of_request(database, "write") as tx:
            claim.keep(tx, handled)
        return handled.answer

    def _within(self, tx: Transaction, credential: Credential | None, read: Read, path_args: dict[str, str]) -> Answer:
        actor = ANONYMOUS if credential is None else self._admitted(tx, credential, path_args)
        claim = self._claim(actor, read)
        if claim is not None and (stored := claim.stored(tx)) is not None:
            return stored
        handled = self._handled(tx, actor, read, path_args)
        if claim is not None:
            claim.keep(tx, handled)
        return handled.answer

    def _claim(self, actor: Actor, read: Read) -> Claim | None:
        """This request's claim to its key; None when it has none, or will fail anyhow."""
        if not self._endpoint.idempotent or read.fault is not None:
            return None
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return None
        # The content of an upload is not read twice only to be compared; its length is.
        asked = (read.body, read.query, None if self._reads_body else request.content_length)
        return Claim.of(request, key, actor=actor, asked=asked, resources=self._resources)

    def _admitted(self, tx: Transaction, credential: Credential, path_args: dict[str, str]) -> Actor:
        actor = self._gatekeeper.admitted(tx, credential)
        rights.require(self._endpoint.may, actor, path_args)
        return actor

    def _handled(self, tx: Transaction | None, actor: Actor, read: Read, path_args: dict[str, str]) -> Handled:
        if read.fault is not None:
            raise read.fault
        call = self._call(tx, actor, read)
        result = self._endpoint.handler(call, **path_args)
        if isinstance(result, Response):
            return Handled(Answer(result.status_code, b"", made=result))
        shaped = answering.shape(result, self._endpoint, self._version, read.page)
        if self._check is not None:
            self._check(self._endpoint, self._version, shaped.value, shaped.status)
            if self._endpoint.honours_if_match and call.if_match is not None and not call.version_was_checked:
                raise AssertionError(f"{self._endpoint.name} declares etag and never calls require_version()")
        return Handled(answering.render(shaped, self._endpoint), shaped)

    def _call(self, tx: Transaction | None, actor: Actor, read: Read) -> Call:
        return Call(
            _tx=tx,
            actor=actor,
            body=read.body,
            query=read.query,
            page=read.page,
            resources=self._resources,
            request_id=request.environ[REQUEST_ID],
            space=_space(request.headers.get("X-Space"), actor),
            version=self._version,
            if_match=answering.entity_tags(request.headers.get("If-Match")),
        )


def _space(given: str | None, actor: Actor) -> str:
    if given is None:
        return actor.space
    if given != DEFAULT_SPACE:
        raise NotFound("there is no such space", space=given)
    return given
