"""A conversation with the other end of a WebSocket, as a stage, or as the source and the sink of a graph."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from rxstage.config import Retry
from rxstage.content import EndOfTurn, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.stage import Stage, StageContext, StageType
from rxstage.websocket.bounds import SessionOptions
from rxstage.websocket.client import RECONNECT, ClientSession
from rxstage.websocket.codec import kind_of
from rxstage.websocket.protocol import Sound
from rxstage.websocket.session import Session

__all__ = ["WebSocketBridgeStage"]


class WebSocketBridgeStage(Stage):
    """One session with the other end of a WebSocket: what comes in is sent, what is received flows on.

    As a stage it stands for a pipeline that runs elsewhere:

        Pipeline.of(microphone >> WebSocketBridgeStage("wss://example.org/voice") >> speaker)

    Where the answer of a graph goes back over the same connection, `bridge.incoming` is the source and
    `bridge.outgoing` a sink, and the graph has no cycle:

        Pipeline.of(bridge.incoming >> answer >> bridge.outgoing)

    A lost connection is made again, and the session goes on where it was. Sound is converted to the form that both
    ends have settled.

    Args:
        name: name in the graph.
        target: the address (`ws://`, `wss://`) of a server, or a session that is there already, such as a
            `ServerSession`; each execution has a connection of its own, a session serves one.
        token: shown to the server.
        sample_rate: of the sound that is sent [Hz].
        channels: of the sound that is sent.
        wants_rate: of the sound that is received [Hz]; None: as it is sent.
        reconnect: how a lost connection is made again; None: not.
        restart: go on in a new session where the server has forgotten the old one.
        tls: for `wss://`, where the usual certificates will not do.
        bounds: what each direction holds, and what happens where that is full.
        heartbeat: seconds between two pings.

    Emits: what is received. What the other end does not take passes by. An `EndOfTurn` that comes in is held till the
        other end has ended its turn; an `Interrupt` and a `Failure` pass at once.
    Holds: in each direction `bounds.buffer` elements; sound beyond that is left out, oldest first, unless `bounds` say
        otherwise.
    Completes: when its input has ended and the other end has said that it has no more.
    Fails: with `StageError` where the server refuses it, or the connection is lost and cannot be made again.
    """

    type: ClassVar[StageType] = StageType.BIDIRECTIONAL

    target: Any
    token: str | None = Field(default=None, repr=False)
    sample_rate: int = Field(default=16_000, gt=0)
    channels: int = Field(default=1, ge=1, le=2)
    wants_rate: int | None = Field(default=None, gt=0)
    reconnect: Retry | None = RECONNECT
    restart: bool = False
    tls: ssl.SSLContext | None = None
    bounds: SessionOptions = SessionOptions()
    heartbeat: float | None = Field(default=20.0, gt=0)

    _incoming: Stage = PrivateAttr()
    _outgoing: Stage = PrivateAttr()

    def __init__(self, name: Any = None, /, target: Any = None, **options: Any) -> None:
        if target is None and (not isinstance(name, str) or "://" in name):
            name, target = None, name
        super().__init__(name, target=target, **options)
        if not isinstance(self.target, (str, Session)):
            raise TypeError(
                f"stage {self.name!r}: target must be an address such as 'ws://localhost:8765' or a session, got "
                f"{self.target!r}"
            )
        self._incoming = _Incoming(f"{self.name}_incoming", bridge=self)
        self._outgoing = _Outgoing(f"{self.name}_outgoing", bridge=self)

    @property
    def incoming(self) -> Stage:
        """A stage that gives what is received; what comes in passes by."""
        return self._incoming

    @property
    def outgoing(self) -> Stage:
        """A sink that sends what comes in over the connection of `incoming`."""
        return self._outgoing

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        turns: list[StreamElement] = []
        theirs: list[Any] = []  # the newest interrupt of the other end

        def overtake(interrupt: StreamElement) -> bool:
            theirs[:] = [interrupt.content]
            return _overtaken(interrupt, session, context)

        async with self._session(context) as session:
            session.overtake = overtake
            async with _task(self._feed(elements, context, session, turns, theirs), session):
                async for element in session:
                    if element.content.__class__ is EndOfTurn and turns:
                        yield turns.pop(0)
                    else:
                        yield element

    async def _feed(
        self,
        elements: AsyncIterator[StreamElement],
        context: StageContext,
        session: Session,
        turns: list[StreamElement],
        theirs: list[Any],
    ) -> None:
        """Send what comes in."""
        async for element in elements:
            if element.content.__class__ is Interrupt:
                turns.clear()  # they went with it
                session.incoming.let_go()
                if any(element.content is each for each in theirs):
                    continue
            if element.content.__class__ is EndOfTurn:
                context.hold(element)
                turns.append(element)
            if kind_of(element) in session.accepts:
                await session.send(element)
            elif not element.is_control:
                await session.incoming.put(element)
        await session.say_end()

    @asynccontextmanager
    async def _session(self, context: StageContext) -> AsyncGenerator[Session]:
        """The session of this execution; who leaves it last closes it."""
        shared = context.shared(self, lambda: _Shared(self._opened()))
        shared.users += 1
        try:
            if isinstance(shared.session, ClientSession):
                shared.session.start()
            yield shared.session
        finally:
            shared.users -= 1
            if not shared.users and isinstance(shared.session, ClientSession):
                await shared.session.close()

    def _opened(self) -> Session:
        if isinstance(self.target, Session):
            return self.target
        wants = Sound(sample_rate=self.wants_rate, channels=self.channels) if self.wants_rate else None
        return ClientSession(
            self.target,
            token=self.token,
            sends=Sound(sample_rate=self.sample_rate, channels=self.channels),
            wants=wants,
            reconnect=self.reconnect,
            restart=self.restart,
            tls=self.tls,
            options=self.bounds,
            heartbeat=self.heartbeat,
        )


class _Shared:
    """The session of one execution, and how many stages use it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.users = 0


