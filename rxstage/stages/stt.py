"""From the sound of the user to the words."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from rxstage.config import Retry
from rxstage.content import Audio, Data, Failure, Message, Text
from rxstage.conversation import TRANSCRIPT
from rxstage.element import Metadata, StreamElement
from rxstage.errors import require
from rxstage.ports.stt import SpeechError, Stt, Transcript
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.floor import floor
from rxstage.voice.hearing import Hearing
from rxstage.voice.pcm import mono16
from rxstage.voice.speech import SpeechEnded, SpeechStarted

__all__ = ["STTStage"]


def _retryable(error: BaseException) -> bool:
    return isinstance(error, SpeechError) and error.retryable


class STTStage(Stage):
    """Makes a user's message of each utterance.

    It takes whole utterances, as `VADAccumulatorStage` makes them: one `Audio`, one message. With `streaming=True` it
    takes them piece by piece while they are said (`VADAccumulatorStage(partials=True)`), and shows what was understood
    so far.

    Args:
        name: name in the graph.
        stt: `"pocketsphinx"` (offline, extra `pocketsphinx`), `"openai:gpt-4o-mini-transcribe"`, `"whisper:base"`
            (faster-whisper, if it is installed), or an `Stt`.
        streaming: understand while it is said, between `SpeechStarted` and `SpeechEnded`.
        timeout: seconds for one utterance, from its end.
        retry: what is done where it failed and may succeed later; None tries once, and so does `streaming`.
        on_error: what a failed one means: a `Failure` in its place (`"emit"`), nothing (`"skip"`), or the end of the
            execution (`"fail"`).

    Emits: `Text` of low priority, marked as a transcript, `"partial"` or `"final"`, and a user `Message`; nothing where
        there were no words. Everything else passes by.
    Holds: one utterance; with `streaming` 256 pieces of it.
    Completes: with its input, once its last utterance is understood.
    Fails: with `StageError` where the recognition fails, if `on_error="fail"`.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Text, Message)

    stt: Any = "pocketsphinx"
    streaming: bool = False
    timeout: float | None = Field(default=30.0, gt=0)
    retry: Retry | None = Retry(attempts=2, wait=0.2, retry_on=_retryable)
    on_error: Literal["fail", "emit", "skip"] = "emit"

    _stt: Stt = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        stt = self.stt
        if isinstance(stt, str):
            stt = importlib.import_module("rxstage.adapters.speech").stt_of(stt)
        if not isinstance(stt, Stt):
            raise TypeError(f"stage {self.name!r}: stt must be an Stt or a name such as 'pocketsphinx', got {stt!r}")
        self._stt = stt

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        preparing = asyncio.create_task(self._stt.prepare(), name="rxstage:prepare")
        preparing.add_done_callback(_forget)  # what went wrong is said by the first utterance, too
        held = floor(context)
        hearing: Hearing | None = None  # an utterance while it is said
        newest: StreamElement | None = None  # the newest piece of it
        try:
            while True:
                element = await anext(elements, None)
                content = None if element is None else element.content
                value = content.value if content.__class__ is Data else None
                ended: StreamElement | None = None  # what there is to understand now
                if hearing is not None and element is not None and content.__class__ is Audio:
                    newest = element
                    await hearing.add(element.content)
                    if (found := hearing.partial()) is not None:
                        yield _told(element, found, context)
                elif hearing is not None and (element is None or value.__class__ is SpeechEnded):
                    ended = newest
                elif self.streaming and value.__class__ is SpeechStarted and hearing is None:
                    hearing, newest = Hearing(self._stt), element
                elif content.__class__ is Audio:
                    ended = element
                if ended is not None:
                    held.understanding = True
                    async with context.interruptible(self._understood(ended, context, hearing)) as said:
                        async for piece in said:
                            yield piece
                    held.understanding = False
                    if hearing is not None:
                        await hearing.aclose()
                        hearing = None
                if element is None:
                    return
                if content.__class__ is not Audio:
                    yield element
        finally:
            preparing.cancel()
            held.understanding = False
            if hearing is not None:
                await hearing.aclose()

    async def _understood(
        self, element: StreamElement, context: StageContext, hearing: Hearing | None
    ) -> AsyncGenerator[StreamElement]:
        """What was said in an utterance that has ended; what was heard while it was said cannot be tried again."""
        begin, tries = context.now(), 0
        sound = _fitted(element.content, self._stt.sample_rate) if hearing is None else Audio(b"", 1)
        while True:
            tries += 1
            try:
                async with asyncio.timeout(self.timeout):
                    transcript = await (self._stt.transcribe(sound) if hearing is None else hearing.end())
                if not isinstance(transcript, Transcript):
                    raise TypeError(f"transcribe() of {self._stt.name!r} has to give a Transcript, got {transcript!r}")
                break
            except Exception as error:
                retry = self.retry if hearing is None else None
                if retry is not None and tries < retry.attempts and retry.applies(error):
                    await asyncio.sleep(retry.delay(tries))
                    continue
                if self.on_error == "fail":
                    raise
                context.emit_event("stt.failed", engine=self._stt.name, error=str(error) or type(error).__name__)
                failed = error
                transcript = None
                break
        if transcript is None:
            if self.on_error == "emit":
                yield element.replace(content=Failure(failed, context.stage))
            return
        context.emit_event("stt.completed", engine=self._stt.name, duration=context.now() - begin, text=transcript.text)
        if text := transcript.text.strip():
            yield _told(element, Transcript(text, True, transcript.confidence, transcript.language), context)
            yield element.replace(content=Message.user(text), source=context.stage)


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _told(element: StreamElement, transcript: Transcript, context: StageContext) -> StreamElement:
    """A transcript to be shown; the message is what is answered."""
    state = "final" if transcript.final else "partial"
    metadata = Metadata({**element.metadata, TRANSCRIPT: state})
    return element.replace(
        content=Text(transcript.text), metadata=metadata, priority=Priority.LOW, source=context.stage
    )


def _fitted(audio: Audio, rate: int) -> Audio:
    """As the engine wants it: 16-bit mono at its rate."""
    sound = mono16(audio)
    if audio.sample_rate != rate:
        numpy = require("numpy", "audio")
        samples = numpy.frombuffer(sound, dtype="<i2")
        sound = require("soxr", "audio").resample(samples, audio.sample_rate, rate).tobytes()
    return Audio(sound, rate)
