"""Stages that put big media into a store, and get them out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, Literal

from msgspec.structs import replace
from pydantic import Field

from rxstage.content import Audio, Data, Failure, Image, Message, Parts, Text, ToolResult, Video
from rxstage.conversation import ContextPolicy, conversations
from rxstage.element import StreamElement
from rxstage.ports.media import MediaReference, MediaStore
from rxstage.ports.store import StoreError
from rxstage.stage import Stage, StageContext, StageType

__all__ = ["MEDIA_RANK", "MediaLoadStage", "MediaStorageStage"]

MEDIA_RANK: Final = 40
"""Rank of the policy: after all that leave something out."""

_KINDS: Final = {Image: "image", Audio: "audio", Video: "video"}
_WHOLE: Final = (Message, Parts, ToolResult)


class _MediaStage(Stage):
    """Both ways: replaces some of the contents, those inside of messages too."""

    type: ClassVar[StageType] = StageType.TRANSFORM

    store: Any
    timeout: float | None = Field(default=30.0, gt=0)
    on_error: Literal["fail", "emit", "skip"] = "fail"

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        if not isinstance(self.store, MediaStore):
            raise TypeError(f"stage {self.name!r}: store= is a MediaStore such as FolderMediaStore, got {self.store!r}")

    async def _changed(
        self, element: StreamElement, change: Callable[[Any], Awaitable[Any]], event: str, context: StageContext
    ) -> StreamElement:
        """The element with its contents changed, or what `on_error` makes of an error."""
        try:
            async with asyncio.timeout(self.timeout):
                content = await _each(element.content, change)
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = StoreError(f"the media store took more than {self.timeout} s; raise timeout=")
            if self.on_error == "fail":
                raise error
            context.emit_event(event, error=str(error))
            if self.on_error == "skip":
                return element
            return element.replace(content=Failure(error, context.stage), sequence=0)
        return element if content is element.content else element.replace(content=content)


class MediaStorageStage(_MediaStage):
    """Puts images, audio and video above a size into a store and lets a `Data(MediaReference)` go on in their place.

    So a history, a saved conversation or a message on the wire stays small. What a model gets to see of the history has
    the media in it again, unless `for_model` says otherwise.

    Args:
        name: name in the graph.
        store: a `MediaStore` such as `FolderMediaStore`.
        above: bytes above which something goes to the store; what stands in messages and `Parts` too.
        for_model: whether a model sees the media instead of the references.
        timeout: seconds for one element.
        on_error: what a store that fails means: `"fail"` ends the execution, with `"emit"` a `Failure` stands in the
            place of the element, with `"skip"` the media goes on as it is.

    Emits: each element, with references in it where there was something big.
    Holds: nothing.
    Completes: with its input.
    Fails: with `StageError` where the store fails, unless `on_error` says otherwise.
    """

    above: int = Field(default=64 * 1024, ge=0)
    for_model: bool = True

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        if self.for_model:

            async def apply(history: Sequence[Message], *_: Any) -> Sequence[Message]:
                return [await self._seen(message, context) if _refers(message) else message for message in history]

            conversations(context).add_policy(ContextPolicy(MEDIA_RANK, apply, context.stage))
        async for element in elements:
            if element.is_control:
                yield element
            else:
                yield await self._changed(element, self._stored, "media.store.failed", context)

    async def _stored(self, content: Any) -> Any:
        kind = _KINDS.get(content.__class__)
        if kind is None:
            return content
        data = content.samples if kind == "audio" else content.data
        if len(data) <= self.above:
            return content
        id = await self.store.put(data)
        if kind == "audio":
            reference = MediaReference(
                id=id,
                kind=kind,
                size=len(data),
                sample_rate=content.sample_rate,
                channels=content.channels,
                format=content.format.value,
            )
        else:
            reference = MediaReference(
                id=id,
                kind=kind,
                size=len(data),
                mime_type=content.mime_type,
                width=content.width,
                height=content.height,
                duration=getattr(content, "duration", 0.0),
            )
        return Data(reference)

    async def _seen(self, message: Message, context: StageContext) -> Message:
        """A message of the history with its media; what cannot be had is said in words."""

        async def load(content: Any) -> Any:
            try:
                async with asyncio.timeout(self.timeout):
                    return await _loaded(self.store, content)
            except Exception as error:
                context.emit_event("media.load.failed", error=f"{type(error).__name__}: {error}")
                return Text(f"[{content.value.kind} that is not available any more]")

        seen: Message = await _each(message, load)
        return seen


class MediaLoadStage(_MediaStage):
    """Gets media out of a store again: puts them in the place of their references.

    Args:
        name: name in the graph.
        store: the `MediaStore` that they are in.
        max_bytes: of one piece of media; a reference that says more is an error, before anything is read.
        timeout: seconds for one element.
        on_error: what a store that fails means: `"fail"` ends the execution, with `"emit"` a `Failure` stands in the
            place of the element, with `"skip"` the reference goes on as it is.

    Emits: each element, with media in it where there were references.
    Holds: nothing.
    Completes: with its input.
    Fails: with `StageError` where the store fails or has not got it, unless `on_error` says otherwise.
    """

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        async for element in elements:
            if element.is_control:
                yield element
            else:
                yield await self._changed(element, self._had, "media.load.failed", context)

    async def _had(self, content: Any) -> Any:
        if _is_reference(content) and content.value.size > self.max_bytes:
            raise StoreError(f"{content.value} has more than {self.max_bytes} bytes; raise max_bytes=")
        return await _loaded(self.store, content)


async def _each(content: Any, change: Callable[[Any], Awaitable[Any]]) -> Any:
    """The content with what is in it changed; itself where nothing is."""
    kind = content.__class__
    if kind in (Message, Parts):
        parts = [await _each(part, change) for part in content.parts]
        if all(new is old for new, old in zip(parts, content.parts, strict=True)):
            return content
        return replace(content, parts=tuple(parts))
    if kind is ToolResult:
        value = await _each(content.value, change) if _has_media(content.value) else content.value
        return content if value is content.value else replace(content, value=value)
    return await change(content) if kind in _KINDS or _is_reference(content) else content


def _has_media(value: Any) -> bool:
    return value.__class__ in (*_KINDS, *_WHOLE) or _is_reference(value)


def _refers(content: Any) -> bool:
    """Whether a reference is in it."""
    if content.__class__ in (Message, Parts):
        return any(part.__class__ is not Text and _refers(part) for part in content.parts)
    return _refers(content.value) if content.__class__ is ToolResult else _is_reference(content)


def _is_reference(content: Any) -> bool:
    return content.__class__ is Data and content.value.__class__ is MediaReference


async def _loaded(store: MediaStore, content: Any) -> Any:
    if not _is_reference(content):
        return content
    reference: MediaReference = content.value
    data = await store.get(reference.id)
    if len(data) != reference.size:
        raise StoreError(f"{reference} has {len(data)} bytes in the store, not {reference.size}")
    if reference.kind == "audio":
        return Audio(data, reference.sample_rate, reference.channels, reference.format)  # type: ignore[arg-type]
    if reference.kind == "image":
        return Image(data, reference.mime_type, reference.width, reference.height)
    if reference.kind == "video":
        return Video(data, reference.mime_type, reference.width, reference.height, reference.duration)
    raise StoreError(f"{reference} is of a kind that is unknown: {reference.kind!r}")
