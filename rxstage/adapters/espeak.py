"""Speech without a network: espeak-ng, as a library from PyPI (extra `espeak`)."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import deque
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, Final

from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.stt import SpeechError
from rxstage.ports.tts import Tts

__all__ = ["EspeakTts"]

_CHUNK: Final = 60  # ms of sound that the library makes at a time
_AHEAD: Final = 16  # chunks that may wait to be taken
_RETRIEVE, _UTF8, _RATE, _PITCH = 2, 1, 1, 3  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8, espeakRATE, espeakPITCH
_LOCK: Final = threading.Lock()  # the library has one voice at a time in a process


class EspeakTts(Tts):
    """Speaks with espeak-ng: a robot's voice, in a hundred languages, in milliseconds.

    One text is spoken at a time in a process; others wait for their turn. espeak-ng is licensed under the GPL 3.

    Args:
        voice: name of a voice or a language: `"en"`, `"en-us"`, `"de"`.
        rate: words per minute, 80 to 450.
        pitch: 0 to 99.

    Raises:
        ValueError: rate or pitch is out of range.
    """

    name = "espeak"
    sample_rate = 22_050

    def __init__(self, voice: str = "en", *, rate: int = 165, pitch: int = 50) -> None:
        if not 80 <= rate <= 450 or not 0 <= pitch <= 99:
            raise ValueError(f"espeak speaks 80 to 450 words per minute at a pitch of 0 to 99, got {rate!r}, {pitch!r}")
        self.voice, self.rate, self.pitch = voice, rate, pitch

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text, in pieces of 60 ms as it is made."""
        if not text.strip("\0 \t\r\n"):
            return
        job = _Job(asyncio.get_running_loop())
        thread = threading.Thread(target=job.run, args=(self, text), name="rxstage-espeak", daemon=True)
        thread.start()
        try:
            while (piece := await job.next()) is not None:
                yield Audio(piece, self.sample_rate)
        finally:
            job.stop()


class _Job:
    """One text on its way from the library's thread to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._arrived = asyncio.Event()
        self._stopped = threading.Event()
        self._over = False
        self._error: BaseException | None = None

    async def next(self) -> bytes | None:
        """The next piece; None at the end."""
        while not self._pieces:
            if self._over:
                if self._error is not None:
                    raise self._error
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._room.release()
        return self._pieces.popleft()

    def stop(self) -> None:
        """Nobody takes what still comes: the library stops within a piece."""
        self._stopped.set()
        self._room.release()

    def run(self, tts: EspeakTts, text: str) -> None:
        """Speak, on a thread of its own."""
        try:
            with _LOCK:
                if not self._stopped.is_set():
                    _library().speak(tts, text, self._piece)
        except BaseException as error:
            self._error = error
        self._tell(self._end)

    def _piece(self, piece: bytes) -> bool:
        """Hand a piece to the loop; tells whether to go on."""
        self._room.acquire()
        if self._stopped.is_set():
            return False
        self._tell(self._arrive, piece)
        return not self._stopped.is_set()

    def _arrive(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._arrived.set()

    def _end(self) -> None:
        self._over = True
        self._arrived.set()

    def _tell(self, function: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has been closed
            self._stopped.set()


class _Library:
    """The library, initialised once in a process; used by whoever holds the lock."""

    def __init__(self) -> None:
        loader = require("espeakng_loader", "espeak")
        self._lib = lib = ctypes.CDLL(loader.get_library_path())
        rate = lib.espeak_Initialize(_RETRIEVE, _CHUNK, str(loader.get_data_path()).encode(), 0)
        if rate != EspeakTts.sample_rate:
            raise SpeechError(f"espeak-ng could not be started: it answered {rate}", engine="espeak")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._made)  # kept: the library calls it as long as it lives
        lib.espeak_SetSynthCallback(self._callback)
        self._take: Any = None

    def _made(self, samples: Any, count: int, events: Any) -> int:
        if not samples or count <= 0:
            return 0
        return 0 if self._take(ctypes.string_at(samples, count * 2)) else 1

    def speak(self, tts: EspeakTts, text: str, take: Any) -> None:
        lib, self._take = self._lib, take
        if lib.espeak_SetVoiceByName(tts.voice.encode()):
            raise SpeechError(
                f"espeak-ng has no voice {tts.voice!r}; name a language such as 'en-us', 'de' or 'fr'", engine="espeak"
            )
        lib.espeak_SetParameter(_RATE, tts.rate, 0)
        lib.espeak_SetParameter(_PITCH, tts.pitch, 0)
        data = text.replace("\0", " ").encode("utf-8", "replace")
        lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()
