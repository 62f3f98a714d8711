"""What an element can carry: each kind, its checks, and how bare values become contents."""

from __future__ import annotations

import copy
import pickle
import sys
from collections import deque
from enum import Enum, StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from rxstage.content import (
    CONTENT_KINDS,
    CONTROL_KINDS,
    Audio,
    AudioFormat,
    Control,
    Data,
    EndOfStream,
    EndOfTurn,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    Video,
    content_of,
    payload_of,
)
from rxstage.errors import MissingExtra

CONTENTS = [
    Text("hi"),
    Audio(b"\0\1", 16000),
    Image(b"png", width=2, height=3),
    Video(b"mp4", duration=1.5),
    Message.user("hi", Image(b"png")),
    ToolCall("add", {"a": 1}, "call-1"),
    ToolResult("call-1", 3, "add"),
    Parts(("a", Audio(b"\0\1", 16000))),
    Data([1, 2]),
    EndOfTurn(),
    Interrupt("barge-in"),
    EndOfStream(),
]


def kind(content: Any) -> str:
    return type(content).__name__


def test_kinds_are_told_apart() -> None:
    """Content and control kinds have nothing in common, and controls are known by their base."""
    assert not CONTENT_KINDS & CONTROL_KINDS
    assert {Failure, EndOfTurn, Interrupt, EndOfStream} == CONTROL_KINDS
    assert all(issubclass(cls, Control) for cls in CONTROL_KINDS)
    assert not any(issubclass(cls, Control) for cls in CONTENT_KINDS)
    assert {type(content) for content in CONTENTS} | {Failure} == CONTENT_KINDS | CONTROL_KINDS


@pytest.mark.parametrize("content", CONTENTS, ids=kind)
def test_contents_pickle_and_copy(content: Any) -> None:
    """Every kind comes back equal and of the same class from pickle and from copies."""
    for again in (pickle.loads(pickle.dumps(content)), copy.copy(content), copy.deepcopy(content)):
        assert type(again) is type(content)
        assert again == content


@pytest.mark.parametrize("content", [c for c in CONTENTS if c.__struct_fields__], ids=kind)
def test_contents_are_frozen(content: Any) -> None:
    """No field of a content can be set, so a fan-out can share it."""
    for field in content.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(content, field, None)


def test_contents_match_by_position() -> None:
    """A `match` statement takes a content apart."""
    match content_of("hi"):
        case Text(text):
            assert text == "hi"
        case other:
            pytest.fail(f"matched {other!r}")


# --- audio ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"", 0), r"above 0 Hz, got 0"),
        ((b"", -1), r"above 0 Hz, got -1"),
        ((b"", 16000, 0), r"at least 1, got 0"),
        ((b"\0", 16000), r"1 bytes, no whole number of 2-byte frames \(1 channel\(s\) of pcm16\)"),
        ((b"\0\0", 16000, 2), r"2 bytes, no whole number of 4-byte frames \(2 channel"),
        ((b"\0\0", 16000, 1, AudioFormat.FLOAT32), r"4-byte frames"),
        ((b"", 16000, 1, "mp3"), r"'mp3' is not a valid AudioFormat"),
    ],
    ids=["rate-0", "rate-negative", "channels", "half-sample", "half-frame", "float", "format"],
)
def test_bad_audio_is_refused(arguments: Any, message: str) -> None:
    """Audio that cannot be played is an error that names the value."""
    with pytest.raises(ValueError, match=message):
        Audio(*arguments)


@pytest.mark.parametrize("samples", ["text", 8, None], ids=["str", "int", "none"])
def test_samples_are_bytes(samples: Any) -> None:
    """What is no buffer is no audio, and a number does not become that many zeros."""
    with pytest.raises(TypeError):
        Audio(samples, 16000)


@pytest.mark.parametrize(
    "samples", [bytearray(b"\1\0\2\0"), memoryview(b"\1\0\2\0"), np.array([1, 2], "<i2")], ids=kind
)
def test_other_buffers_are_copied(samples: Any) -> None:
    """A mutable buffer becomes bytes, so that what is shared cannot change."""
    audio = Audio(samples, 16000)
    assert audio.samples == b"\1\0\2\0"
    assert type(audio.samples) is bytes
    assert audio == Audio(b"\1\0\2\0", 16000)


