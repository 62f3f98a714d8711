"""Images and frames of video: smaller, and fewer of them."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from forms import FORMS, Form
from reactivex.subject import Subject

from rxstage import (
    Audio,
    Event,
    Image,
    MapStage,
    Message,
    Pipeline,
    PipelineConfig,
    StageError,
    StreamElement,
    Video,
)
from rxstage.conversation import PROMPT
from rxstage.stages.image import FrameRateStage, ImageError, ImageResizeStage
from rxstage.testing import check_stage, run_virtual

PIL = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.needs("module:PIL")


def picture(width: int, height: int, format: str = "PNG", mode: str = "RGB", **options: Any) -> Image:
    """Red on the left, blue on the right; encoded."""
    image = PIL.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, format, **options)
    return Image(buffer.getvalue(), PIL.MIME[format])


def frame(number: int) -> Video:
    return Video(bytes([number]), "image/jpeg")


def resized(content: Any, **options: Any) -> Any:
    (element,) = Pipeline.of(ImageResizeStage(**options)).run([content]).elements
    return element.content


# ------------------------------------------------------------------------------------------ ImageResizeStage


@pytest.mark.parametrize(
    ("size", "limits", "wanted"),
    [
        ((400, 100), (100, 100), (100, 25)),
        ((100, 400), (100, 100), (25, 100)),
        ((400, 100), (None, 50), (200, 50)),
        ((400, 100), (52, None), (52, 13)),
        ((400, 100), (300, 20), (80, 20)),
        ((2000, 3), (100, 100), (100, 1)),
    ],
)
def test_it_becomes_smaller_and_keeps_its_proportions(
    size: tuple[int, int], limits: Any, wanted: tuple[int, int]
) -> None:
    """It fits into the box, as large as its proportions let it be, and says its size; left is left."""
    result = resized(picture(*size), width=limits[0], height=limits[1])
    assert (result.size, result.to_pil().size, result.mime_type) == (wanted, wanted, "image/png")
    assert result.to_pil().convert("RGB").getpixel((0, 0))[0] > 200
    assert result.to_pil().convert("RGB").getpixel((wanted[0] - 1, 0))[2] > 200


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_formats(format: str) -> None:
    """Each format stays what it is, or becomes what is wanted."""
    assert resized(picture(300, 200, format), width=90).to_pil().format == format
    for wanted in ("image/png", "image/jpeg", "image/webp", "image/gif"):
        result = resized(picture(300, 200, format), width=90, mime_type=wanted)
        assert (result.mime_type, PIL.MIME[result.to_pil().format], result.size) == (wanted, wanted, (90, 60))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("mime_type", [None, "image/png", "image/jpeg", "image/webp"])
def test_modes(mode: str, mime_type: Any) -> None:
    """Palettes, transparency, grey and CMYK go into every format that is wanted."""
    source = picture(64, 32, "TIFF" if mode == "CMYK" else "PNG", mode)
    assert resized(source, width=32, mime_type=mime_type).to_pil().size == (32, 16)


def test_what_is_transparent_becomes_white_in_jpeg() -> None:
    """Not black, as the hidden colour would be."""
    buffer = io.BytesIO()
    PIL.new("RGBA", (40, 40), (0, 0, 0, 0)).save(buffer, "PNG")
    result = resized(Image(buffer.getvalue()), mime_type="image/jpeg")
    assert result.to_pil().getpixel((20, 20)) == (255, 255, 255)


def test_what_fits_goes_on_as_it_is() -> None:
    """Neither decoded nor encoded anew: the element itself goes on, up to the limit."""
    for source in (picture(100, 50), Video(picture(100, 50).data, "image/png"), Video(b"clip", "video/mp4")):
        element = StreamElement.of(source)
        (result,) = Pipeline.of(ImageResizeStage(width=100, height=50)).run([element]).elements
        assert result.content is source


def test_one_that_lies_on_its_side_is_set_upright() -> None:
    """A telephone's EXIF orientation is followed, in the box too, and gone afterwards."""
    exif = PIL.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    result = resized(picture(400, 200, "JPEG", exif=exif), width=100, height=100)
    upright = result.to_pil()
    assert result.size == upright.size == (50, 100)
    assert upright.getexif().get(0x0112, 1) == 1
    top, bottom = upright.getpixel((25, 5)), upright.getpixel((25, 95))
    assert (top[0] > 200, bottom[2] > 200) == (True, True)
    assert resized(picture(40, 20, "JPEG", exif=exif)).size == (20, 40)


