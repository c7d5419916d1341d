"""The way of a request through one endpoint: read, open the transaction, admit, check, handle, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from coordinator.domains.identity import ip_rules, spaces
from coordinator.http import answering, asked_space, auth, reading, rights, transaction
from coordinator.http.actor import Actor
from coordinator.http.answering import Answer, Handled
from coordinator.http.auth import Credential, Gatekeeper
from coordinator.http.browser import Browsers
from coordinator.http.call import Call, ListOf
from coordinator.http.idempotency import Claim
from coordinator.http.limiting import Limiter
from coordinator.http.reading import BodyReader, QueryReader
from coordinator.http.schemas import InSpace, secret_names
from coordinator.http.slice import Endpoint
from coordinator.http.trail import USED_AGAIN_AND_AGAIN, Clerk, last_of
from coordinator.http.witness import Witness
from coordinator.http.wsgi import QUIET, REQUEST_ID
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import PageRequest
from shared.errors import LongshoreError, Unauthenticated

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
        clerk: Clerk,
        limiter: Limiter,
        check: Checker | None = None,
        *,
        browsers: Browsers,
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._resources = resources
        self._gatekeeper = gatekeeper
        self._clerk = clerk
        self._limiter = limiter
        self._browsers = browsers
        self._check = check
        self._secrets = secret_names(endpoint.body)
        self._body = None if endpoint.body is None else BodyReader(endpoint.body, version=version)
        self._query = None if endpoint.query is None else QueryReader(endpoint.query)
        self._is_open = endpoint.is_open
        # Whether we live is asked by machines from anywhere, and answered without a database.
        is_page = version == "root" and endpoint.door != "usual"
        self._looks_at_addresses = is_page or (version != "root" and not (endpoint.is_open and endpoint.quiet))
        self._makes_work = rights.makes_work(endpoint.may)
        self._is_list = isinstance(endpoint.reply, ListOf)
        self._usual = endpoint.reply.usual if isinstance(endpoint.reply, ListOf) else None
        settings = resources.settings
        multipart = endpoint.accepts == "multipart"
        self._greatest_body = settings.max_file_bytes + MULTIPART_FRAME if multipart else settings.max_body_bytes
        self._reads_body = self._body is not None and endpoint.accepts == "json"
        self._may_name_space = self._reads_body and _is_in_space(endpoint.body)

    def __call__(self, **path_args: str) -> Response:
        environ = request.environ
        if self._endpoint.quiet:
            environ[QUIET] = True
        witness = Witness(environ.get("REMOTE_ADDR"), environ[REQUEST_ID], self._secrets)
        try:
            answer = self._answered(witness, path_args)
        except Exception as error:
            token = None if self._is_open else auth.shown(request.headers)
            self._clerk.note(self._endpoint, witness, error, token=token, path_args=path_args)
            raise
        if witness.actor.kind in USED_AGAIN_AND_AGAIN:
            self._clerk.note_use(witness)
        if answering.not_modified(answer, request.headers.get("If-None-Match")):
            answer = Answer(304, b"", answer.media_type, answer.headers)
        return answer.response()

    def _answered(self, witness: Witness, path_args: dict[str, str]) -> Answer:
        if self._looks_at_addresses:
            ip_rules.require_let_in(self._resources.database, witness.address)
        credential = self._credential()
        reading.refuse_oversize(request, self._greatest_body)
        # Reading and checking come before the transaction, so that a slow or large body never holds a lock.
        read = self._read(path_args)
        if self._endpoint.transaction == "none":
            return self._without_transaction(witness, credential, read, path_args)
        with transaction.of_request(self._resources.database, self._endpoint.transaction) as tx:
            return self._within(tx, witness, credential, read, path_args)

    def _credential(self) -> Credential | None:
        if self._is_open:
            self._limiter.at_open_door(self._endpoint, self._version)
            return None
        try:
            return self._browsers.presented(request)
        except Unauthenticated:
            self._limiter.stranger(self._version)
            raise

    def _read(self, path_args: Mapping[str, str]) -> Read:
        raw = reading.read_bytes(request, self._greatest_body) if self._reads_body else b""
        try:
            reading.refuse_null(path_args)
            return Read(
                body=self._body.read(raw, request.mimetype) if self._body and self._reads_body else {},
                query=self._query.read(request) if self._query else {},
                page=reading.read_page(request, self._version, self._usual) if self._is_list else NO_PAGE,
            )
        except LongshoreError as fault:
            return Read(asked_space.of_broken_body(raw) if self._may_name_space else {}, {}, NO_PAGE, fault)

    def _without_transaction(
        self, witness: Witness, credential: Credential | None, read: Read, path_args: dict[str, str]
    ) -> Answer:
        database = self._resources.database
        if credential is not None:
            with transaction.of_request(database, "read") as tx:
                self._admit(tx, witness, credential, read, path_args)
        claim = self._claim(witness.actor, read)
        if claim is None:
            return self._handled(None, witness, read, path_args).answer
        with transaction.of_request(database, "write") as tx:
            if (stored := claim.reserve(tx)) is not None:
                return stored
        try:
            handled = self._handled(None, witness, read, path_args)
        except BaseException:
            with transaction.of_request(database, "write") as tx:
                claim.release(tx)
            raise
        with transaction.of_request(database, "write") as tx:
            claim.keep(tx, handled)
        return handled.answer

    def _within(
        self,
        tx: Transaction,
        witness: Witness,
        credential: Credential | None,
        read: Read,
        path_args: dict[str, str],
    ) -> Answer:
        if credential is not None:
            self._admit(tx, witness, credential, read, path_args)
        claim = self._claim(witness.actor, read)
        if claim is not None and (stored := claim.stored(tx)) is not None:
            return stored
        handled = self._handled(tx, witness, read, path_args)
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

    def _admit(
        self, tx: Transaction, witness: Witness, credential: Credential, read: Read, path_args: dict[str, str]
    ) -> None:
        space = asked_space.of_request(request, read.body, path_args)
        try:
            witness.actor = self._gatekeeper.admitted(tx, credential, space)
        except Unauthenticated:
            self._limiter.stranger(self._version)
            raise
        self._limiter.caller(witness.actor, self._version)
        asked_space.require_known(witness.actor, space)
        rights.require(self._endpoint.may, witness.actor, path_args)
        if self._endpoint.transaction == "write":
            spaces.hold(tx, space, for_new_work=self._makes_work)

    def _handled(self, tx: Transaction | None, witness: Witness, read: Read, path_args: dict[str, str]) -> Handled:
        if read.fault is not None:
            raise read.fault
        call = self._call(tx, witness, read)
        result = self._endpoint.handler(call, **path_args)
        if isinstance(result, Response):
            self._leave_row(call, path_args, None)
            return Handled(Answer(result.status_code, b"", made=result))
        shaped = answering.shape(result, self._endpoint, self._version, read.page)
        self._leave_row(call, path_args, shaped.value)
        if self._check is not None:
            self._check(self._endpoint, self._version, shaped.value, shaped.status)
            if self._endpoint.honours_if_match and call.if_match is not None and not call.version_was_checked:
                raise AssertionError(f"{self._endpoint.name} declares etag and never calls require_version()")
        return Handled(answering.render(shaped, self._endpoint), shaped)

    def _leave_row(self, call: Call, path_args: dict[str, str], value: Any) -> None:
        """See to it that a declared act is in the audit trail, whatever its handler forgot."""
        if not self._endpoint.audit or call.witness.has_recorded:
            return
        made = value.get("id") if isinstance(value, Mapping) else None
        subject, given = last_of(path_args) or made, call.body or None
        if self._endpoint.transaction != "none":
            call.audit(self._endpoint.audit[0], resource_id=subject, after=given)
            return
        if self._check is not None:
            raise AssertionError(f"{self._endpoint.name} acts in a transaction of its own and records nothing in it")
        with call.write() as tx:
            call.audit(self._endpoint.audit[0], resource_id=subject, after=given, tx=tx)

    def _call(self, tx: Transaction | None, witness: Witness, read: Read) -> Call:
        witness.space = witness.actor.space
        return Call(
            _tx=tx,
            actor=witness.actor,
            body=read.body,
            query=read.query,
            page=read.page,
            resources=self._resources,
            request_id=witness.request_id,
            space=witness.actor.space,
            makes_work=self._makes_work,
            version=self._version,
            witness=witness,
            if_match=answering.entity_tags(request.headers.get("If-Match")),
        )


def _is_in_space(body: Any) -> bool:
    return issubclass(body if isinstance(body, type) else type(body), InSpace)
