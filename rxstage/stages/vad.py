"""From a stream of sound to the utterances in it."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Final

from pydantic import Field, PrivateAttr

from rxstage.content import Audio, Data, EndOfTurn
from rxstage.element import Metadata, StreamElement
from rxstage.ports.vad import Vad
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.floor import floor
from rxstage.voice.listener import Listener
from rxstage.voice.speech import SpeechEnded, SpeechStarted

__all__ = ["VADAccumulatorStage"]

_PIECE: Final = 0.1  # seconds: sound in longer pieces is cut, so that two utterances in one are told apart
_TAIL: Final = 0.2  # seconds behind the speech that belong to an utterance: words end softly


class VADAccumulatorStage(Stage):
    """Collects the sound of each utterance, from its beginning to the silence behind it.

    All time is that of the samples: it makes no difference how fast they come.

    Args:
        name: name in the graph.
        vad: `"silero"` (neural, extra `vad`), `"energy"` (no dependencies), `"webrtc"` (extra `vad-webrtc`), or
            a `Vad`.
        threshold: how likely speech has to be.
        silence: seconds without speech that end an utterance.
        minimum_speech: seconds of speech in a row that begin one; what is shorter is a click.
        maximum_turn: seconds after which an utterance ends in the middle of the speech.
        pre_roll: seconds of sound before the speech that belong to the utterance.
        partials: emit the sound piece by piece as it comes, for recognition that streams, not the whole at its end.
        end_of_turn: emit an `EndOfTurn` behind each utterance.

    Emits: for each utterance `Data(SpeechStarted)` when it is known to be one, its `Audio`, `Data(SpeechEnded)` and an
        `EndOfTurn`. Other sound is gone; everything else passes by.
    Holds: `pre_roll` and `silence` seconds of sound; during an utterance that too, `maximum_turn` seconds at most.
    Completes: with its input; an utterance that has not ended is emitted then.
    Fails: with `StageError` where the detector is not installed.
    """

    type: ClassVar[StageType] = StageType.ACCUMULATE
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio, Data)

    vad: Any = "silero"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    silence: float = Field(default=0.6, gt=0)
    minimum_speech: float = Field(default=0.12, ge=0)
    maximum_turn: float = Field(default=30.0, gt=0)
    pre_roll: float = Field(default=0.3, ge=0)
    partials: bool = False
    end_of_turn: bool = True

    _vad: Vad = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        vad = self.vad
        if isinstance(vad, str):
            vad = importlib.import_module("rxstage.adapters.vad").vad_of(vad)
        if not isinstance(vad, Vad):
            raise TypeError(f"stage {self.name!r}: vad must be 'silero', 'energy', 'webrtc' or a Vad, got {vad!r}")
        self._vad = vad

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        ear = _Ear(self, context)
        async for element in elements:
            content = element.content
            if content.__class__ is Audio:
                for piece in ear.hear(element):
                    yield piece
                continue
            if content.__class__ is EndOfTurn:  # somebody has let go of the button
                for piece in ear.end(marked=True):
                    yield piece
            yield element
        for piece in ear.end():
            yield piece


class _Ear:
    """What is heard of one stream."""

    def __init__(self, stage: VADAccumulatorStage, context: StageContext) -> None:
        self._stage, self._context = stage, context
        self._floor = floor(context)
        self._listener = Listener(stage._vad)
        self._kept: deque[tuple[float, StreamElement]] = deque()  # when each piece ends [s]
        self._end = 0.0  # of the sound so far
        self._judged = 0.0  # of what the detector has heard
        self._run = 0.0  # seconds of speech in a row
        self._quiet = 0.0  # seconds since the last speech
        self._start: float | None = None  # of the speech of this utterance
        self._last: StreamElement | None = None

    def hear(self, element: StreamElement) -> Iterator[StreamElement]:
        audio = element.content
        if audio.duration <= 2 * _PIECE:
            yield from self._hear(element)
        else:
            for piece in _pieces(audio):
                yield from self._hear(element.replace(content=piece))

    def _hear(self, element: StreamElement) -> Iterator[StreamElement]:
        stage, audio = self._stage, element.content
        if not audio.samples:
            return
        if self._kept and not _joins(self._kept[-1][1].content, audio):
            yield from self.end()
            self._kept.clear()
            self._judged = self._end  # what the detector had not heard yet is gone
        self._end += audio.duration
        self._last = element
        self._kept.append((self._end, element))
        for probability, seconds in self._listener.hear(audio):
            self._judged += seconds
            if probability >= stage.threshold:
                self._run += seconds
                self._quiet = 0.0
                if self._start is None and self._run >= stage.minimum_speech:
                    yield from self._begin()
            else:
                self._run = 0.0
                self._quiet += seconds
                if self._start is not None and self._quiet >= stage.silence:
                    yield from self.end()
            if self._start is not None:
                self._floor.voiced = self._judged - self._quiet - self._start
            if self._start is not None and self._judged - self._start >= stage.maximum_turn:
                yield from self.end()
        if self._start is None:
            self._drop(self._judged - stage.pre_roll - self._run)
        elif stage.partials:
            yield from self._sound(self._end)  # all of it

    def _begin(self) -> Iterator[StreamElement]:
        self._start = max(self._judged - self._run, 0.0)
        self._drop(self._start - self._stage.pre_roll)
        self._context.emit_event("turn.started", time=self._start)
        assert self._last is not None
        yield self._last.replace(content=Data(SpeechStarted(self._start)))

    def end(self, marked: bool = False) -> Iterator[StreamElement]:
        """The utterance is over, if there is one."""
        start, self._start = self._start, None
        if start is None:
            return
        end, last = self._judged - self._quiet, self._last
        assert last is not None
        yield from self._sound(self._end if self._stage.partials else end + _TAIL)
        self._context.emit_event("turn.ended", time=end, duration=end - start)
        yield last.replace(content=Data(SpeechEnded(end, end - start)))
        if self._stage.end_of_turn and not marked:
            yield StreamElement.end_of_turn(metadata=last.metadata, source=self._context.stage)
        self._run = self._quiet = 0.0
        self._drop(self._judged - self._stage.pre_roll)

    def _sound(self, until: float) -> Iterator[StreamElement]:
        """What was kept, up to the piece in which that time lies, as one."""
        pieces: list[StreamElement] = []
        begin = end = 0.0
        while self._kept and self._kept[0][0] - self._kept[0][1].content.duration < until:
            end, piece = self._kept.popleft()
            if not pieces:
                begin = end - piece.content.duration
            pieces.append(piece)
        if pieces:
            first = pieces[0].content
            sound = b"".join(piece.content.samples for piece in pieces)
            audio = Audio(sound, first.sample_rate, first.channels, first.format)
            metadata = Metadata({**pieces[0].metadata, **pieces[-1].metadata, "start": begin, "end": end})
            yield pieces[0].replace(content=audio, metadata=metadata)

    def _drop(self, before: float) -> None:
        """Forget the sound that ended before that time."""
        kept = self._kept
        while kept and kept[0][0] <= before:
            kept.popleft()


def _pieces(audio: Audio) -> Iterator[Audio]:
    size = max(round(audio.sample_rate * _PIECE), 1) * audio.channels * audio.format.width
    for begin in range(0, len(audio.samples), size):
        yield Audio(audio.samples[begin : begin + size], audio.sample_rate, audio.channels, audio.format)


def _joins(one: Audio, other: Audio) -> bool:
    return (one.sample_rate, one.channels, one.format) == (other.sample_rate, other.channels, other.format)
