"""Decodes a container whose bytes are pushed piece by piece, by a library that wants to pull them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any, Final

from rxstage.errors import require

__all__ = ["Demuxer"]

_LONGEST: Final = 30.0  # real seconds for one step: a frame is decoded in microseconds


class Demuxer:
    """Frames of a container, as far as its bytes have come.

    The library reads where it pleases, and cannot be told to come back later. So it runs on a thread of its own, which
    only ever runs while its caller waits, till it has made one frame or wants more bytes: no queue, and nothing ahead
    of its time.

    Args:
        format: of the container, as FFmpeg calls it. Nothing else is looked for in the bytes.
    """

    def __init__(self, format: str) -> None:
        self._av = require("av", "codecs")
        self._format = format
        self._bytes = io.BytesIO()
        self._ended = False
        self._over = False  # the thread makes nothing more
        self._closed = False
        self._hangs = False
        self._frame: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="rxstage: demuxer", daemon=True)
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)

    def feed(self, data: bytes) -> Iterator[Any]:
        """The frames that are complete with these bytes; the iterator is to be used up before the next call.

        Raises:
            av.error.FFmpegError: the bytes are broken.
            TimeoutError: the decoder hangs.
        """
        self._bytes = io.BytesIO(data)
        return self._frames()

    def end(self) -> Iterator[Any]:
        """The last frames: no more bytes will come. Raises as `feed` does."""
        self._ended = True
        return self._frames()

    def close(self) -> None:
        """Give it up."""
        if self._thread.ident is None:
            return
        self._closed = True
        if not self._over:
            self._go.release()
        if not self._hangs:
            self._thread.join(_LONGEST)

    def _frames(self) -> Iterator[Any]:
        if self._thread.ident is None:
            self._thread.start()
        while not self._over:
            self._go.release()
            if not self._back.acquire(timeout=_LONGEST):
                self._over = self._hangs = True
                raise TimeoutError(f"it took more than {_LONGEST:g} s to decode a piece")
            if self._error is not None:
                raise self._error
            if self._frame is None:
                return
            frame, self._frame = self._frame, None
            yield frame

    # ---------------------------------------------------------------- on its thread

    def _work(self) -> None:
        self._go.acquire()
        try:
            with self._av.open(self, "r", format=self._format) as container:
                for frame in container.decode(audio=0):
                    if self._closed:
                        break
                    self._frame = frame
                    self._wait()
        except BaseException as error:
            self._error = error
        finally:
            self._over = True
            self._back.release()

    def read(self, size: int) -> bytes:
        """What the library calls; it may call again after an error, so this raises none."""
        while not (data := self._bytes.read(size)) and not self._ended and not self._closed:
            self._wait()
        return data

    def _wait(self) -> None:
        """Let the caller run."""
        self._back.release()
        self._go.acquire()
