"""One turn as a middleware sees it: what came in, what came back, and what becomes of what it returns."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any, Final

from rxstage.content import CONTROL_KINDS, Failure, Message, Text, content_of
from rxstage.conversation import PROMPT, Conversation, conversations
from rxstage.element import Metadata, StreamElement
from rxstage.errors import StageError
from rxstage.stage import StageContext

__all__ = ["MiddlewareContext", "MiddlewareResult"]

_MISSING: Final = object()


class MiddlewareResult(tuple[StreamElement, ...]):
    """What `call_next` gave: elements, in order."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """The text elements, joined; where there are none, the text of the messages."""
        texts = [element.content.text for element in self if element.content.__class__ is Text]
        return "".join(texts) if texts else "".join(message.text for message in self.messages)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages."""
        return tuple(element.content for element in self if element.content.__class__ is Message)


_SEVERAL: Final = (list, tuple, MiddlewareResult)  # a named tuple is a value


class MiddlewareContext:
    """A turn, as the middlewares of one adapter see it. They share it, and may put attributes of their own on it.

    A subclass can speak the language of another framework: see `wrap_middleware(context_type=)`.

    Attributes:
        elements: what came in. What a middleware makes of the list, or puts in its place, is what goes on.
        metadata: of all elements together. What is put into it is put on what goes on, and on what comes out.
        stage: the execution that the adapter runs in.
    """

    def __init__(self, elements: Iterable[StreamElement], stage: StageContext) -> None:
        self.elements: list[Any] = list(elements)
        self.metadata: dict[str, Any] = {}
        for element in self.elements:
            self.metadata.update(element.metadata)
        self.stage = stage
        self._came = dict(self.metadata)
        self._envelope: StreamElement = self.elements[-1]
        self._result: Any = None
        self._blame: StageError | None = None  # names the inner stage that an error comes from
        self._begin: int | None = None  # where the history ended when the turn began
        self._running = 0  # calls of stages inside that are under way

    # ---------------------------------------------------------------- what came in

    @property
    def text(self) -> str:
        """What the user said: texts and the texts of user messages, joined. Setting it leaves other content there."""
        return "".join(_said(element) or "" for element in self.elements)

    @text.setter
    def text(self, text: str) -> None:
        elements: list[Any] = []
        placed = False
        for element in self.elements:
            if _said(element) is None:
                elements.append(element)
            elif not placed:
                placed = True
                elements.append(element.replace(content=_saying(element.content, text)))
        self.elements = elements if placed else [*elements, self._envelope.replace(content=Text(text))]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turn as messages; content between them is a user message of its own. Setting them replaces all."""
        messages: list[Message] = []
        parts: list[Any] = []
        for element in map(StreamElement.of, self.elements):
            content = element.content
            if content.__class__ is not Message:
                if PROMPT not in element.metadata:
                    parts.append(content)
                    continue
                content = Message.system(content)
            if parts:
                messages.append(Message("user", tuple(_joined(parts))))
                parts = []
            messages.append(content)
        if parts:
            messages.append(Message("user", tuple(_joined(parts))))
        return tuple(messages)

    @messages.setter
    def messages(self, messages: Iterable[Message]) -> None:
        known = {id(each.content): each for each in self.elements if isinstance(each, StreamElement)}
        self.elements = [known.get(id(message)) or self._telling(message) for message in messages]

    def _telling(self, message: Message) -> StreamElement:
        instructs = {PROMPT: True} if message.role == "system" else {}
        return self._envelope.replace(content=message, metadata={**self.metadata, **instructs})

    @property
    def conversation(self) -> Conversation:
        """The conversation that the turn belongs to, with its history."""
        return conversations(self.stage).of(self._envelope)

    # ---------------------------------------------------------------- what came back

    @property
    def result(self) -> Any:
        """What `call_next` gave, None before. A middleware that sets it decides what goes out: text, a message, an
        element, a list of such, or an async iterator of them."""
        return self._result

    @result.setter
    def result(self, value: Any) -> None:
        kept = value is None or isinstance(value, (MiddlewareResult, AsyncIterable))
        self._result = value if kept else MiddlewareResult(self._settled(value))

    # ---------------------------------------------------------------- what the adapter asks

    def _sent(self) -> list[StreamElement]:
        """What goes on to whatever `call_next` calls."""
        return [self._one(element) for element in self.elements]

    def _settled(self, value: Any) -> Iterator[StreamElement]:
        """The elements that a value stands for: one, or those of a list or other iterable; none for None."""
        if value is None:
            return
        if value.__class__ in _SEVERAL or isinstance(value, Iterator):
            for item in value:
                yield self._one(item)
        else:
            yield self._one(value)

    def _one(self, value: Any) -> StreamElement:
        if value.__class__ is StreamElement:
            element: StreamElement = value
            added = {key: each for key, each in self.metadata.items() if self._came.get(key, _MISSING) is not each}
            return element.replace(metadata={**element.metadata, **added}) if added else element
        if isinstance(value, StreamElement):  # a control: made anew, it counts as made by this stage
            return StreamElement(value.content, metadata=value.metadata)
        if value is None:
            raise TypeError(
                f"the middleware of stage {self.stage.stage!r} gave None among its elements; leave it out, or give an "
                f"element or a payload"
            )
        content = content_of(value)
        if content.__class__ in CONTROL_KINDS:
            if content.__class__ is Failure and not content.stage:
                content = Failure(content.error, self.stage.stage)
            return StreamElement(content, metadata=self.metadata)
        return self._envelope.replace(content=content, metadata=Metadata(self.metadata), source=self.stage.stage)


def _said(element: Any) -> str | None:
    """The text of the user in an element; None where it is something else."""
    element = StreamElement.of(element)
    content = element.content
    if PROMPT in element.metadata:
        return None
    if content.__class__ is Text:
        return str(content.text)
    return content.text if content.__class__ is Message and content.role == "user" else None


def _saying(content: Any, text: str) -> Any:
    """Content with another text."""
    if content.__class__ is Text:
        return Text(text)
    others = (part for part in content.parts if part.__class__ is not Text)
    return Message(content.role, (Text(text), *others), name=content.name)


def _joined(parts: list[Any]) -> list[Any]:
    """Contents, neighbouring texts made one."""
    joined: list[Any] = []
    for part in parts:
        if part.__class__ is Text and joined and joined[-1].__class__ is Text:
            joined[-1] = Text(joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined
