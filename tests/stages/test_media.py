"""Media that goes to a store and comes out again, inside of messages too."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from rxstage import (
    Audio,
    AudioFormat,
    Data,
    Event,
    Image,
    Message,
    Parts,
    Pipeline,
    Stage,
    StageError,
    StreamElement,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    Video,
)
from rxstage.adapters.media_folder import FolderMediaStore
from rxstage.ports.media import MediaNotFound, MediaReference, MediaStore
from rxstage.providers.scripted import ScriptedProvider
from rxstage.stages.media import MediaLoadStage, MediaStorageStage
from rxstage.stages.provider import ProviderStage
from rxstage.testing import check_stage, run_virtual
from rxstage.wire import from_json, from_msgpack, to_json, to_msgpack

BIG = bytes(range(200))
IMAGE = Image(BIG, "image/jpeg", 20, 10)
AUDIO = Audio(BIG, 8000, 2, AudioFormat.MULAW)
VIDEO = Video(BIG + b"v", "video/webm", 4, 3, 1.5)


class Memory(MediaStore):
    """A store in memory."""

    def __init__(self, wait: float = 0.0, error: BaseException | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.wait = wait
        self.error = error
        self.got: list[str] = []

    async def put(self, data: bytes) -> str:
        await asyncio.sleep(self.wait)
        if self.error is not None:
            raise self.error
        id = hashlib.sha256(data).hexdigest()
        self.kept[id] = data
        return id

    async def get(self, id: str) -> bytes:
        self.got.append(id)
        await asyncio.sleep(self.wait)
        if id not in self.kept:
            raise MediaNotFound(f"there is no media {id!r}")
        return self.kept[id]

    async def delete(self, id: str) -> bool:
        return self.kept.pop(id, None) is not None


async def execute(source: Any, *stages: Stage) -> tuple[list[StreamElement], list[Event], BaseException | None]:
    execution = Pipeline.of(*stages).execute(source, raise_on_error=False)
    events: list[Event] = []
    execution.events.subscribe(events.append)
    result = await execution
    return list(result.elements), events, result.error


def run(source: Any, *stages: Stage) -> list[Any]:
    elements, _, error = run_virtual(execute(source, *stages))
    assert error is None, error
    return [element.content for element in elements]


EVERYTHING = [
    IMAGE,
    AUDIO,
    VIDEO,
    Message("user", (Text("see"), IMAGE, VIDEO), name="Ann"),
    Message.assistant("a", tool_calls=(ToolCall("t", {}, "1"),), usage=Usage(1, 2)),
    Message("tool", (ToolResult("1", IMAGE, "t"), ToolResult("2", Parts((AUDIO, "x"))), ToolResult("3", [1]))),
    Parts(("a", IMAGE, Data(1))),
    ToolResult("4", AUDIO, "t", True),
    Text("x"),
    Data(IMAGE),
]


def test_there_and_back() -> None:
    """What goes to the store comes out of it as it was, wherever it stands."""
    store = Memory()
    storing, loading = MediaStorageStage(store=store, above=100), MediaLoadStage(store=store)
    stored = run(EVERYTHING, storing)
    assert len(store.kept) == 2
    image = stored[0].value
    assert image == MediaReference(
        id=hashlib.sha256(BIG).hexdigest(), kind="image", size=200, mime_type="image/jpeg", width=20, height=10
    )
    assert stored[3].parts == (Text("see"), Data(image), stored[2])
    assert stored[3].name == "Ann"
    assert not any(kind in repr(stored[:-1]) for kind in ("Image(", "Audio(", "Video("))
    assert run(stored, loading) == EVERYTHING
    assert run(EVERYTHING, storing, loading) == EVERYTHING


def test_only_what_is_big() -> None:
    """What is not above the size stays, and such an element is the same one."""
    store = Memory()
    element = StreamElement.of(Message.user("a", IMAGE), metadata={"k": 1})
    elements, _, _ = run_virtual(execute([element], MediaStorageStage(store=store, above=200)))
    assert elements[0].content is element.content
    elements, _, _ = run_virtual(execute([element], MediaStorageStage(store=store, above=199)))
    assert elements[0].metadata == {"k": 1}
    assert len(store.kept) == 1


def test_references_travel() -> None:
    """A reference has a wire form, in JSON and msgpack."""
    [content] = run([Message.user(IMAGE)], MediaStorageStage(store=Memory(), above=0))
    element = StreamElement.of(content)
    assert from_json(to_json(element)) == element
    assert from_msgpack(to_msgpack(element)) == element
    assert len(to_json(element)) < 500


def test_in_a_folder(tmp_path: Path) -> None:
    """The stages work with a folder, too."""
    store = FolderMediaStore(tmp_path)
    pipeline = Pipeline.of(MediaStorageStage(store=store, above=0), MediaLoadStage(store=store))
    result = pipeline.run(EVERYTHING, timeout=20)
    assert [element.content for element in result.elements] == EVERYTHING
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_what_a_model_gets() -> None:
    """The history keeps references, and the model gets the media; what is gone is said in words."""
    store = Memory()
    provider = ScriptedProvider(default="yes")

    async def source() -> Any:
        yield Message.user("see", IMAGE)
        await asyncio.sleep(1)
        yield Message.user("and?")
        await asyncio.sleep(1)
        store.kept.clear()
        yield Message.user("now?")

    stages = MediaStorageStage(store=store, above=0), ProviderStage(provider=provider)
    _, events, error = run_virtual(execute(source(), *stages))
    assert error is None
    first, second, third = (call.messages for call in provider.calls)
    assert first[0] == second[0] == Message.user("see", IMAGE)
    assert third[0] == Message.user("see", "[image that is not available any more]")
    assert [event.type for event in events if event.type.startswith("media.")] == ["media.load.failed"]


def test_what_a_model_gets_if_told_otherwise() -> None:
    """With `for_model=False` the model gets the references."""
    provider = ScriptedProvider(default="yes")
    stages = MediaStorageStage(store=Memory(), above=0, for_model=False), ProviderStage(provider=provider)
    run([Message.user("see", IMAGE)], *stages)
    assert isinstance(provider.calls[0].messages[0].parts[1], Data)


# ------------------------------------------------------------------------------------------ failures


def test_a_store_that_fails() -> None:
    """A failing store ends the execution; with "emit" a `Failure` stands there, with "skip" the media goes on."""
    store = Memory(error=OSError("no disk"))
    error = run_virtual(execute([IMAGE], MediaStorageStage("keep", store=store, above=0)))[2]
    assert isinstance(error, StageError)
    assert "no disk" in str(error)
    elements, events, _ = run_virtual(execute([IMAGE, "x"], MediaStorageStage(store=store, above=0, on_error="emit")))
    assert [type(element.content).__name__ for element in elements] == ["Failure", "Text"]
    assert [event.data["error"] for event in events if event.type == "media.store.failed"] == ["no disk"]
    assert run([IMAGE, "x"], MediaStorageStage(store=store, above=0, on_error="skip")) == [IMAGE, Text("x")]


def test_a_store_that_hangs() -> None:
    """A store gets `timeout` seconds for an element."""

    async def main() -> float:
        stage = MediaStorageStage(store=Memory(wait=1000), above=0, timeout=5.0)
        _, _, error = await execute([IMAGE], stage)
        assert "the media store took more than 5.0 s; raise timeout=" in str(error)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 5.0


def test_what_is_not_there() -> None:
    """A reference that the store has not got is an error, or goes on."""
    reference = Data(MediaReference(id="0" * 64, kind="image", size=1))
    error = run_virtual(execute([reference], MediaLoadStage(store=Memory())))[2]
    assert "there is no media" in str(error)
    assert run([reference], MediaLoadStage(store=Memory(), on_error="skip")) == [reference]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": 199}, "has 200 bytes in the store, not 199"),
        ({"size": 10**12}, "has more than 268435456 bytes"),
        ({"kind": "program"}, "of a kind that is unknown: 'program'"),
        ({"kind": "audio", "format": "pcm16"}, "Audio.sample_rate must be above 0"),
        ({"kind": "audio", "sample_rate": 8000, "channels": 1, "format": "mp3"}, "'mp3' is not a valid AudioFormat"),
        ({"id": "../../etc/passwd"}, "is no id of media"),
    ],
)
def test_references_that_lie(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """A reference from outside that says what is not so is an error."""

    async def main() -> BaseException | None:
        store = FolderMediaStore(tmp_path)
        fields = {"id": await store.put(BIG), "kind": "image", "size": 200, **changes}
        return (await execute([MediaReference(**fields)], MediaLoadStage(store=store)))[2]

    error = asyncio.run(main())
    assert isinstance(error, StageError)
    assert problem in str(error)


def test_what_is_no_store() -> None:
    """What is no `MediaStore` is an error where the stage is made."""
    with pytest.raises(TypeError, match="store= is a MediaStore such as FolderMediaStore, got '/tmp'"):
        MediaStorageStage(store="/tmp")


def test_laws() -> None:
    """Both keep the laws of a stage."""
    check_stage(lambda: MediaStorageStage(store=Memory(wait=0.1), above=0), [IMAGE, "x", Message.user(AUDIO), VIDEO])
    check_stage(lambda: MediaLoadStage(store=Memory()), [IMAGE, "x", Message.user(AUDIO)])
