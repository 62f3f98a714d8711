"""What the providers on an SDK have in common: a client for each event loop, the API key, early connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from rxstage.adapters._errors import told
from rxstage.errors import require
from rxstage.ports.loopbound import LoopBound
from rxstage.ports.provider import ModelRequest, Provider, ProviderError

__all__ = ["Connection", "SdkProvider", "timeouts_of"]

_PREPARE: Final = 2.0  # seconds that an early connection may take
_FRESH: Final = 30.0  # seconds for which it counts
_CONNECT: Final = 10.0
_KEEP: Final = 60.0  # seconds for which an idle connection is kept: as long as a person speaks, and longer
_NO_KEY: Final = "none"  # SDKs want one, servers of one's own do not


class Connection:
    """The client of one event loop.

    Attributes:
        client: of the SDK.
        http: the HTTP client under it.
        address: what it talks to.
        prepared: loop time up to which nothing needs to be prepared.
    """

    __slots__ = ("address", "client", "http", "prepared")

    def __init__(self, client: Any, http: Any, address: str) -> None:
        self.client, self.http, self.address = client, http, address
        self.prepared = float("-inf")


class SdkProvider(Provider):
    """Base of the providers on an official SDK.

    Args:
        model: the model that it asks where a request names none.
        base_url: address of the API, where it is not the SDK's own.
        api_key: where it does not come from the environment. With a `base_url` it never comes from there, so that
            no key gets to a server that it was not made for.
        timeout: seconds to wait for the next piece of an answer.
        name: what to call it.
        client: what else the client of the SDK takes.
    """

    extra: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: str = "",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        name: str | None = None,
        **client: Any,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout must be above 0 s, got {timeout!r}")
        self.model = model
        self.name = name or type(self).name
        self.base_url = base_url
        self.timeout = timeout
        self._api_key = api_key
        self._options = client
        self._connections = LoopBound(self._open, self._close)

    def __repr__(self) -> str:
        address = f", base_url={_shown(self.base_url)!r}" if self.base_url is not None else ""
        return f"{type(self).__name__}({self.model!r}{address})"

    @abstractmethod
    async def _open(self) -> Connection:
        """Make the client of the running loop."""

    async def _close(self, connection: Connection) -> None:
        await connection.http.aclose()

    async def prepare(self) -> None:
        """Open a connection, unless that was done in the last 30 s; takes 2 s at most. Never raises."""
        with contextlib.suppress(Exception):  # the call that follows will say what is wrong
            connection = await self._connections.get()
            now = asyncio.get_running_loop().time()
            if now < connection.prepared:
                return
            connection.prepared = now + _FRESH
            async with asyncio.timeout(_PREPARE):
                await connection.http.head(connection.address, follow_redirects=False)

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._connections.aclose()

    def _key(self) -> str:
        """The API key.

        Raises:
            ProviderError: there is none.
        """
        if self._api_key is not None:
            return self._api_key
        if self.base_url is not None:
            return _NO_KEY
        for variable in self.variables:
            if key := os.environ.get(variable):
                return key
        raise ProviderError(
            f"{self.name} needs an API key: set {' or '.join(self.variables)} in the environment, or pass api_key=",
            provider=self.name,
            model=self.model,
        )

    def _http(self, client_class: Any, **options: Any) -> Any:
        httpx = require("httpx2", self.extra)
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=_KEEP)
        timeout = timeouts_of(self.timeout, self.extra)
        return client_class(timeout=timeout, limits=limits, follow_redirects=True, **options)

    def _asked(self, request: ModelRequest) -> str:
        """The model that a request is for.

        Raises:
            ProviderError: neither says which.
        """
        model = request.model or self.model
        if not model:
            raise ProviderError(
                f"which model of {self.name}? Name one: {type(self).__name__}('…'), or in the request",
                provider=self.name,
            )
        return model

    def _told(self, model: str) -> told:
        """Turn what is raised inside into errors of the port."""
        known = (os.environ.get(variable) for variable in self.variables)
        secret = self._api_key or next(filter(None, known), "")
        if self._api_key is not None:
            hint = "check the api_key that was passed"
        else:
            hint = f"check {' or '.join(self.variables)}" if self.base_url is None else "pass api_key="
        return told(self.name, model, address=_shown(self.base_url), secret=secret, hint=hint)

    def _sent_apart(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split the parameters into those of the model and those of the request over HTTP."""
        apart = {name: parameters[name] for name in ("extra_headers", "extra_query", "timeout") if name in parameters}
        body = {name: value for name, value in parameters.items() if name not in apart and name != "extra_body"}
        return {**body, **(parameters.get("extra_body") or {})}, apart


def timeouts_of(seconds: float, extra: str) -> Any:
    """Time limits for an HTTP client: `seconds` between two pieces of an answer, less to connect."""
    return require("httpx2", extra).Timeout(seconds, connect=min(seconds, _CONNECT))


def _shown(url: str | None) -> str:
    """An address without the credentials that may stand in it."""
    parts = urlsplit(url or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
