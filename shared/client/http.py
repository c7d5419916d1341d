"""The usual way to a coordinator, on httpx: JSON out, JSON in, files either way, errors as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

import shared
from shared.client.errors import Unreachable, error_of
from shared.errors import LongshoreError

API = "/api/v1"


class Connection:
    """An HTTP session with one coordinator. Safe for many threads."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        ca_file: Path | None = None,
        proxy_url: str | None = None,
    ) -> None:
        headers = {"user-agent": f"longshore/{shared.__version__}", "accept": "application/json"}
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers=headers | ({"authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            verify=str(ca_file) if ca_file else True,
            proxy=proxy_url,
            trust_env=False,
        )

    def call(self, method: str, path: str, body: Any = None, *, timeout: float | None = None) -> Any:
        """Send JSON (a value, or bytes that are JSON already), answer the JSON of the reply."""
        content = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        headers = {"content-type": "application/json"} if content is not None else {}
        response = self.send(method, path, content=content, headers=headers, timeout=timeout)
        return orjson.loads(response.content) if response.content else None

    def send(self, method: str, path: str, *, timeout: float | None = None, **request: Any) -> httpx.Response:
        """One request; raises our errors for everything but a success."""
        if timeout is not None:
            request["timeout"] = timeout
        try:
            response = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code >= 400:
            raise _refusal(response)
        return response

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """The bytes of a GET, piece by piece."""
        try:
            with self._client.stream("GET", path, headers=dict(headers)) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _refusal(response)
                yield response.iter_bytes(64 * 1024)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _refusal(response: httpx.Response) -> LongshoreError:
    return error_of(response.status_code, response.content, retry_after=response.headers.get("retry-after"))


def _unreachable(error: httpx.HTTPError) -> Unreachable:
    return Unreachable(f"the coordinator does not answer: {str(error) or type(error).__name__}")
