"""The server: a pipeline, one execution for each client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from rxstage.errors import RxStageError, require
from rxstage.websocket.codec import EVERYTHING, FROM_STRANGERS
from rxstage.websocket.door import Door
from rxstage.websocket.hosted import ServerSession
from rxstage.websocket.limits import known_secret, reason_of
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.protocol import SUBPROTOCOL, VERSION, CloseCode, Hello, Sound, Violation, Welcome, parse

if TYPE_CHECKING:
    from types import TracebackType

    from websockets.asyncio.server import Server, ServerConnection

__all__ = ["WebSocketServer"]

_SMALL_WRITES: Final = 4096  # bytes on their way to the network, which an interrupt cannot overtake any more


class WebSocketServer:
    """Serves a pipeline to clients of the protocol `rxstage.v1`, and files to browsers.

        async with WebSocketServer(pipeline, ServerOptions(port=8765)) as server:
            await server.serve_forever()

    What a client sends is the source of an execution of its own, and what comes out goes back to it.

    Args:
        answer: the pipeline that all clients share; or a function that is called with each new `ServerSession` and
            gives its pipeline; or an async one that does everything itself: it iterates the session and calls its
            `send`.
        options: how it behaves.

    Attributes:
        sessions: those that are held, by their names.
        refused: connections that were refused because there were too many.
    """

    def __init__(self, answer: Any, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.sessions: dict[str, ServerSession] = {}
        self.refused = 0
        self._answer = answer
        self._server: Server | None = None
        self._open = 0  # connections, with those that have not introduced themselves
        self._handlers: dict[asyncio.Task[Any], ServerConnection] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._closing = False
        self._closed = asyncio.Event()

    # ---------------------------------------------------------------- its life

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            MissingExtra: `websockets` is not installed.
            OSError: the address cannot be had.
        """
        library = require("websockets.asyncio.server", "websocket")
        options = self.options
        self._door = Door(options)
        self._lost: Any = require("websockets.exceptions", "websocket").ConnectionClosed
        self._server = await library.serve(
            self._handle,
            options.host,
            options.port,
            subprotocols=[SUBPROTOCOL],
            select_subprotocol=lambda _, offered: SUBPROTOCOL if SUBPROTOCOL in offered else None,
            process_request=self._door.answer,
            process_response=self._door.head,
            server_header=None,
            compression=None,  # sound does not shrink
            max_size=options.limits.message_bytes,
            write_limit=_SMALL_WRITES,
            open_timeout=options.open_timeout,
            ping_interval=options.heartbeat,
            ping_timeout=options.heartbeat_timeout,
            close_timeout=options.close_timeout,
            create_connection=self._counted(library.ServerConnection),
            ssl=options.context(),
            logger=_quiet(),
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None:
            raise RxStageError("the server has not been started; use it as `async with`, or await start()")
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where clients connect to."""
        options = self.options
        host = f"[{options.host}]" if ":" in options.host else options.host
        return f"{'ws' if options.tls is None else 'wss'}://{host}:{self.port}{options.path or '/'}"

    async def serve_forever(self) -> None:
        """Wait till it is closed."""
        await self._closed.wait()

    async def close(self, drain: float = 5.0) -> None:
        """Take nobody new, let out the answers that are under way, and close with 1001.

        Args:
            drain: seconds for that; what is left then is cut off.
        """
        if self._server is None or self._closing:
            return
        self._closing = True
        self._server.close(close_connections=False)
        for session in tuple(self.sessions.values()):
            session.incoming.end()
            if not session.connected:
                await self._drop(session)
        owners = {session.owner for session in self.sessions.values()}
        for connection in self._handlers.values():
            if connection not in owners:  # it has not introduced itself
                self._later(connection.close(CloseCode.GOING_AWAY, "the server stops"), "close")
        await self._left(drain)
        for session in tuple(self.sessions.values()):
            await self._drop(session)
        await self._left(self.options.close_timeout)
        for connection in self._handlers.values():
            connection.transport.abort()
        await self._left(None)
        await self._server.wait_closed()
        self._closed.set()

    async def _left(self, timeout: float | None) -> None:
        """Wait till nothing is left of the connections, or the time is up."""
        if tasks := {*self._handlers, *self._chores}:
            await asyncio.wait(tasks, timeout=timeout)

    def _later(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"rxstage websocket {name}")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def __aenter__(self) -> WebSocketServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---------------------------------------------------------------- a connection

    async def _handle(self, connection: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = connection
        session: ServerSession | None = None
        code, reason = CloseCode.NORMAL, ""
        try:
            session, received, welcome = await self._introduced(connection)
            await connection.send(welcome.model_dump_json(exclude_none=True))
            await session.serve(connection, received, self.options.limits, ours=False)
            code, reason = session.outcome
            if session.owner is not connection:
                code, reason = CloseCode.REPLACED, "the session goes on over another connection"
            elif self._closing and code == CloseCode.NORMAL:
                code, reason = CloseCode.GOING_AWAY, "the server stops"
        except Violation as violation:
            code, reason = violation.code, str(violation)
        except self._lost:
            if session is not None and session.owner is connection and not self._is_over(connection):
                session.owner = None
                self._wait_for(session)
        finally:
            if session is not None and session.owner is connection:
                await self._drop(session)
            await connection.close(code, reason_of(reason))
            self._handlers.pop(task, None)

    async def _introduced(self, connection: ServerConnection) -> tuple[ServerSession, int, Welcome]:
        """The session of a client that has said hello, what it has got in it, and the answer.

        Raises:
            Violation: it did not, or not rightly.
        """
        options = self.options
        try:
            async with asyncio.timeout(options.open_timeout):
                frame = await connection.recv()
        except TimeoutError:
            raise Violation(CloseCode.HELLO_TIMEOUT, f"no hello within {options.open_timeout:g} s") from None
        hello = parse(frame) if frame.__class__ is str else None
        if not isinstance(hello, Hello):
            raise Violation(CloseCode.MALFORMED, "the first frame has to be a hello")
        if hello.version != VERSION:
            raise Violation(
                CloseCode.UNSUPPORTED_VERSION, f"version {hello.version} is unknown here; this is version {VERSION}"
            )
        user = self._user(connection, hello)
        if hello.sends.sample_rate not in options.sample_rates or hello.sends.channels > 2:
            raise Violation(
                CloseCode.UNSUPPORTED_AUDIO,
                f"{hello.sends.sample_rate} Hz with {hello.sends.channels} channel(s) is not taken; rates: "
                f"{', '.join(map(str, options.sample_rates))}, at most 2 channels",
            )
        speaks = options.speaks or hello.wants or hello.sends
        session, resumed = self._session(hello, user, speaks, connection)
        welcome = Welcome(
            session=session.id,
            resumed=resumed,
            received=session.received,
            takes=session.hears,
            sends=session.speaks,
            accepts=sorted(EVERYTHING if options.trusted else FROM_STRANGERS),
            limits=options.limits,
            resume_for=options.resume_for,
        )
        return session, hello.received if resumed else 0, welcome

    def _user(self, connection: ServerConnection, hello: Hello) -> int | None:
        tokens = self.options.tokens
        if not tokens:
            return None
        token = self._door.token_of(connection) or hello.token
        user = known_secret(token, tokens) if token is not None else None
        if user is None:
            raise Violation(CloseCode.UNAUTHORIZED, "no token" if token is None else "not the right token")
        return user

    def _session(
        self, hello: Hello, user: int | None, speaks: Sound, connection: ServerConnection
    ) -> tuple[ServerSession, bool]:
        """The session that the client asks for, if there is such a one of the same user, else a new one."""
        session = self.sessions.get(hello.session) if hello.session is not None else None
        if session is not None and session.user == user and hello.received <= session.sent:
            if session.replay.reaches(hello.received) and (session.hears, session.speaks) == (hello.sends, speaks):
                if session.expiry is not None:
                    session.expiry.cancel()
                    session.expiry = None
                session.owner = connection
                session.detach()
                return session, True
        if len(self.sessions) >= self.options.max_sessions:
            self._make_room()
        if self._closing or len(self.sessions) >= self.options.max_sessions:
            self.refused += 1
            raise Violation(CloseCode.FULL, "as many sessions as this server takes; try again later")
        session = ServerSession(self.options, hello.sends, speaks, hello.client, user)
        session.owner = connection
        self.sessions[session.id] = session
        session.start(self._answer)
        return session, False

    # ---------------------------------------------------------------- the end of a session

    def _is_over(self, connection: ServerConnection) -> bool:
        """Whether the session of a connection that is closed does not wait for another one."""
        said = connection.protocol.close_rcvd
        left = said is not None and said.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY)
        return left or self._closing or not self.options.resume_for

    def _wait_for(self, session: ServerSession) -> None:
        loop = asyncio.get_running_loop()
        session.expiry = loop.call_later(self.options.resume_for, self._expired, session)

    def _expired(self, session: ServerSession) -> None:
        session.expiry = None
        self._later(self._drop(session), "end")

    def _make_room(self) -> None:
        """Give up the session that has waited longest for its client, if there is one that does."""
        waiting = [session for session in self.sessions.values() if session.expiry is not None]
        if waiting:
            longest = min(waiting, key=lambda session: session.expiry.when() if session.expiry else 0.0)
            del self.sessions[longest.id]
            self._later(longest.stop(), "end")

    async def _drop(self, session: ServerSession) -> None:
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
        await session.stop()

    def _counted(self, base: Any) -> Any:
        """A class of connections of which there are not too many, however far each of them has come."""
        server = self

        class Counted(base):  # type: ignore[misc]
            def connection_made(self, transport: Any) -> None:
                server._open += 1
                super().connection_made(transport)
                if server._open > server.options.max_connections:
                    server.refused += 1
                    transport.abort()

            def connection_lost(self, error: Exception | None) -> None:
                server._open -= 1
                super().connection_lost(error)

        return Counted


def _quiet() -> logging.Logger:
    """A logger that tells nobody of what strangers do wrong."""
    quiet = logging.getLogger("rxstage.websocket")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    quiet.setLevel(logging.CRITICAL)
    return quiet