def test_bytes_are_not_copied() -> None:
    """Samples that are bytes are held as they are."""
    samples = bytes(640)
    assert Audio(samples, 16000).samples is samples


def test_format_by_value() -> None:
    """A format may be given by its value and is an `AudioFormat` afterwards."""
    audio = Audio(bytes(8), 8000, 2, "float32")  # type: ignore[arg-type]
    assert audio.format is AudioFormat.FLOAT32
    assert audio.frames == 1


@pytest.mark.parametrize(
    ("format", "width", "dtype"),
    [
        (AudioFormat.PCM16, 2, "<i2"),
        (AudioFormat.PCM32, 4, "<i4"),
        (AudioFormat.FLOAT32, 4, "<f4"),
        (AudioFormat.MULAW, 1, "u1"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_audio_length_and_samples(format: AudioFormat, width: int, dtype: str, channels: int) -> None:
    """Frames, duration and array follow from the bytes per sample and the channels."""
    values = np.arange(80 * channels).astype(dtype).reshape(80, channels)
    audio = Audio(values.tobytes(), 8000, channels, format)
    assert format.width == width
    assert audio.frames == 80
    assert audio.duration == 0.01
    assert audio.numpy().dtype == np.dtype(dtype)
    assert np.array_equal(audio.numpy(), values)


def test_audio_array_is_a_view() -> None:
    """The array shares the memory of the samples and cannot be written to."""
    audio = Audio(b"\1\0\2\0", 16000)
    array = audio.numpy()
    assert not array.flags.writeable
    assert np.shares_memory(array, np.frombuffer(audio.samples, "<i2"))


def test_empty_audio() -> None:
    """No samples are audio of no length."""
    audio = Audio(b"", 16000, 2)
    assert (audio.frames, audio.duration, audio.numpy().shape) == (0, 0.0, (0, 2))


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "mime_type"),
    [
        ("PNG", "image/png"),
        ("png", "image/png"),
        ("BMP", "image/bmp"),
        ("JPEG2000", "image/jp2"),
        ("ICO", "image/x-icon"),
    ],
)
def test_image_from_pillow(format: str, mime_type: str) -> None:
    """An image is encoded in the format asked for, with its registered MIME type, and decodes to the same pixels."""
    picture = Pillow.new("RGB", (16, 16), (10, 20, 30))
    image = Image.from_pil(picture, format)
    assert (image.mime_type, image.size) == (mime_type, (16, 16))
    assert image.to_pil().convert("RGB").getpixel((15, 0)) == (10, 20, 30)


def test_video_frame_from_pillow() -> None:
    """A single frame of video is an encoded image, JPEG by default."""
    frame = Video.from_pil(Pillow.new("RGB", (8, 4)))
    assert (frame.mime_type, frame.size, frame.duration) == ("image/jpeg", (8, 4), 0.0)
    assert frame.to_pil().size == (8, 4)


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("numpy", "audio", lambda: Audio(b"", 16000).numpy()),
        ("PIL.Image", "image", lambda: Image(b"").to_pil()),
        ("PIL.Image", "image", lambda: Video(b"", "image/png").to_pil()),
    ],
    ids=["numpy", "image", "video"],
)
def test_missing_packages_name_the_extra(package: str, extra: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional package the error says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"rxstage\[{extra}\]"):
        use()


# --- messages and parts -----------------------------------------------------------------------------------------------


