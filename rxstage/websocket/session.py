"""A session: the two directions between two ends, whatever connection they have at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from rxstage.content import Audio, EndOfStream, EndOfTurn, Interrupt
from rxstage.conversation import TRANSCRIPT
from rxstage.element import StreamElement
from rxstage.flow.buffer import survives
from rxstage.websocket.bounds import SessionOptions, SessionStatistics
from rxstage.websocket.codec import EVERYTHING, element_of, message_of
from rxstage.websocket.limits import Bucket, buckets
from rxstage.websocket.protocol import (
    GAP,
    HEAD,
    LARGEST_STEP,
    SOUND,
    Ack,
    Bye,
    CloseCode,
    Limits,
    Numbered,
    Ping,
    Pong,
    Sound,
    Violation,
    WireMessage,
    parse,
    sound_head,
)
from rxstage.websocket.queue import LinkQueue
from rxstage.websocket.replay import Replay
from rxstage.websocket.sound import Outgoing
from rxstage.wire import WireError

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection

__all__ = ["Session"]

_ACK_EVERY: Final = 32  # numbered frames


class Session(AsyncIterator[StreamElement]):
    """One end of a session. Iterate it for what comes in; `send` takes what is to go out.

    It outlives its connections: what is sent while there is none waits in a bounded queue, and what was under way is
    sent again over the next one.

    Args:
        options: its bounds.
        hears: form of the sound that comes in.
        speaks: form of the sound that goes out; what has another is converted.
        trusted: whether the other end may send everything, and gets metadata and tracebacks.
        id: its name.

    Attributes:
        id: its name, as long as it cannot be guessed a pass to it.
        accepts: types of messages that the other end takes.
        connected: whether there is a connection now.
        overtake: takes an `Interrupt` past what its user has no room for, and tells whether it could.
        listening: the other end has said that it has nothing more to send, where False.
    """

    def __init__(
        self,
        options: SessionOptions = SessionOptions(),  # noqa: B008 - frozen
        *,
        hears: Sound = Sound(),  # noqa: B008 - frozen
        speaks: Sound = Sound(),  # noqa: B008 - frozen
        trusted: bool = False,
        id: str = "",
    ) -> None:
        self.id = id
        self.options = options
        self.accepts: frozenset[str] = EVERYTHING
        self.trusted = trusted
        self.incoming = LinkQueue(options.buffer, options.buffer_bytes, options.overflow_in)
        self.outgoing = LinkQueue(options.buffer, options.buffer_bytes, options.overflow_out)
        self.received = 0
        self.sent = 0
        self.duplicates = 0
        self.unsendable = 0
        self.listening = True
        self.overtake: Callable[[StreamElement], bool] | None = None
        self.farewell: Bye | None = None  # said when all is sent
        self.replay = Replay(options.replay, options.replay_bytes)
        self.shape(hears, speaks)
        self._serving = asyncio.Lock()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._notes: dict[type[WireMessage], WireMessage] = {}  # about the session itself; the newest of each kind
        self._unacknowledged = 0
        self._pace: tuple[Bucket, Bucket] | None = None

    def shape(self, hears: Sound, speaks: Sound) -> None:
        """Settle the forms of sound."""
        self.hears, self.speaks = hears, speaks
        self._heard = hears.form
        self._voice = Outgoing(speaks.form)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return bool(self._tasks)

    def statistics(self) -> SessionStatistics:
        """A snapshot."""
        return SessionStatistics(
            self.sent,
            self.received,
            self.duplicates,
            self.replay.lost,
            self.unsendable,
            self.incoming.statistics(),
            self.outgoing.statistics(),
        )

    # ---------------------------------------------------------------- what its user does

    def __aiter__(self) -> AsyncIterator[StreamElement]:
        return self

    async def __anext__(self) -> StreamElement:
        element = await self.incoming.get()
        if element is None:
            raise StopAsyncIteration
        return element

    async def send(self, value: Any) -> None:
        """Have an element sent, once there is room for it.

        Sound is converted to the form of the session. A value that has no wire form, or that the other end does not
        take, is left out and counted.

        Raises:
            MissingExtra: sound has to be converted, and what does it is not installed.
        """
        element = StreamElement.of(value)
        content = element.content
        kind = content.__class__
        if kind is Audio:
            for frame in self._voice.frames(content):
                await self._put(element if frame is content else element.replace(content=frame))
            return
        if kind is EndOfTurn or kind is EndOfStream:
            await self.send_rest()
        elif kind is Interrupt:
            self._voice.forget()
        await self._put(element)

    async def send_rest(self) -> None:
        """Have sent what the conversion of sound still holds."""
        for frame in self._voice.rest():
            await self._put(StreamElement.of(frame))

    async def _put(self, element: StreamElement) -> None:
        if not self.outgoing.offer(element):
            await self.outgoing.put(element)

    async def say_end(self) -> None:
        """Tell the other end, behind what waits, that nothing more will be sent."""
        await self.send(StreamElement.end_of_stream())

    # ---------------------------------------------------------------- a connection

    async def serve(
        self, connection: Connection, received: int, limits: Limits | None = None, ours: bool = True
    ) -> None:
        """Send and receive over a connection till it is closed.

        Args:
            connection: both ends have introduced themselves on it.
            received: number of the newest frame that the other end has got.
            limits: how fast may be sent.
            ours: whether they bind this end, which then keeps to them; else the other end, which is checked.

        Raises:
            Violation: the other end has broken the protocol.
            ConnectionClosed: it is closed.
        """
        async with self._serving:
            self.replay.acknowledge(received)
            self._pace = buckets(limits, 0.9, 1.0) if ours else None  # less than is allowed, as clocks differ
            checked = None if ours else buckets(limits, 1.0, 2.0)
            self._tasks = tasks = (
                asyncio.create_task(self._read(connection, checked), name=f"rxstage websocket reader {self.id[:8]}"),
                asyncio.create_task(self._write(connection, received), name=f"rxstage websocket writer {self.id[:8]}"),
            )
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._tasks = ()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]
        for error in filter(None, errors):
            raise error

    def detach(self) -> None:
        """Have `serve` return: the session goes on over another connection."""
        for task in self._tasks:
            task.cancel()

    async def _read(self, connection: Connection, checked: tuple[Bucket, Bucket] | None) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            frame = await connection.recv()
            if checked is not None:
                now = clock()
                if checked[0].take(1, now) or checked[1].take(len(frame), now):
                    raise Violation(CloseCode.TOO_MANY, "more messages or bytes per second than the limits allow")
            element = self._taken(frame)
            if element is not None:
                if element.content.__class__ is EndOfStream:
                    self.listening = False
                    self.incoming.end()
                elif not self.arrive(element):
                    await self.incoming.put(element)

    def arrive(self, element: StreamElement) -> bool:
        """Take what has come in, if there is room; tells whether it is settled."""
        if element.content.__class__ is Interrupt and self.overtake is not None:
            self.incoming.keep(_outlives)
            if self.overtake(element):
                return True
        return self.incoming.offer(element)

    def _taken(self, frame: str | bytes) -> StreamElement | None:
        """The element that a frame brings, if it brings one."""
        if isinstance(frame, bytes):
            _, sequence = sound_head(frame)
            if not self._is_new(sequence) or len(frame) == HEAD.size:
                return None
            try:
                return StreamElement.of(Audio(frame[HEAD.size :], *self._heard))
            except ValueError as error:
                raise Violation(CloseCode.MALFORMED, f"binary frame: {error}") from None
        message = parse(frame)
        if isinstance(message, Numbered):
            return element_of(message, self.trusted) if self._is_new(message.sequence) else None
        self._about_session(message)
        return None

    def _is_new(self, sequence: int) -> bool:
        received = self.received
        if sequence == 0 or sequence - received > LARGEST_STEP:
            raise Violation(
                CloseCode.MALFORMED,
                f"frame {sequence} cannot come after {received}; frames are numbered one by one, from 1",
            )
        if sequence <= received:
            self.duplicates += 1
            return False
        self.received = sequence
        self._unacknowledged += 1
        if self._unacknowledged >= _ACK_EVERY:
            self._unacknowledged = 0
            self.note(Ack(received=sequence))
        return True

    def _about_session(self, message: WireMessage) -> None:
        if isinstance(message, Ack):
            if message.received > self.sent:
                raise Violation(
                    CloseCode.MALFORMED, f"frame {message.received} is acknowledged and {self.sent} have been sent"
                )
            self.replay.acknowledge(message.received)
        elif isinstance(message, Ping):
            self.note(Pong(time=message.time))
        elif isinstance(message, Bye):
            self.listening = False
            self.incoming.end()
        elif not isinstance(message, Pong):
            raise Violation(CloseCode.MALFORMED, f"{type(message).__name__} is said once, at the beginning")

    def note(self, message: WireMessage) -> None:
        """Have something about the session itself sent, ahead of what waits; a newer one of a kind takes its place."""
        self._notes[type(message)] = message
        self.outgoing.rouse()

    async def _write(self, connection: Connection, received: int) -> None:
        outgoing, notes, replay = self.outgoing, self._notes, self.replay
        send = connection.send
        for frame in replay.after(received):
            await self._paced(frame)
            await send(frame)
        while True:
            if notes:
                kind = next(iter(notes))
                await send(notes.pop(kind).model_dump_json(exclude_none=True))
            elif outgoing.items:
                encoded = self._encoded(outgoing.take())
                if encoded is not None:
                    if self._pace is not None:
                        await self._paced(encoded)
                    await send(encoded)
            elif outgoing.ended:
                if self.farewell is not None:
                    await send(self.farewell.model_dump_json())
                return
            else:
                await outgoing.arrival()

    async def _paced(self, frame: str | bytes) -> None:
        if self._pace is not None:
            now = asyncio.get_running_loop().time()
            wait = max(self._pace[0].take(1, now), self._pace[1].take(len(frame), now))
            if wait:
                await asyncio.sleep(wait)

    def _encoded(self, element: StreamElement) -> str | bytes | None:
        """The frame for an element; kept, till it has arrived."""
        content = element.content
        frame: str | bytes
        if content.__class__ is Audio:
            if "audio" not in self.accepts:
                self.unsendable += 1
                return None
            flags = GAP if self.outgoing.gap else 0
            self.outgoing.gap = False
            frame = HEAD.pack(SOUND, flags, 0, self.sent + 1) + content.samples
        else:
            try:
                message = message_of(element, self.sent + 1, self.trusted)
            except WireError:
                self.unsendable += 1
                return None
            if message.type not in self.accepts:  # type: ignore[attr-defined]
                self.unsendable += 1
                return None
            frame = message.model_dump_json(exclude_none=True)
        self.sent += 1
        self.replay.add(self.sent, frame)
        return frame


def _outlives(element: StreamElement) -> bool:
    """Whether an interrupt leaves it: what tells of the user stays."""
    return survives(element) or TRANSCRIPT in element.metadata