def test_a_frame_of_video_stays_one() -> None:
    """A `Video` that is one image becomes smaller and stays a `Video`."""
    result = resized(Video(picture(400, 200, "JPEG").data, "image/jpeg", 400, 200), width=100)
    assert (type(result), result.size, result.mime_type) == (Video, (100, 50), "image/jpeg")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "none of them"),
        (b"<html>not found</html>", "none of them"),
        (picture(300, 300).data[:200], "image file is truncated|truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of them"),
    ],
)
def test_what_is_no_image(data: bytes, why: str) -> None:
    """Broken, cut and foreign bytes end in an error that says what can be read; no program is started for any."""
    with pytest.raises(StageError) as caught:
        resized(Image(data), width=10)
    assert isinstance(caught.value.__cause__, ImageError)
    assert "cannot be read as an image, one of PNG, JPEG, WEBP, GIF, BMP, TIFF" in str(caught.value.__cause__)
    assert any(each in str(caught.value.__cause__) for each in why.split("|"))


def test_bytes_at_random() -> None:
    """Whatever is damaged in an image, it is an image or an `ImageError`."""
    chance, outcomes = random.Random(5), set()
    for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = picture(60, 40, format).data
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            stage = ImageResizeStage(width=30, on_error="emit", max_pixels=100_000)
            (element,) = Pipeline.of(stage).run([Image(bytes(data))]).elements
            outcomes.add(type(element.failure.error if element.failure else element.content))
    assert outcomes == {Image, ImageError}


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (9500, 9500), (20_000, 20_000)])
def test_a_decompression_bomb_is_refused(width: int, height: int) -> None:
    """One that would take much memory is not decoded, however few bytes it has, and the error names the remedy."""
    buffer = io.BytesIO()
    PIL.new("1", (width, height)).save(buffer, "PNG")
    with pytest.raises(StageError) as caught:
        resized(Image(buffer.getvalue()), max_pixels=1_000_000)
    assert "the image is not decoded, as " in str(caught.value.__cause__)
    assert "at most 1000000 are allowed by max_pixels" in str(caught.value.__cause__)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_it_works_in_every_form(form: Form) -> None:
    """On a thread, several at once, in order, however the pipeline is run."""
    stage = ImageResizeStage(width=20, concurrency=3)
    elements, error = form(Pipeline.of(stage), [picture(40, 40), "text", picture(100, 30), picture(10, 10)])
    assert error is None
    shown = [each.image.to_pil().size if each.image else each.text for each in elements]
    assert shown == [(20, 20), "text", (20, 6), (10, 10)]


def test_laws_of_resizing() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: ImageResizeStage(width=20), [picture(40, 40), picture(10, 10), Video(b"clip", "video/mp4")])


# ------------------------------------------------------------------------------------------ FrameRateStage


def at_times(*items: tuple[float, Any]) -> Callable[[], AsyncIterator[Any]]:
    """A source whose items come at those times [s]."""

    async def source() -> AsyncIterator[Any]:
        now = 0.0
        for time, item in items:
            await asyncio.sleep(time - now)
            now = time
            yield item

    return source


def watched(stage: Any, source: Callable[[], Any], **config: Any) -> tuple[list[tuple[float, Any]], list[int]]:
    """What came when, in virtual time, and the counts of dropped frames that were told."""

    async def main() -> tuple[list[tuple[float, Any]], list[int]]:
        pipeline = Pipeline.of(stage, config=PipelineConfig(**config))
        drops: list[int] = []
        pipeline.events.subscribe(lambda event: drops.append(_count(event)) if event.type == "frame.dropped" else None)
        came: list[tuple[float, Any]] = []
        async for element in pipeline.execute(source()):
            shown = element.video.data[0] if element.video else element.text or type(element.content).__name__
            came.append((round(asyncio.get_running_loop().time(), 4), shown))
        return came, drops

    return run_virtual(main)


def _count(event: Event) -> int:
    count: int = event.data["dropped"]
    return count


def test_the_rate_is_kept_with_the_latest() -> None:
    """Of thirty frames a second ten go on: each a tenth of a second after the one before, and the newest there is."""
    came, drops = watched(FrameRateStage(rate=10), at_times(*((number / 30, frame(number)) for number in range(30))))
    times = [time for time, _ in came[:-1]]  # the last one comes with the end of the stream
    assert times == pytest.approx([number / 10 for number in range(10)], abs=1e-3)
    assert all(0 <= time * 30 - number < 1.01 for time, number in came)
    assert came[-1][1] == 29
    assert drops == list(range(1, 31 - len(came)))


