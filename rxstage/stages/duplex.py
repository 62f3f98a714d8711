"""A conversation with a realtime model: sound and text go in and come out over one connection."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any, ClassVar, Final, Literal

from msgspec import Struct
from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, AudioFormat, Data, EndOfTurn, Failure, Interrupt, Message, Text, ToolCall, ToolResult
from rxstage.conversation import HISTORY, PROMPT, TRANSCRIPT, conversations
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.buffer import survives
from rxstage.stage import Stage, StageContext, StageType
from rxstage.websocket.line import realtime_line
from rxstage.websocket.queue import LinkQueue
from rxstage.websocket.realtime import RATE, Realtime, RealtimeError, append_of, event_of, greeting, item_of
from rxstage.websocket.sound import Outgoing

__all__ = ["DuplexProviderStage"]

_AHEAD: Final = 8192  # elements of the answer, which comes faster than it is spoken
_AHEAD_BYTES: Final = RATE * 2 * 300  # five minutes of its sound


class DuplexProviderStage(Stage):
    """Holds a conversation with a realtime model, over a WebSocket that speaks as OpenAI's realtime API does.

    Args:
        name: name in the graph.
        url: address of the service.
        api_key: shown to the service.
        model: asked for.
        instructions: instruct the model.
        voice: that it speaks with.
        output: `"audio"` (with its transcript as text) or `"text"`.
        turns: who decides that the user's turn has ended: `"service"` (its own detection of speech), or `"control"`:
            an `EndOfTurn` that comes in.
        transcription: model that writes down what the user says; None: nobody does.
        transcript_timeout: seconds that a complete answer waits for the transcript of what it answers.
        tools: what is said of each tool, as the API wants it; calls go out as `ToolCall`, results come in as
            `ToolResult`.
        session: more of what a `session.update` can say.
        open_timeout: seconds to connect.
        buffer: elements that wait while the session is being set up, or the service is slow.
        buffer_bytes: bytes of sound that wait then.
        heartbeat: seconds between two pings.
        tls: where the usual certificates will not do.
        on_error: what an error means that the service tells of: a `Failure` (`"emit"`), nothing (`"skip"`) or the end
            (`"fail"`). A lost connection always is the end.

    Emits: at once, as they come: `Audio` (24 kHz mono) and `Text` of the answer, transcripts, `Data(SpeechStarted)` and
        `Data(SpeechEnded)`. Then, in this order: the user's `Message`, the assistant's, with usage, and the
        `EndOfTurn`. An `Interrupt` where the user speaks while it answers. What it does not send passes by.
    Holds: `buffer` elements on their way out, where the oldest sound gives way and nothing else; five minutes of the
        answer's sound.
    Completes: when its input has ended and all answers are given.
    Fails: with `StageError` where the service refuses or the connection is lost.
    """

    type: ClassVar[StageType] = StageType.BIDIRECTIONAL
    emits: ClassVar[tuple[Any, ...]] = ()

    url: str = "wss://api.openai.com/v1/realtime"
    api_key: str | None = Field(default=None, repr=False)
    model: str = "gpt-realtime"
    instructions: str = ""
    voice: str | None = None
    output: Literal["audio", "text"] = "audio"
    turns: Literal["service", "control"] = "service"
    transcription: str | None = "gpt-4o-mini-transcribe"
    transcript_timeout: float = Field(default=5.0, ge=0)
    tools: tuple[dict[str, Any], ...] = ()
    session: dict[str, Any] = Field(default_factory=dict)
    open_timeout: float = Field(default=10.0, gt=0)
    buffer: int = Field(default=256, ge=1)
    buffer_bytes: int = Field(default=960_000, ge=1)
    heartbeat: float | None = Field(default=20.0, gt=0)
    tls: ssl.SSLContext | None = None
    on_error: Literal["emit", "skip", "fail"] = "emit"

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """24 kHz mono, whatever comes in."""
        return AudioSpec(RATE, 1, AudioFormat.PCM16)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        call = _Call(self, context)
        tasks = (asyncio.create_task(call.guarded(call.feed(elements))), asyncio.create_task(call.guarded(call.talk())))
        try:
            while (element := await call.results.get()) is not None:
                content = element.content
                if content.__class__ is EndOfTurn and call.ends:
                    element = call.ends.pop(0)
                elif content.__class__ is Message and content.role in ("user", "assistant"):
                    if not element.metadata.keys() & {HISTORY, PROMPT}:
                        conversations(context).of(element).add(content)
                yield element
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def greeting(self) -> dict[str, Any]:
        """The `session.update` that begins a session."""
        return greeting(
            service_turns=self.turns == "service",
            transcription=self.transcription,
            voice=self.voice,
            output=self.output,
            instructions=self.instructions,
            tools=self.tools,
            more=self.session,
        )


class _Events(Struct, frozen=True):
    """What is to be sent as it is, among what came in. Travels as `Data`."""

    events: list[dict[str, Any]]


class _Call:
    """One conversation: the state of one execution of the stage."""

    def __init__(self, stage: DuplexProviderStage, context: StageContext) -> None:
        self.stage, self.context = stage, context
        self.loop = asyncio.get_running_loop()
        self.state = Realtime(stage.transcription is not None, context.now)
        self.to_send = LinkQueue(stage.buffer, stage.buffer_bytes, "drop_oldest")
        self.results = LinkQueue(_AHEAD, _AHEAD_BYTES, "wait")
        self.ends: list[StreamElement] = []  # of turns, that came in and are held
        self.over: asyncio.Future[None] = self.loop.create_future()  # all is said and answered
        self._sent = False  # all that came in
        self._sound = Outgoing((RATE, 1, AudioFormat.PCM16))
        self._spoken = False  # sound was sent since the last turn
        self._words: list[str] = []  # of the turn
        self._calls: set[str] = set()  # of tools, whose results have not come
        self._own: Any = None  # the interrupt that the service has caused
        self._late: asyncio.TimerHandle | None = None
        self._newest = StreamElement.of("")

    async def guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the stage's own loop, which ends with the error that it raises."""
        try:
            await work
        except Exception as error:
            self.results.end(error)

    # ---------------------------------------------------------------- what comes in

    async def feed(self, elements: AsyncIterator[StreamElement]) -> None:
        """Queue what is to be sent; the rest passes by."""
        async for element in elements:
            content = element.content
            kind = content.__class__
            if kind is Interrupt:
                if content is not self._own:
                    await self.to_send.put(element)
                self.ends.clear()  # they went with it
                self.results.let_go()
                continue
            if kind is EndOfTurn:
                self.context.hold(element)
                self.ends.append(element)
                await self.to_send.put(element)
            elif kind not in (Audio, Text, Message, ToolResult) or element.metadata.keys() & {TRANSCRIPT, HISTORY}:
                if not element.is_control:
                    await self.results.put(element)
            else:
                self._newest = element
                if kind is Message:
                    await self.results.put(element)
                await self.to_send.put(element)
        self.to_send.end()

    # ---------------------------------------------------------------- the connection

    async def talk(self) -> None:
        """Hold the connection, till all is said and answered."""
        stage = self.stage
        async with realtime_line(
            stage.url,
            stage.model,
            stage.api_key,
            open_timeout=stage.open_timeout,
            heartbeat=stage.heartbeat,
            tls=stage.tls,
        ) as connection:
            await connection.send(json.dumps(stage.greeting()))
            try:
                async with asyncio.timeout(stage.open_timeout):
                    while self._take(event_of(await connection.recv())) != "session.updated":
                        pass
            except TimeoutError:
                raise RxStageError(
                    f"{stage.url} has set up no session within {stage.open_timeout:g} s; raise open_timeout"
                ) from None
            await self._both_ways(connection)
        self.results.end()

    async def _both_ways(self, connection: Any) -> None:
        tasks = [asyncio.create_task(work) for work in (self._send(connection), self._listen(connection))]
        try:
            pending: set[asyncio.Future[None]] = {self.over, *tasks}
            while not self.over.done():
                ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in ended:
                    each.result()
        finally:
            if self._late is not None:
                self._late.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, connection: Any) -> None:
        while (element := await self.to_send.get()) is not None:
            for event in self._events(element):
                await connection.send(json.dumps(event))
        for event in self._turn(commit=self.stage.turns == "control" or self.state.speech):
            await connection.send(json.dumps(event))
        self._sent = True
        self._settle()

    async def _listen(self, connection: Any) -> None:
        while True:
            self._take(event_of(await connection.recv()))
            if self.results.full:
                await self.results.room()

    # ---------------------------------------------------------------- what is sent

    def _events(self, element: StreamElement) -> list[dict[str, Any]]:
        match element.content:
            case Audio() as audio:
                self._spoken = True
                return [append_of(frame) for frame in self._sound.frames(audio)]
            case Text(text):
                self._words.append(text)
            case Message(role) as message:
                return [item_of(message), self.state.ask()] if role == "user" else [item_of(message)]
            case ToolResult() as result:
                self._calls.discard(result.call_id)
                return [item_of(result)] if self._calls else [item_of(result), self.state.ask()]
            case EndOfTurn():
                by_service = self._spoken and self.stage.turns == "service"
                events = self._turn(commit=self.stage.turns == "control")
                if not events and not by_service and not self.state.busy:
                    self.results.push(element)  # nothing was said in this turn
                return events
            case Interrupt():
                cancel = [{"type": "response.cancel"}] if self.state.answering else []
                return [*cancel, *self._cut()]
            case Data(value=_Events(events)):
                return events
        return []

    def _turn(self, commit: bool) -> list[dict[str, Any]]:
        """What is sent at the end of a turn."""
        events: list[dict[str, Any]] = []
        if self._words:
            events.append(item_of(Text("".join(self._words))))
            self._words.clear()
        if self._spoken and commit:
            events += [append_of(frame) for frame in self._sound.rest()]
            events.append({"type": "input_audio_buffer.commit"})
        self._spoken = False
        return [*events, self.state.ask()] if events else []

    # ---------------------------------------------------------------- what is told

    def _take(self, event: dict[str, Any]) -> str:
        """Tell what an event stands for; gives its type."""
        try:
            for element in self.state.take(event):
                self._tell(element)
        except (RealtimeError, KeyError, TypeError, ValueError) as error:
            self.context.emit_event("duplex.failed", error=str(error))
            if self.stage.on_error == "fail":
                raise
            if self.stage.on_error == "emit":
                self._tell(StreamElement.of(Failure(error, self.context.stage)))
        self._settle()
        return str(event.get("type", ""))

    def _settle(self, late: bool = False) -> None:
        for element in self.state.settled(late):
            self._tell(element)
        if not self.state.waiting:
            if self._late is not None:
                self._late.cancel()
                self._late = None
        elif self._late is None:
            self._late = self.loop.call_later(self.stage.transcript_timeout, self._give_up)
        if self._sent and not self.state.busy and not self._calls and not self.over.done():
            self.over.set_result(None)

    def _give_up(self) -> None:
        """The transcript does not come: the answer is told without it."""
        self._late = None
        self.context.emit_event("duplex.no_transcript")
        self._settle(late=True)

    def _cut(self) -> list[dict[str, Any]]:
        """What is being answered is void; what is known of the user stays. Gives what is to be sent."""
        events = self.state.cut()
        self._calls.clear()
        self.results.keep(
            lambda each: survives(each) or each.content.__class__ is Message or TRANSCRIPT in each.metadata
        )
        return events

    def _tell(self, element: StreamElement) -> None:
        """Have an element flow on; an `Interrupt` overtakes what waits behind the stage."""
        content = element.content
        if content.__class__ is Interrupt:
            if events := self._cut():
                self.to_send.push(StreamElement.of(Data(_Events(events))))
            self._own = content
            try:
                if self.context.post(element):
                    self.results.hold()  # what comes behind it must not flow on before the stage has been handed it
                return
            except RxStageError:
                pass  # the stage has ended: it goes the usual way
        elif content.__class__ is ToolCall:
            self._calls.add(content.id)
        if not element.is_control:
            metadata = {**self._newest.metadata, **element.metadata}
            element = self._newest.replace(
                content=content, metadata=metadata, priority=element.priority, source=self.context.stage
            )
        self.results.push(element)
