"""The client's end of a session: it connects, and connects again."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

from rxstage.config import Retry
from rxstage.errors import RxStageError, require
from rxstage.websocket.bounds import SessionOptions
from rxstage.websocket.codec import FROM_STRANGERS
from rxstage.websocket.limits import reason_of
from rxstage.websocket.protocol import SUBPROTOCOL, VERSION, Bye, CloseCode, Hello, Sound, Violation, Welcome, parse
from rxstage.websocket.session import Session

if TYPE_CHECKING:
    from types import TracebackType

    from websockets.asyncio.client import ClientConnection

__all__ = ["RECONNECT", "ClientSession", "ConnectionRefused", "SessionLost"]

RECONNECT: Final = Retry(attempts=8, wait=lambda tries: min(0.25 * 2 ** (tries - 1), 8.0), jitter=0.1)
"""How a lost connection is made again, unless it is told otherwise: 8 times within some 30 s."""

_FATAL: Final = frozenset(
    {
        CloseCode.TOO_BIG,
        CloseCode.MALFORMED,
        CloseCode.UNAUTHORIZED,
        CloseCode.FORBIDDEN,
        CloseCode.UNSUPPORTED_AUDIO,
        CloseCode.REPLACED,
        CloseCode.UNSUPPORTED_VERSION,
        CloseCode.TOO_MANY,
        CloseCode.FAILED,
    }
)
"""Where trying again would not help."""


class ConnectionRefused(RxStageError, ConnectionError):
    """The server has closed the connection for a reason that another try does not change; `code` says which."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class SessionLost(RxStageError, ConnectionError):
    """The connection was lost, and the session could not be taken up again."""


class ClientSession(Session):
    """The client's end of a session.

        async with ClientSession("ws://localhost:8765") as session:
            await session.send("hello")
            async for element in session:
                ...

    Where the connection is lost it is made again, and the session goes on where it was: what was not acknowledged is
    sent again, what comes twice is dropped. What is sent meanwhile waits, within the bounds of the session.

    Args:
        url: `ws://` or `wss://`.
        token: shown to the server.
        sends: form of the sound that is sent; what has another is converted.
        wants: form of the sound that is asked for; None: as the server likes.
        reconnect: how a lost connection is made again; None: not.
        restart: go on in a new session where the server has forgotten the old one; what was under way is lost.
        tls: for `wss://`, where the usual certificates will not do.
        options: the bounds of the session.
        trusted: whether everything is taken from the server, with metadata.
        heartbeat: seconds between two pings; None sends none.
        open_timeout: seconds for one try to connect.
        close_timeout: seconds for the closing handshake, and to send what waits.
        message_bytes: size of a message that is taken.
        name: what it calls itself.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        sends: Sound = Sound(),  # noqa: B008 - frozen
        wants: Sound | None = None,
        reconnect: Retry | None = RECONNECT,
        restart: bool = False,
        tls: ssl.SSLContext | None = None,
        options: SessionOptions = SessionOptions(),  # noqa: B008 - frozen
        trusted: bool = True,
        heartbeat: float | None = 20.0,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        message_bytes: int = 1_048_576,
        name: str = "rxstage",
    ) -> None:
        super().__init__(options, hears=wants or sends, speaks=sends, trusted=trusted)
        self.accepts = FROM_STRANGERS  # till the server says what it takes
        self.url = url
        self.resumed = 0
        self._token, self._sends, self._wants = token, sends, wants
        self._reconnect, self._restart = reconnect, restart
        self._close_timeout, self._name = close_timeout, name
        self._connect: dict[str, Any] = {
            "subprotocols": [SUBPROTOCOL],
            "compression": None,
            "additional_headers": {"Authorization": f"Bearer {token}"} if token is not None else None,
            "open_timeout": open_timeout,
            "close_timeout": close_timeout,
            "ping_interval": heartbeat,
            "ping_timeout": heartbeat,
            "max_size": message_bytes,
            "write_limit": 4096,  # what is on its way cannot be overtaken any more
            **({"ssl": tls} if tls is not None else {}),
        }
        self._task: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- its life

    def start(self) -> None:
        """Begin to connect; at once, in a task."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"rxstage websocket client {self.url}")

    async def close(self) -> None:
        """Send what waits, say goodbye, and wait till nothing is left."""
        task = self._task
        if task is None:
            return
        self.outgoing.end()  # after which the connection is closed
        _, late = await asyncio.wait((task,), timeout=self._close_timeout if self.connected else 0.0)
        if late:
            task.cancel()
            await asyncio.wait((task,))
        self.incoming.end()

    async def __aenter__(self) -> ClientSession:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---------------------------------------------------------------- connections

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._stay_connected()
        except Exception as raised:
            error = raised
        self.incoming.end(error)
        self.outgoing.end(error)

    async def _stay_connected(self) -> None:
        library = require("websockets.asyncio.client", "websocket")
        errors: Any = require("websockets.exceptions", "websocket")
        tries = 0
        while True:
            before = self.received, self.sent
            try:
                async with library.connect(self.url, **self._connect) as connection:
                    try:
                        await self._talk(connection)
                    except Violation as violation:
                        await connection.close(violation.code, reason_of(str(violation)))
                        raise
                return
            except errors.InvalidStatus as refused:
                status = refused.response.status_code
                lost: Exception = refused
                if status < 500:
                    raise ConnectionRefused(f"{self.url} answers {status}: {_told(refused.response)}", status) from None
            except errors.ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code in _FATAL:
                    raise ConnectionRefused(
                        f"{self.url} has closed the connection with {closed.rcvd.code}: {closed.rcvd.reason}",
                        closed.rcvd.code,
                    ) from None
                if closed.rcvd is not None and closed.rcvd.code == CloseCode.NORMAL:
                    return
                lost = closed
            except (OSError, TimeoutError, errors.InvalidHandshake) as failed:
                lost = failed
            tries = 1 if (self.received, self.sent) != before else tries + 1
            retry = self._reconnect
            if self.incoming.ended and not self.outgoing.items:
                return
            if retry is None or tries >= retry.attempts or not retry.applies(lost):
                raise SessionLost(f"the connection to {self.url} is lost: {lost}") from lost
            await asyncio.sleep(retry.delay(tries))

    async def _talk(self, connection: ClientConnection) -> None:
        """Introduce itself, then send and receive.

        Raises:
            SessionLost: the server has forgotten the session.
        """
        hello = Hello(
            token=self._token,
            sends=self._sends,
            wants=self._wants,
            session=self.id or None,
            received=self.received,
            client=self._name,
        )
        await connection.send(hello.model_dump_json(exclude_none=True))
        welcome = parse(await connection.recv())
        if not isinstance(welcome, Welcome) or welcome.version != VERSION:
            raise Violation(CloseCode.MALFORMED, "the first frame of a server has to be a welcome of this version")
        if self.id and not welcome.resumed:
            if not self._restart:
                raise SessionLost(f"{self.url} has forgotten the session; restart=True goes on in a new one")
            self.received = self.sent = 0
            self.replay.forget()
        elif self.id:
            if not self.replay.reaches(welcome.received):
                raise SessionLost(f"{self.url} has missed what is kept no more; a larger replay= keeps more")
            self.resumed += 1
        else:
            self.shape(welcome.sends, welcome.takes)
        self.id = welcome.session
        self.accepts = frozenset(welcome.accepts)
        await self.serve(connection, welcome.received, welcome.limits)
        await connection.send(Bye().model_dump_json())


def _told(response: Any) -> str:
    text: str = bytes(response.body or b"").decode("utf-8", "replace").strip()
    return text[:200] or str(response.reason_phrase)