def test_a_slow_camera_loses_nothing() -> None:
    """Frames that come more slowly than the rate go on when they come."""
    camera = at_times(*((number * 0.25, frame(number)) for number in range(5)))
    assert watched(FrameRateStage(rate=5), camera) == ([(number * 0.25, number) for number in range(5)], [])


def test_the_last_frame_comes_when_its_time_has_come() -> None:
    """A camera that stops, with the stream open, has its last frame seen."""
    camera = at_times((0.0, frame(1)), (0.1, frame(2)), (0.2, frame(3)), (60.0, "much later"))
    came, drops = watched(FrameRateStage(rate=1), camera)
    assert came == [(0.0, 1), (1.0, 3), (60.0, "much later")]
    assert drops == [1]


def test_a_turn_has_its_picture() -> None:
    """The frame that waits goes on before the end of the turn and before a message of the user, not before a prompt."""
    prompt = StreamElement.of(Message.system("see"), metadata={PROMPT: True})
    source = at_times(
        (0.0, frame(1)),
        (0.1, frame(2)),
        (0.2, Message.user("What is this?")),
        (0.3, frame(3)),
        (0.4, prompt),
        (0.5, StreamElement.end_of_turn()),
    )
    came, _ = watched(FrameRateStage(rate=1), source)
    assert came == [(0.0, 1), (0.2, 2), (0.2, "Message"), (0.4, "Message"), (0.5, 3), (0.5, "EndOfTurn")]


def test_an_interrupt_takes_the_frame_away() -> None:
    """What waits belongs to the interrupted turn; the next frame is on time."""
    source = at_times((0.0, frame(1)), (0.1, frame(2)), (0.2, StreamElement.interrupt()), (0.3, frame(3)), (9.0, "end"))
    came, _ = watched(FrameRateStage(rate=1), source)
    assert came == [(0.0, 1), (0.2, "Interrupt"), (1.0, 3), (9.0, "end")]


def test_sound_and_text_do_not_wait() -> None:
    """Only frames are held back."""
    source = at_times((0.0, frame(1)), (0.1, frame(2)), (0.11, Audio(bytes(320), 16_000)), (0.12, "hello"))
    came, _ = watched(FrameRateStage(rate=1), source)
    assert came == [(0.0, 1), (0.11, "Audio"), (0.12, "hello"), (0.12, 2)]


def test_behind_a_slow_consumer_the_picture_is_fresh() -> None:
    """After a second in which nothing was taken, the newest of the frames that wait goes on, not the oldest."""

    async def main() -> list[float]:
        camera: Subject[Video] = Subject()
        loop = asyncio.get_running_loop()
        for number in range(100):  # twenty a second, whoever looks
            loop.call_later(number / 20, camera.on_next, frame(number))
        loop.call_later(5.0, camera.on_completed)
        ages: list[float] = []

        async def look(element: StreamElement) -> StreamElement:
            assert element.video is not None
            ages.append(loop.time() - element.video.data[0] / 20)
            await asyncio.sleep(1.0)
            return element

        stages = FrameRateStage(rate=10), MapStage("look", look)
        await Pipeline.of(*stages, config=PipelineConfig(buffer_size=1)).execute(camera)
        return ages

    ages = run_virtual(main)
    assert len(ages) > 4
    assert max(ages) < 1.06  # one more waits in front of who looks, for as long as that takes


def test_an_edge_that_drops_does_not_stop_it() -> None:
    """Where the edge before it keeps only the latest element, frames still come."""
    camera = at_times(*((number / 100, frame(number)) for number in range(200)))
    came, _ = watched(FrameRateStage(rate=10), camera, overflow="latest", buffer_size=1)
    assert 16 <= len(came) <= 21


def test_a_rate_has_to_be_one() -> None:
    """Nothing and less are refused."""
    for rate in (0.0, -1.0):
        with pytest.raises(ValueError, match="greater than 0"):
            FrameRateStage(rate=rate)


def test_laws_of_the_frame_rate() -> None:
    """It keeps the laws of a stage; messages between the frames, as in virtual time all of a source comes at once."""
    check_stage(lambda: FrameRateStage(rate=10), [frame(1), Message.user("a"), frame(2), Message.user("b")])
