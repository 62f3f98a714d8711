"""From the words of the assistant to their sound."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, PrivateAttr

from rxstage.content import Audio, Data, EndOfTurn, Failure, Interrupt, Message, Text
from rxstage.conversation import is_aside
from rxstage.element import StreamElement
from rxstage.ports.tts import Tts
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.clauses import ClauseSplitter
from rxstage.voice.speech import Spoken

__all__ = ["TTSStage"]

_MARKUP: Final = re.compile(r"```.*?(?:```|$)|[*_`#>|~]+|\[([^\]]*)\]\([^)]*\)|https?://\S+", re.DOTALL)


class TTSStage(Stage):
    """Speaks what the assistant says, sentence by sentence while it streams.

    It speaks the pieces of text of an answer, or its message where no pieces came; nothing twice. Transcripts, messages
    of others, results of tools and data are not spoken.

    Args:
        name: name in the graph.
        tts: `"espeak"` (offline, extra `espeak`), `"openai:gpt-4o-mini-tts"`, `"piper:voice.onnx"`, or a `Tts`.
        first_clause: characters that the first spoken piece has at least; it may end at a comma.
        timeout: seconds that the engine may take for the next piece of sound.
        markdown: leave out the marks of Markdown, code and addresses.
        on_error: what a failed synthesis means: `"fail"`, a `Failure` in its place (`"emit"`), or nothing (`"skip"`).
            The text has gone on in any case.

    Emits: what comes in, at once; behind it the `Audio` of each piece of text, as it is made, and a `Data(Spoken)` that
        says which text lies before it.
    Holds: a sentence of text, and 16 pieces of sound.
    Completes: with its input, once all is spoken.
    Fails: with `StageError` where the synthesis fails, unless `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Text, Message)
    emits: ClassVar[tuple[Any, ...]] = (Audio, Text, Message, Data)

    tts: Any = "espeak"
    first_clause: int = Field(default=12, ge=1)
    timeout: float | None = Field(default=30.0, gt=0)
    markdown: bool = True
    on_error: Literal["fail", "emit", "skip"] = "fail"

    _tts: Tts = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        tts = self.tts
        if isinstance(tts, str):
            tts = importlib.import_module("rxstage.adapters.speech").tts_of(tts)
        if not isinstance(tts, Tts):
            raise TypeError(f"stage {self.name!r}: tts must be a Tts or a name such as 'espeak', got {tts!r}")
        self._tts = tts

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        clauses = ClauseSplitter(self.first_clause)
        streamed = False  # whether pieces of this answer came
        envelope = StreamElement("")
        async for element in elements:
            content = element.content
            kind = content.__class__
            if kind is EndOfTurn:
                context.hold(element)
            else:
                yield element
            said: list[str] = []
            if kind is Text and not is_aside(element):
                streamed, envelope = True, element
                said = clauses.add(content.text)
            elif kind is Message and content.role == "assistant" and not is_aside(element):
                if not streamed:
                    envelope = element
                    said = clauses.add(content.text)
                said.append(clauses.rest())
                streamed = False
            elif kind is EndOfTurn:
                said.append(clauses.rest())
                streamed = False
            elif kind is Interrupt or (kind is Failure and streamed):  # void, or withdrawn
                clauses.rest()
                streamed = False
            for text in filter(None, said):
                async with aclosing(self._spoken(text, envelope, context)) as sound:
                    async for piece in sound:
                        yield piece
                if context.interrupted:
                    break
            if kind is EndOfTurn:
                yield element
        if rest := clauses.rest():
            async with aclosing(self._spoken(rest, envelope, context)) as sound:
                async for piece in sound:
                    yield piece

    async def _spoken(self, text: str, envelope: StreamElement, context: StageContext) -> AsyncGenerator[StreamElement]:
        """The sound of a text, and the mark behind it."""
        words = _MARKUP.sub(r"\1", text) if self.markdown else text
        made = envelope.replace(content=Data(Spoken(text)), source=context.stage)
        if any(map(str.isalnum, words)):
            begin = context.now()
            async with context.interruptible(self._tts.speak(words.strip())) as sound:
                while True:
                    try:
                        audio = await self._next(sound)
                    except Exception as error:
                        if self.on_error == "fail":
                            raise
                        failed = error
                        why = str(error) or type(error).__name__
                        context.emit_event("tts.failed", engine=self._tts.name, error=why)
                        if self.on_error == "emit":
                            yield made.replace(content=Failure(failed, context.stage))
                        return
                    if audio is None:
                        break
                    if begin >= 0:
                        context.emit_event("tts.first_audio", engine=self._tts.name, duration=context.now() - begin)
                        begin = -1.0
                    yield made.replace(content=audio)
            if sound.interrupted:
                return
        yield made

    async def _next(self, sound: AsyncIterator[Audio]) -> Audio | None:
        """The next piece of sound; None at the end."""
        try:
            async with asyncio.timeout(self.timeout):
                audio = await anext(sound, None)
        except TimeoutError as error:
            why = str(error) or f"{self._tts.name!r} made no sound for {self.timeout:g} s; give it a longer timeout"
            raise TimeoutError(why) from error
        if audio is None or audio.__class__ is Audio:
            return audio
        raise TypeError(f"speak() of {self._tts.name!r} has to give Audio, got {audio!r}")
