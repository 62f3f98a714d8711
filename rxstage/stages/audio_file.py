"""Sound from files and into files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import BeforeValidator, Field

from rxstage.content import Audio
from rxstage.element import StreamElement
from rxstage.flow.callback import Callback, Kind
from rxstage.stage import Shape, Stage, StageContext, StageType
from rxstage.voice.files import AudioFileError, SoundWriter, open_reader, open_writer
from rxstage.voice.framer import Framer

__all__ = ["AudioFileSink", "AudioFileSource", "audio_file"]

_Path: TypeAlias = Annotated[str | os.PathLike[str], BeforeValidator(os.fspath)]
"""A path as an option; it is kept as a string, so that the stage has a plain form."""

_BLOCK: Final = 0.25  # seconds of sound that are read or written at once, as each time costs more than the bytes


def audio_file(path: str | os.PathLike[str], frame: float = 0.02) -> Iterator[Audio]:
    """The sound of a file, piece by piece, as the source of an execution.

        pipeline.execute(audio_file("question.wav"))

    Args:
        path: a file that soundfile reads: WAV, FLAC, Ogg, MP3 … Samples of 16 bits or of a lossy codec come as `PCM16`,
            those of 24 and 32 bits as `PCM32`, floats as `FLOAT32`.
        frame: seconds of sound in a piece, rounded to whole frames of the file's rate; the last one may be shorter.

    Raises:
        ValueError: `frame` is not above 0.
        AudioFileError: when it is iterated: there is no such file, or it cannot be read.
        MissingExtra: likewise: it is no WAV file, and soundfile is not installed.
    """
    if not frame > 0:
        raise ValueError(f"frame must be above 0 s, got {frame!r}")
    return _pieces(path, frame)


def _pieces(path: str | os.PathLike[str], seconds: float) -> Iterator[Audio]:
    reader = open_reader(path)
    try:
        rate, channels, format = reader.sample_rate, reader.channels, reader.format
        frames = max(round(rate * seconds), 1)
        size = frames * channels * format.width
        count = max(int(_BLOCK * rate) // frames, 1)
        while block := reader.read(count * frames):
            for begin in range(0, len(block), size):
                yield Audio(block[begin : begin + size], rate, channels, format)
    finally:
        reader.close()


class AudioFileSource(Stage):
    """Produces the sound of a file, as fast as it is taken. What comes in passes by.

    Args:
        name: name in the graph.
        path: a file that soundfile reads: WAV, FLAC, Ogg, MP3 …; without soundfile WAV alone.
        frame: seconds of sound in an element; the last one may be shorter.
        blocking: read on a thread, where the file lies on something slow.

    Emits: `Audio`, in the form that the file has, and what comes in.
    Holds: a quarter of a second of sound: it reads only while there is room behind it.
    Completes: when its input and the file have both ended.
    Fails: with `StageError` where the file cannot be read.
    """

    type: ClassVar[StageType] = StageType.GENERATE
    emits: ClassVar[tuple[Any, ...]] = (Audio,)
    shape: ClassVar[Shape | None] = Shape.PRODUCER

    path: _Path
    frame: float = Field(default=0.02, gt=0)

    def callback(self, name: str, node: int = 0) -> Callback:
        return self._callback(name, node, lambda: audio_file(self.path, self.frame), Kind.FLAT, False, True, True)


class AudioFileSink(Stage):
    """Writes sound to a file.

    The file is complete and can be played however the execution ends, by an error or a cancellation too. One that is
    there already is replaced when the first sound comes.

    Args:
        name: name in the graph.
        path: the file; its name ends in `.wav`, `.flac`, `.ogg` or `.mp3`. Without soundfile it is WAV alone.

    Emits: controls.
    Holds: a quarter of a second of sound.
    Completes: with its input, when the file is closed. No sound, no file.
    Fails: with `StageError` where the file cannot be written, and where rate or channels of the sound change.
    """

    type: ClassVar[StageType] = StageType.SINK
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)

    path: _Path

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        path = Path(self.path)
        if not path.parent.is_dir():
            raise AudioFileError(f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}")
        writer: SoundWriter | None = None
        framer: Framer | None = None
        form = (0, 0)
        try:
            async for element in elements:
                audio = element.content
                if audio.__class__ is not Audio:
                    if element.is_control:
                        yield element
                    continue
                if writer is None:
                    form = (audio.sample_rate, audio.channels)
                    writer = open_writer(path, audio)
                elif form != (audio.sample_rate, audio.channels):
                    raise AudioFileError(
                        f"{str(path)!r} was begun with {form[1]} channel(s) of {form[0]} Hz, and now comes sound "
                        f"with {audio.channels} of {audio.sample_rate} Hz; put a ResampleStage before it"
                    )
                if framer is None or not framer.fits(audio):
                    if framer is not None and (rest := framer.rest()) is not None:
                        writer.write(rest)
                    framer = Framer(audio, _BLOCK)
                for piece in framer.cut(audio):
                    writer.write(piece)
        finally:
            if writer is not None:
                try:
                    if framer is not None and (rest := framer.rest()) is not None:
                        writer.write(rest)
                finally:
                    writer.close()
