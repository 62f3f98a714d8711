"""Images and frames of video: smaller, and fewer of them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, Data, Image, Interrupt, Video
from rxstage.conversation import ends_turn
from rxstage.element import StreamElement
from rxstage.errors import RxStageError, require
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

__all__ = ["FrameRateStage", "ImageError", "ImageResizeStage"]

_FORMATS: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
_READ: Final = (*_FORMATS.values(), "BMP", "TIFF")  # no others are tried: some of them start programs
_ORIENTATION: Final = 0x0112  # of EXIF; from 5 on the image lies on its side
_TICK: Final = object()
_JUST: Final = 1e-6  # seconds by which a timer may be early


class ImageError(RxStageError):
    """An image cannot be read, or is too large to be."""


class ImageResizeStage(Stage):
    """Makes images and single frames of video smaller, with their proportions kept. None is made larger.

    What fits already goes on as it is. One that lies on its side by its EXIF data is set upright, and other EXIF data
    is gone. Of an animation the first frame is taken. `Video` that is no single image passes by.

    Args:
        name: name in the graph.
        width: pixels across that it may have; None: any.
        height: pixels down that it may have; None: any.
        mime_type: what it becomes; None: what it is.
        quality: of JPEG and WebP, 1 to 95.
        max_pixels: an image with more is refused before it is decoded, whatever its bytes are.
        blocking: work on a thread; with `concurrency` on several.

    Emits: one element for each.
    Holds: as `MapStage`; memory for the pixels of one image, about 4 bytes each.
    Completes: with its input, once its work is done.
    Fails: with `StageError` where an image is broken or too large, or Pillow is not installed (extra `image`), unless
        `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Image, Video)
    emits: ClassVar[tuple[Any, ...]] = (Image, Video)

    width: int | None = Field(default=1024, gt=0)
    height: int | None = Field(default=1024, gt=0)
    mime_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"] | None = None
    quality: int = Field(default=85, ge=1, le=95)
    max_pixels: int = Field(default=50_000_000, gt=0)
    blocking: bool = True

    def apply(self, element: StreamElement) -> StreamElement:
        content: Image | Video = element.content
        if content.__class__ is Video and not content.mime_type.startswith("image/"):
            return element
        pil = require("PIL.Image", "image")
        try:
            smaller = self._resized(pil, content)
        except ImageError:
            raise
        except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:  # Pillow's own bound
            raise self._too_large(str(error)) from error
        except Exception as error:  # what a decoder raises on broken bytes is anything
            what = (
                "none of them" if isinstance(error, pil.UnidentifiedImageError) else str(error) or type(error).__name__
            )
            known = ", ".join(_READ)
            raise ImageError(
                f"{len(content.data)} bytes of {content.mime_type!r} cannot be read as an image, one of {known} "
                f"({what}); send the whole of it"
            ) from error
        return element if smaller is None else element.replace(content=smaller)

    def _resized(self, pil: Any, content: Image | Video) -> Image | Video | None:
        """The image as it is wanted; None where it is so already."""
        image: PilImage = pil.open(io.BytesIO(content.data), formats=_READ)
        width, height = image.size
        if width * height > self.max_pixels:
            raise self._too_large(f"it has {width} x {height} pixels")
        turned = image.getexif().get(_ORIENTATION, 1)
        across, down = (self.height, self.width) if turned >= 5 else (self.width, self.height)
        box = across or width, down or height
        format = _FORMATS.get(self.mime_type or "") or image.format or "PNG"
        if turned <= 1 and width <= box[0] and height <= box[1] and format == image.format:
            return None
        if image.mode in ("P", "1"):  # colours of a palette cannot be averaged
            image = image.convert("RGBA")
        image.thumbnail(box, reducing_gap=2.0)
        image = require("PIL.ImageOps", "image").exif_transpose(image)
        if format == "JPEG":
            image = image if image.mode in ("RGB", "L", "CMYK") else _on_white(pil, image)
        elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, format=format, quality=self.quality)
        mime_type = pil.MIME.get(format, f"image/{format.lower()}")
        return content.__class__(buffer.getvalue(), mime_type, image.width, image.height)

    def _too_large(self, what: str) -> ImageError:
        return ImageError(f"the image is not decoded, as {what}; at most {self.max_pixels} are allowed by max_pixels")


def _on_white(pil: Any, image: PilImage) -> PilImage:
    """What is transparent becomes white."""
    image = image.convert("RGBA")
    white: PilImage = pil.new("RGBA", image.size, "white")
    return pil.alpha_composite(white, image).convert("RGB")  # type: ignore[no-any-return]


class FrameRateStage(Stage):
    """Lets only so many images and frames of video a second go on, and of the others the latest.

    A frame waits till its time has come, and one that comes meanwhile takes its place. One that waits at the end of a
    turn goes on before that, so that what is said about a picture finds it. An event `frame.dropped` tells how many
    have been dropped so far.

    Args:
        name: name in the graph.
        rate: frames a second on the clock of the execution.

    Emits: `Video` and `Image` when their time comes; everything else at once.
    Holds: one frame.
    Completes: with its input, when the frame that waits has gone on.
    Fails: never.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Video, Image)
    emits: ClassVar[tuple[Any, ...]] = (Video, Image)

    rate: float = Field(gt=0)

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """That of what comes in."""
        return incoming

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        loop, interval = asyncio.get_running_loop(), 1.0 / self.rate
        latest: StreamElement | None = None
        newer = False  # one has come since the last tick
        due = context.now()
        timer: asyncio.TimerHandle | None = None
        dropped = 0
        try:
            async for element in elements:
                kind, now = element.content.__class__, context.now()
                frame = kind is Video or kind is Image
                ticks = kind is Data and element.content.value is _TICK
                passed = now >= due - _JUST and not frame and kind is not Audio
                if ticks:
                    timer = None
                    if newer and now < due + interval / 4:
                        passed, newer = False, False  # more may be on their way: one of those is the latest
                elif kind is Interrupt:
                    latest = None
                if latest is not None and (passed or ends_turn(element)):
                    yield latest  # which may take long
                    due, latest = max(now + interval, context.now()), None
                if frame:
                    if latest is not None:
                        dropped += 1
                        context.emit_event("frame.dropped", dropped=dropped)
                    latest, newer = element, True
                elif not ticks:
                    yield element
                # An edge that drops may have dropped the tick.
                now = context.now()
                if latest is not None and (timer is None or now - timer.when() > interval / 4):
                    timer = loop.call_later(max(due - now, 0.0), _tick, context)
            if latest is not None:
                yield latest
        finally:
            if timer is not None:
                timer.cancel()


def _tick(context: StageContext) -> None:
    with suppress(RxStageError):  # the input has ended
        context.post(StreamElement(Data(_TICK), priority=Priority.CRITICAL))
