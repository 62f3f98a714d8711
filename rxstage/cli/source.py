"""What a command reads: a file or standard input, lines of text or frames of a WAV file."""

from __future__ import annotations

import io
import os
import stat
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rxstage.cli.command import CommandError
from rxstage.content import Audio
from rxstage.element import StreamElement

__all__ = ["FRAME", "Input", "open_input", "piped"]

FRAME: Final = 0.02  # seconds of sound in one element
_SIGN: Final = bytes(byte ^ 0x80 for byte in range(256))  # 8-bit samples are unsigned, all others signed


class Input:
    """Something to read; a context manager that closes it.

    Attributes:
        kind: `"text"` or `"wav"`.
        source: lines, or `Audio` elements of 20 ms with their `start` [s] in the metadata.
        name: what to call it.
        base: directory that relative names in it refer to, if there is one.
        live: whether reading it can take for ever: it is then read on a thread, and left to it.
    """

    def __init__(self, binary: Any, name: str, base: Path | None, *, live: bool = False) -> None:
        self.name, self.base, self.live = name, base, live
        self._file = binary
        head = binary.peek(12)[:12]
        if head[:4] == b"RIFF" and b"WAVE".startswith(head[8:12]):
            self.kind = "wav"
            self.source: Iterator[Any] = _frames(self._wave())
        else:
            self.kind = "text"
            self._file = text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace")
            self.source = (line.rstrip("\r\n") for line in text)

    def _wave(self) -> wave.Wave_read:
        try:
            return wave.open(self._file, "rb")
        except (wave.Error, EOFError) as error:
            self.__exit__()
            why = str(error) or "it ends in its header"
            told = f"{self.name} is no WAV file that can be read ({why}); convert it to PCM of 16 bits"
            raise CommandError(told) from error

    @property
    def subscribe_on(self) -> str:
        """Where an execution is to read it."""
        return "thread" if self.live else "loop"

    def __enter__(self) -> Input:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.live:  # a thread that waits in it holds its lock
            self._file.close()


def piped() -> bool:
    """Whether standard input is a pipe, socket or file: no terminal, and not nothing."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # no file of the system's
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def open_input(path: str | None) -> Input:
    """Open a file, or standard input where `path` is None or `-`.

    Raises:
        CommandError: it cannot be read, or is a WAV file that is broken or not PCM.
    """
    if path is None or path == "-":
        binary: Any
        try:  # a reader of our own: nobody else's is closed or waited for
            binary = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
        except (OSError, ValueError):  # no file of the system's
            binary = io.BufferedReader(sys.stdin.buffer)
        return Input(binary, "<stdin>", Path.cwd(), live=True)
    if os.path.isdir(path):
        raise CommandError(f"{path} is a directory; name a file in it")
    try:
        binary = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    return Input(binary, path, Path(path).absolute().parent)


def _frames(reader: wave.Wave_read) -> Iterator[StreamElement]:
    rate, channels, width = reader.getframerate(), reader.getnchannels(), reader.getsampwidth()
    step = max(round(rate * FRAME), 1)
    frame = 0
    while samples := reader.readframes(step):
        samples = samples[: len(samples) - len(samples) % (width * channels)]  # a file cut within a frame
        if not samples:
            return
        audio = Audio(_pcm16(samples, width), rate, channels)
        yield StreamElement.of(audio, metadata={"start": frame / rate})
        frame += audio.frames


def _pcm16(samples: bytes, width: int) -> bytes:
    """Samples of 1 to 4 bytes as 16-bit ones: their two highest bytes."""
    if width == 2:
        return samples
    result = bytearray(len(samples) // width * 2)
    if width == 1:
        result[1::2] = samples.translate(_SIGN)
    else:
        result[0::2] = samples[width - 2 :: width]
        result[1::2] = samples[width - 1 :: width]
    return bytes(result)