class _Incoming(Stage):
    """What is received. Emits: that, and what comes in. Holds: the queue of the session. Completes: with both."""

    type: ClassVar[StageType] = StageType.GENERATE

    bridge: WebSocketBridgeStage

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        async def pass_by() -> None:
            async for element in elements:
                if element.content.__class__ is Interrupt:
                    session.incoming.let_go()
                elif not element.is_control:
                    await session.incoming.put(element)

        async with self.bridge._session(context) as session:
            session.overtake = lambda interrupt: _overtaken(interrupt, session, context)
            async with _task(pass_by(), session):
                async for element in session:
                    yield element


class _Outgoing(Stage):
    """Sends what comes in. Emits: controls. Holds: the queue of the session. Completes: with its input."""

    type: ClassVar[StageType] = StageType.SINK

    bridge: WebSocketBridgeStage

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        async with self.bridge._session(context) as session:
            async for element in elements:
                if kind_of(element) in session.accepts:
                    await session.send(element)
                if element.is_control:
                    yield element
            await session.say_end()


def _overtaken(interrupt: StreamElement, session: Session, context: StageContext) -> bool:
    """Send an `Interrupt` that was received past what the stage has no room for; tells whether that could be done."""
    try:
        handed = context.post(interrupt)
    except RxStageError:  # the stage has ended: it goes the usual way
        return False
    if handed:
        session.incoming.hold()  # what comes behind it must not flow on before the stage has been handed it
    return True


@asynccontextmanager
async def _task(work: Any, session: Session) -> AsyncGenerator[None]:
    """Work beside the block; where it fails, the session ends with its error."""

    async def run() -> None:
        try:
            await work
        except Exception as error:
            session.incoming.end(error)

    task = asyncio.create_task(run(), name="rxstage websocket bridge")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
