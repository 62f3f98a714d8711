"""The connection to a realtime service, and what its ends mean."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rxstage.errors import RxStageError, require

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["realtime_line"]

_LARGEST: Final = 16 * 1_048_576  # bytes of an event


@asynccontextmanager
async def realtime_line(
    url: str,
    model: str,
    api_key: str | None,
    *,
    open_timeout: float,
    heartbeat: float | None,
    tls: ssl.SSLContext | None,
) -> AsyncGenerator[ClientConnection]:
    """A connection, for one block.

    Args:
        url: of the service.
        model: asked for.
        api_key: shown to it.
        open_timeout: seconds to connect.
        heartbeat: seconds between two pings.
        tls: where the usual certificates will not do.

    Raises:
        MissingExtra: `websockets` is not installed.
        RxStageError: it refuses, is not there, or the connection was lost in the block.
    """
    library = require("websockets.asyncio.client", "websocket")
    errors: Any = require("websockets.exceptions", "websocket")
    try:
        async with library.connect(
            f"{url}{'&' if '?' in url else '?'}model={quote(model)}",
            additional_headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            compression=None,
            open_timeout=open_timeout,
            close_timeout=1.0,
            ping_interval=heartbeat,
            ping_timeout=heartbeat,
            max_size=_LARGEST,
            **({"ssl": tls} if tls is not None else {}),
        ) as connection:
            yield connection
    except errors.InvalidStatus as refused:
        raise RxStageError(f"{url} answers {refused.response.status_code}; check url and api_key") from None
    except (errors.ConnectionClosed, errors.InvalidHandshake, OSError) as lost:
        raise RxStageError(f"the connection to {url} is lost: {lost or type(lost).__name__}") from lost
