"""Media out of messages, and messages of media."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from forms import FORMS, Form

from rxstage import (
    Audio,
    Data,
    FilterStage,
    Image,
    MapStage,
    Message,
    Parts,
    Pipeline,
    StageError,
    StreamElement,
    Text,
    ToolCall,
    Video,
)
from rxstage.conversation import HISTORY, PROMPT, TRANSCRIPT
from rxstage.stages.image import ImageResizeStage
from rxstage.stages.parts import PART, ComposeMessageStage, ExtractMediaStage
from rxstage.testing import check_stage

IMAGE, SOUND, CLIP = Image(b"png"), Audio(b"\1\2", 8_000), Video(b"mp4")
MIXED = Message.user("see", IMAGE, "hear", SOUND, CLIP, "?")
TURN = StreamElement.end_of_turn()


def marked(value: Any, **metadata: Any) -> StreamElement:
    return StreamElement.of(value, metadata=metadata)


def through(stage: Any, *values: Any) -> list[Any]:
    """Contents that come out of a stage, or of several."""
    stages = stage if isinstance(stage, tuple) else (stage,)
    return [element.content for element in Pipeline.of(*stages).run(values).elements]


def all_of(stage: Any, *values: Any) -> Sequence[StreamElement]:
    return Pipeline.of(stage).run(values).elements


# ------------------------------------------------------------------------------------------ ExtractMediaStage


def test_media_become_elements() -> None:
    """In their order, before the message, which has the rest."""
    assert through(ExtractMediaStage(), MIXED) == [IMAGE, SOUND, CLIP, Message.user("see", "hear", "?")]
    assert through(ExtractMediaStage(keep=True), MIXED) == [IMAGE, SOUND, CLIP, MIXED]


def test_all_else_of_the_message_stays() -> None:
    """Role, name, tool calls and usage stay, and each element has the metadata of the message and its place in it."""
    message = Message("assistant", (Text("a"), IMAGE), name="Ann", tool_calls=(ToolCall("f", {}, "1"),))
    elements = all_of(ExtractMediaStage(), marked(message, conversation="c"))
    assert [element.metadata for element in elements] == [{"conversation": "c", PART: 1}, {"conversation": "c"}]
    assert elements[1].message == Message("assistant", (Text("a"),), name="Ann", tool_calls=(ToolCall("f", {}, "1"),))


def test_an_empty_message_ends_its_turn_all_the_same() -> None:
    """A message of nothing but an image goes on without parts; `Parts` of which nothing is left do not."""
    assert through(ExtractMediaStage(), Message.user(IMAGE)) == [IMAGE, Message.user()]
    assert through(ExtractMediaStage(), Parts((IMAGE, "a")), Parts((IMAGE,))) == [IMAGE, Parts(("a",)), IMAGE]


def test_what_has_no_media_passes() -> None:
    """Other messages, history, prompts and other content go on as they are."""
    old, prompt = marked(MIXED, **{HISTORY: True}), marked(MIXED, **{PROMPT: True})
    values = [StreamElement.of(Message.user("a")), old, prompt, StreamElement.of("b"), StreamElement.of(IMAGE)]
    elements = all_of(ExtractMediaStage(), *values)
    assert [got.content is put.content for got, put in zip(elements, values, strict=True)] == [True] * 5


# ------------------------------------------------------------------------------------------ ComposeMessageStage


def test_a_turn_becomes_a_message() -> None:
    """Text and media up to the end of a turn, or of the input, are one message of the user, before that end."""
    values = ["What ", "is this", IMAGE, "?", TURN, SOUND]
    message = Message.user("What is this", IMAGE, "?")
    assert through(ComposeMessageStage(), *values) == [message, TURN.content, Message.user(SOUND)]


def test_a_message_takes_what_came_before_it() -> None:
    """A message of that role has the media in front of its own parts; one of another role does not take them."""
    answer = Message.assistant("yes")
    assert through(ComposeMessageStage(), IMAGE, answer, Message.user("this"), Message.user("that")) == [
        answer,
        Message.user(IMAGE, "this"),
        Message.user("that"),
    ]
    assert through(ComposeMessageStage(role="assistant"), IMAGE, answer) == [Message.assistant(IMAGE, "yes")]


def test_out_and_in_again() -> None:
    """What was taken out of a message and worked on stands at its old place again; what was filtered out is gone."""
    both = ExtractMediaStage(), ComposeMessageStage()
    assert through(both, MIXED, TURN, MIXED) == [MIXED, TURN.content, MIXED]
    louder = MapStage("louder", lambda audio: Audio(audio.samples * 2, 8_000), on=Audio)
    wanted = Message.user("see", IMAGE, "hear", Audio(b"\1\2\1\2", 8_000), CLIP, "?")
    assert through((both[0], louder, both[1]), MIXED) == [wanted]
    deaf = FilterStage("deaf", lambda audio: False, on=Audio)
    assert through((both[0], deaf, both[1]), MIXED) == [Message.user("see", IMAGE, "hear", "?", CLIP)]


def test_pieces_of_sound_become_one() -> None:
    """Frames of one form that follow each other are one part; another rate is another part."""
    values = [SOUND, SOUND, Audio(b"\3\4", 16_000), "x", SOUND]
    wanted = Message.user(Audio(b"\1\2\1\2", 8_000), Audio(b"\3\4", 16_000), "x", SOUND)
    assert through(ComposeMessageStage(), *values) == [wanted]


def test_parts_are_taken_apart() -> None:
    """What belongs together in `Parts` becomes parts of the message."""
    assert through(ComposeMessageStage(), Parts(("a", IMAGE)), "b") == [Message.user("a", IMAGE, "b")]


def test_what_is_only_shown_is_no_part() -> None:
    """Transcripts, history and prompts pass by at once, as does what it does not accept."""
    shown = [marked("partial", **{TRANSCRIPT: "partial"}), marked(MIXED, **{HISTORY: True})]
    shown += [marked(Message.user("be brief"), **{PROMPT: True}), StreamElement.of({"n": 1})]
    contents = through(ComposeMessageStage(), IMAGE, *shown, "b")
    assert contents == [*(element.content for element in shown), Message.user(IMAGE, "b")]
    pictures: Any = {"accepts": Image}
    assert through(ComposeMessageStage(**pictures), "a", IMAGE, TURN) == [
        Text("a"),
        Message.user(IMAGE),
        TURN.content,
    ]


def test_metadata_is_that_of_all_parts() -> None:
    """The message has what is known of any of its parts; the later and its own count more."""
    parts = [marked("a", conversation="c", n=1), marked(IMAGE, n=2)]
    (element,) = all_of(ComposeMessageStage(), *parts)
    assert element.metadata == {"conversation": "c", "n": 2}
    (element,) = all_of(ComposeMessageStage(), *parts, marked(Message.user("b"), n=3))
    assert element.metadata == {"conversation": "c", "n": 3}


def test_an_interrupt_takes_the_parts_away() -> None:
    """What came before it belongs to a turn that is over."""
    interrupt = StreamElement.interrupt()
    assert through(ComposeMessageStage(), "a", IMAGE, interrupt, "b") == [interrupt.content, Message.user("b")]


@pytest.mark.parametrize("value", ["x" * 600, Image(b"x" * 600), Audio(b"x" * 600, 8_000), Parts(("x" * 600,))])
def test_it_is_bounded(value: Any) -> None:
    """A turn that has no end is an error that names the remedies; turns that end are not counted together."""
    end = [value, TURN] * 5
    assert len(through(ComposeMessageStage(max_bytes=1000), *end)) == 10
    with pytest.raises(
        StageError, match="the message has more than 1000 bytes; raise max_bytes, make the media smaller"
    ):
        through(ComposeMessageStage(max_bytes=1000), value, value)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.needs("module:PIL")
def test_images_in_messages_are_made_smaller(form: Form) -> None:
    """Out of the message, smaller, and in again, in every form."""
    from PIL import Image as pil

    buffer = io.BytesIO()
    pil.new("RGB", (400, 200)).save(buffer, "PNG")
    message = Message.user("What is ", Image(buffer.getvalue()), "?")
    pipeline = Pipeline.of(ExtractMediaStage(), ImageResizeStage(width=100), ComposeMessageStage())
    elements, error = form(pipeline, [message])
    assert error is None
    (composed,) = [element.message for element in elements]
    assert composed is not None
    assert [part.text if isinstance(part, Text) else getattr(part, "size", 0) for part in composed.parts] == [
        "What is ",
        (100, 50),
        "?",
    ]


def test_laws() -> None:
    """Both keep the laws of a stage."""
    check_stage(ExtractMediaStage, [MIXED, Message.user("a"), Parts((IMAGE, "b"))])
    check_stage(ComposeMessageStage, ["a", IMAGE, SOUND, Message.user("b"), Data(1)])
