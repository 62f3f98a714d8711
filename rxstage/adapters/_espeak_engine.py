"""The two ways to espeak-ng: its library in this process, or its program. One synthesis at a time."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

from msgspec import Struct

from rxstage.adapters._threads import EngineThreads, Making
from rxstage.errors import MissingExtra
from rxstage.ports.stt import SpeechError

__all__ = ["CHUNK", "RATE", "THREADS", "Engine", "Manner", "engine", "say"]

RATE: Final = 22_050  # of every voice that espeak-ng makes itself [Hz]
CHUNK: Final = 1_324  # samples of a chunk at most: 60 ms, as the library counts
THREADS: Final = EngineThreads("espeak", 1)  # the library keeps its state in variables of the process

_MOST: Final = 300 * RATE * 2  # bytes of one piece of text: minutes are asked for by SSML only
_PATIENCE: Final = 30.0  # seconds that the program may take
_SYNCHRONOUS: Final = 2
_BUFFER: Final = 60  # milliseconds
_NO_EXIT: Final = 0x8000
_UTF8, _SSML, _END_PAUSE = 1, 0x10, 0x1000
_SPEED, _VOLUME, _PITCH = 1, 2, 3
_CHARACTER: Final = 1  # the unit of a position
_OK: Final = 0


class Manner(Struct, frozen=True):
    """How it is said; see `EspeakTts`."""

    voice: str = "en-us"
    rate: int = 175
    pitch: int = 50
    volume: int = 100
    ssml: bool = False


class Engine(Protocol):
    """One way to espeak-ng; called on the one thread of `THREADS`."""

    def __call__(self, text: str, manner: Manner, give: Callable[[bytes], bool]) -> None:
        """Say a text; gives chunks of sound till `give` is False."""


def say(making: Making[bytes], program: str | None, text: str, manner: Manner) -> None:
    """Say a text, for `Making`."""
    if making.stopped:
        return
    left = _MOST

    def give(sound: bytes) -> bool:
        nonlocal left
        left -= len(sound)
        return making.give(sound) and left > 0

    engine(program)(text, manner, give)
    if left <= 0:
        raise SpeechError(
            f"one piece of text would sound for more than {_MOST // (RATE * 2)} s: {text[:80]!r}", engine="espeak"
        )


@cache  # one of each: the library has one callback in a process
def engine(program: str | None, /) -> Engine:
    """The library if it is there and no program is asked for, else the program.

    Raises:
        MissingExtra: there is neither.
        SpeechError: what there is cannot be used.
    """
    if program is None:
        try:
            return _Library(import_module("espeakng_loader"))
        except ImportError:
            program = "espeak-ng"
            if shutil.which(program) is None:
                raise MissingExtra(
                    "espeak needs the package 'espeakng-loader': pip install 'rxstage[espeak]', or the program "
                    "espeak-ng on the path: apt install espeak-ng"
                ) from None
    path = shutil.which(program)
    if path is None:
        raise SpeechError(f"there is no program {program!r} on the path", engine="espeak")
    return _Program(path)


class _Library:
    """libespeak-ng of the package `espeakng-loader`."""

    def __init__(self, loader: Any) -> None:
        data = os.fsencode(loader.get_data_path())
        try:
            self._library = library = ctypes.CDLL(loader.get_library_path())
        except OSError as error:
            raise SpeechError(f"the library of espeak-ng cannot be loaded: {error}", engine="espeak") from error
        rate = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER, data, _NO_EXIT)
        if rate != RATE:
            raise SpeechError(
                f"espeak does not start (it answers {rate}): its data are in {os.fsdecode(data)!r}, a path of "
                f"{len(data)} bytes, and more than about 150 it cannot take; EspeakTts(program='espeak-ng') runs the "
                f"program instead",
                engine="espeak",
            )
        self._give: Callable[[bytes], bool] = bool
        self._failed: BaseException | None = None
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # the library keeps only a pointer to it
        library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def __call__(self, text: str, manner: Manner, give: Callable[[bytes], bool]) -> None:
        library = self._library
        if manner.voice != self._voice:
            self._voice = ""
            if library.espeak_SetVoiceByName(os.fsencode(manner.voice)) != _OK:
                raise _no_voice(manner.voice)
            self._voice = manner.voice
        for parameter, value in ((_SPEED, manner.rate), (_VOLUME, manner.volume), (_PITCH, manner.pitch)):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        flags = _UTF8 | _END_PAUSE | (_SSML if manner.ssml else 0)
        self._give, self._failed = give, None
        status = library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _CHARACTER, 0, flags, None, None)
        self._give = bool
        if self._failed is not None:
            raise self._failed
        if status != _OK:
            raise SpeechError(f"espeak gives up on {text[:80]!r} (it answers {status})", engine="espeak")

    def _take(self, samples: int | None, count: int, events: int | None) -> int:
        """Called by the library with each chunk; 1 tells it to stop."""
        if not samples or count <= 0:
            return 0
        try:
            return 0 if self._give(ctypes.string_at(samples, 2 * count)) else 1
        except BaseException as error:  # it cannot pass through C
            self._failed = error
            return 1


class _Program:
    """The program `espeak-ng`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, text: str, manner: Manner, give: Callable[[bytes], bool]) -> None:
        how = {"-v": manner.voice, "-s": manner.rate, "-p": manner.pitch, "-a": manner.volume, "-b": 1}
        command = [self._path, "--stdin", "--stdout", *(str(word) for pair in how.items() for word in pair)]
        if manner.ssml:
            command.append("-m")
        no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0) if sys.platform == "win32" else 0
        try:
            done = subprocess.run(
                command,
                input=text.encode(),
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
                creationflags=no_window,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SpeechError(f"{self._path} cannot be run: {error}", engine="espeak", retryable=True) from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode:
            raise _no_voice(manner.voice) if "voice" in said else SpeechError(f"espeak-ng: {said}", engine="espeak")
        sound = done.stdout[44:]  # behind the header of a WAV file
        for begin in range(0, len(sound), 2 * CHUNK):
            if not give(sound[begin : begin + 2 * CHUNK]):
                return


def _no_voice(voice: str) -> SpeechError:
    return SpeechError(
        f"espeak has no voice {voice!r}; voices are languages such as 'en-us', 'de' and 'fr', and variants of them "
        f"such as 'en-us+f3'; 'espeak-ng --voices' lists them",
        engine="espeak",
    )
