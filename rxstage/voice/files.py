"""Sound in files: with soundfile (extra `audio`), and WAV of whole numbers without it too."""

from __future__ import annotations

import os
import wave
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from rxstage.content import Audio, AudioFormat
from rxstage.errors import MissingExtra, RxStageError, require
from rxstage.voice.pcm import audio_of, samples_of

__all__ = ["AudioFileError", "SoundReader", "SoundWriter", "open_reader", "open_writer"]

_T = TypeVar("_T")

_DTYPES: Final = {AudioFormat.PCM16: "int16", AudioFormat.PCM32: "int32", AudioFormat.FLOAT32: "float32"}
_READ_AS: Final = {
    "PCM_24": AudioFormat.PCM32,
    "PCM_32": AudioFormat.PCM32,
    "FLOAT": AudioFormat.FLOAT32,
    "DOUBLE": AudioFormat.FLOAT32,
}
_WRITTEN_AS: Final = {
    AudioFormat.PCM16: ("PCM_16",),
    AudioFormat.PCM32: ("PCM_32", "PCM_24"),
    AudioFormat.FLOAT32: ("FLOAT", "PCM_24"),
    AudioFormat.MULAW: ("ULAW", "PCM_16"),
}


class AudioFileError(RxStageError):
    """A file of sound cannot be read or written; the message says why."""


class SoundReader(ABC):
    """Reads a file, in the format that loses nothing of it; `sample_rate`, `channels` and `format` tell which."""

    sample_rate: int
    channels: int
    format: AudioFormat

    @abstractmethod
    def read(self, frames: int) -> bytes:
        """At most so many frames; fewer at the end, then none."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class SoundWriter(ABC):
    """Writes a file of one rate and number of channels."""

    @abstractmethod
    def write(self, audio: Audio) -> None:
        """Add sound of that rate and number of channels, in any format."""

    @abstractmethod
    def close(self) -> None:
        """Bring the header up to date and close the file."""


def open_reader(path: str | os.PathLike[str]) -> SoundReader:
    """Open a file to read.

    Raises:
        AudioFileError: there is no such file, or it cannot be read.
        MissingExtra: it is no WAV file, and soundfile is not installed.
    """
    if not os.path.isfile(path):
        raise AudioFileError(f"there is no file {os.fspath(path)!r}")
    return _opened(path, lambda: _File(path), lambda: _Wave(path))


def open_writer(path: str | os.PathLike[str], audio: Audio) -> SoundWriter:
    """Open a file to write sound of a form to, in the format that its name ends in; it is not written yet.

    Raises:
        AudioFileError: it cannot be written, or not in that form.
        MissingExtra: its name does not end in `.wav`, and soundfile is not installed.
    """
    return _opened(path, lambda: _FileWriter(path, audio), lambda: _WaveWriter(path, audio))


def _opened(path: str | os.PathLike[str], usual: Callable[[], _T], plain: Callable[[], _T]) -> _T:
    try:
        try:
            return usual()
        except MissingExtra:
            if not os.fspath(path).lower().endswith(".wav"):
                raise
            return plain()
    except (OSError, EOFError, RuntimeError, ValueError, wave.Error) as error:  # those of soundfile are RuntimeErrors
        why = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or "it is cut off"
        raise AudioFileError(f"{os.fspath(path)!r} cannot be opened as sound: {why}") from error


def _unseekable(file: Any) -> Any:
    """The file without the seek to where it stands that soundfile adds to all it does, of which MP3 is corrupted."""
    file.seekable = lambda: False
    return file


class _File(SoundReader):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = file = _unseekable(require("soundfile", "audio").SoundFile(os.fspath(path)))
        self.sample_rate, self.channels = file.samplerate, file.channels
        self.format = _READ_AS.get(file.subtype, AudioFormat.PCM16)
        self._width = self.format.width * self.channels

    def read(self, frames: int) -> bytes:
        block = bytearray(frames * self._width)
        count = self._file.buffer_read_into(block, dtype=_DTYPES[self.format])
        return bytes(block[: count * self._width])

    def close(self) -> None:
        self._file.close()


class _Wave(SoundReader):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = file = wave.open(os.fspath(path), "rb")  # noqa: SIM115
        self.sample_rate, self.channels = file.getframerate(), file.getnchannels()
        if (width := file.getsampwidth()) not in (2, 4):
            file.close()
            raise ValueError(f"samples of {width} bytes need soundfile: pip install 'rxstage[audio]'")
        self.format = AudioFormat.PCM16 if width == 2 else AudioFormat.PCM32
        self._width = width * self.channels

    def read(self, frames: int) -> bytes:
        data = self._file.readframes(frames)
        return data[: len(data) - len(data) % self._width]  # it may be cut within a frame

    def close(self) -> None:
        self._file.close()


class _FileWriter(SoundWriter):
    def __init__(self, path: str | os.PathLike[str], audio: Audio) -> None:
        soundfile = require("soundfile", "audio")
        format = Path(path).suffix[1:].upper()
        if format not in soundfile.available_formats():
            known = ", ".join(f".{each.lower()}" for each in ("WAV", "FLAC", "OGG", "MP3"))
            raise ValueError(f"{format.lower()!r} is no format that can be written; let its name end in one of {known}")
        subtypes = [each for each in _WRITTEN_AS[audio.format] if soundfile.check_format(format, each)]
        subtype = subtypes[0] if subtypes else soundfile.default_subtype(format)
        form = audio.sample_rate, audio.channels, subtype
        self._file = _unseekable(soundfile.SoundFile(os.fspath(path), "w", *form, format=format))

    def write(self, audio: Audio) -> None:
        if audio.format is AudioFormat.MULAW:
            audio = audio_of(samples_of(audio), audio.sample_rate)
        self._file.buffer_write(audio.samples, dtype=_DTYPES[audio.format])

    def close(self) -> None:
        self._file.close()


class _WaveWriter(SoundWriter):
    def __init__(self, path: str | os.PathLike[str], audio: Audio) -> None:
        self._format = AudioFormat.PCM32 if audio.format is AudioFormat.PCM32 else AudioFormat.PCM16
        self._file = wave.open(os.fspath(path), "wb")  # noqa: SIM115
        self._file.setnchannels(audio.channels)
        self._file.setsampwidth(self._format.width)
        self._file.setframerate(audio.sample_rate)

    def write(self, audio: Audio) -> None:
        if audio.format is not self._format:
            audio = audio_of(samples_of(audio), audio.sample_rate, self._format)
        self._file.writeframesraw(audio.samples)

    def close(self) -> None:
        self._file.close()
