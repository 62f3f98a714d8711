"""The port to stores of media: what is kept there, and what stands in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import Struct

from rxstage.ports.store import StoreError
from rxstage.wire import register

__all__ = ["MediaNotFound", "MediaReference", "MediaStore", "MediaStoreFull"]


class MediaReference(Struct, frozen=True, kw_only=True):
    """Stands for an image, a piece of audio or a video that lies in a store. It has a wire form.

    Attributes:
        id: by which the store knows it.
        kind: `"image"`, `"audio"` or `"video"`.
        size: bytes that it has.
        mime_type: of an image or a video.
        width: in pixels; 0 where that is unknown.
        height: in pixels; 0 where that is unknown.
        duration: of a video, in seconds; 0 where that is unknown.
        sample_rate: of audio [Hz].
        channels: of audio.
        format: of the samples of audio, as in `AudioFormat`.
    """

    id: str
    kind: str
    size: int
    mime_type: str = ""
    width: int = 0
    height: int = 0
    duration: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    format: str = ""

    def __str__(self) -> str:
        return f"[{self.kind} {self.id[:12]}, {self.size} bytes]"


register(MediaReference, "rxstage.MediaReference")


class MediaNotFound(StoreError):
    """A store has nothing of that id, or what it has is not what was put there."""


class MediaStoreFull(StoreError):
    """A store has no room for what is to be put there."""


class MediaStore(ABC):
    """Keeps bytes by an id that it gives them. One object serves any number of executions at once, on any loop."""

    @abstractmethod
    async def put(self, data: bytes) -> str:
        """Keep bytes, and give their id; the same bytes may get the same one.

        Raises:
            MediaStoreFull: there is no room.
            StoreError: it could not be done.
        """

    @abstractmethod
    async def get(self, id: str) -> bytes:
        """The bytes of an id.

        Raises:
            MediaNotFound: there are none.
            StoreError: it could not be done.
        """

    @abstractmethod
    async def delete(self, id: str) -> bool:
        """Forget the bytes of an id; tells whether there were some."""