class Color(str, Enum):  # noqa: UP042  # the elder kind, whose str() is the name
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("hi", (Text("hi"),)),
        (Shade.DARK, (Text("dark"),)),
        (Text("hi"), (Text("hi"),)),
        (Image(b"png"), (Image(b"png"),)),
        (("a", Text("b")), (Text("a"), Text("b"))),
        (["a", 1], (Text("a"), Data(1))),
        (deque(["a"]), (Text("a"),)),
        ((part for part in ("a", "b")), (Text("a"), Text("b"))),
        ({"a": 1}, (Data({"a": 1}),)),
        (b"ab", (Data(b"ab"),)),
        (5, (Data(5),)),
        (None, (Data(None),)),
        ({"a"}, (Data({"a"}),)),
        ((), ()),
        ("", (Text(""),)),
    ],
    ids=lambda value: kind(value) if not isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("cls", [Parts, lambda parts: Message("user", parts)], ids=["parts", "message"])
def test_parts_become_contents(cls: Any, given: Any, parts: tuple[Any, ...]) -> None:
    """Sequences and iterators are several parts, anything else is one, and each becomes a content."""
    if hasattr(given, "__next__"):
        given = iter(("a", "b"))
    assert cls(given).parts == parts


def test_messages_by_role() -> None:
    """The class methods set the role and take any number of parts."""
    call, usage = ToolCall("add", {"a": 1}), Usage(1, 2, 0.5)
    assert Message.system("be brief") == Message("system", "be brief")  # type: ignore[arg-type]
    assert Message.user("a", "b").parts == (Text("a"), Text("b"))
    assert Message.user() == Message("user")
    assert Message.assistant("x", tool_calls=(call,), usage=usage) == Message(
        "assistant", (Text("x"),), None, (call,), usage
    )


def test_message_text_joins_the_text_parts() -> None:
    """The text of a message is that of its text parts, in order."""
    assert Message.user("a", Image(b"png"), Text("b"), 3).text == "ab"
    assert Message.user().text == ""


def test_tool_calls_are_a_tuple() -> None:
    """A list of tool calls becomes a tuple, which nobody can append to."""
    message = Message("assistant", tool_calls=[ToolCall("add")])  # type: ignore[arg-type]
    assert message.tool_calls == (ToolCall("add"),)


def test_tool_calls_do_not_share_arguments() -> None:
    """The default arguments of one tool call are not those of another."""
    assert ToolCall("a").arguments == {}
    assert ToolCall("a").arguments is not ToolCall("a").arguments


def test_usage_adds_up() -> None:
    """Usages are summed field by field."""
    usage = Usage(1, 2, 0.5) + Usage(10, 20, 0.25)
    assert usage == Usage(11, 22, 0.75)
    assert usage.total_tokens == 33


# --- bare values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", CONTENTS, ids=kind)
def test_a_content_is_its_own(content: Any) -> None:
    """A content stays the same object."""
    assert content_of(content) is content


@pytest.mark.parametrize(
    ("value", "text"), [("hi", "hi"), (Color.RED, "red"), (Shade.DARK, "dark"), (Name("hi"), "hi")], ids=kind
)
def test_strings_become_text(value: str, text: str) -> None:
    """Any string becomes a `Text` of exactly its characters, as a plain `str`."""
    content = content_of(value)
    assert content == Text(text)
    assert type(content.text) is str


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), ExceptionGroup("g", [OSError()])], ids=kind)
def test_exceptions_become_failures(error: BaseException) -> None:
    """An exception becomes a `Failure` that holds it."""
    content = content_of(error)
    assert type(content) is Failure
    assert content.error is error
    assert content.stage == ""


@pytest.mark.parametrize("value", [None, 1, 2.5, b"x", ["a"], {"a": 1}, object(), ValueError, Text], ids=kind)
def test_anything_else_becomes_data(value: Any) -> None:
    """Any other object is carried as it is."""
    content = content_of(value)
    assert type(content) is Data
    assert content.value is value


@given(st.text() | st.integers() | st.none() | st.binary() | st.lists(st.integers()))
def test_payload_undoes_content(value: Any) -> None:
    """The payload of a bare value's content is the bare value."""
    assert payload_of(content_of(value)) == value


@pytest.mark.parametrize("content", [c for c in CONTENTS if type(c) not in (Text, Data)], ids=kind)
def test_payload_of_other_contents(content: Any) -> None:
    """Contents other than text and data are their own payload."""
    assert payload_of(content) is content
