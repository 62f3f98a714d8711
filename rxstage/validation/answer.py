"""An answer, or what the user says in a turn, while it is validated."""

from __future__ import annotations

from rxstage.content import Text, Usage
from rxstage.conversation import CONVERSATION
from rxstage.element import StreamElement
from rxstage.validation.passage import Passage
from rxstage.validation.subject import Settled, Structure

__all__ = ["Answer", "conversation_of"]


class Answer:
    """An answer, or a turn of the user, as far as it has come."""

    __slots__ = (
        "conversation",
        "element",
        "images",
        "passage",
        "size",
        "stopped",
        "structures",
        "told",
        "usage",
        "waiting",
    )

    def __init__(self, conversation: str, passage: Passage, element: StreamElement) -> None:
        self.conversation, self.passage, self.element = conversation, passage, element
        self.told: dict[str, int] = {}  # matches that were told of, by validator
        self.waiting: list[StreamElement] = []
        self.size = 0  # characters that wait
        self.images = 0
        self.stopped = False
        self.structures: tuple[Structure, Structure] | None = None  # as it came, and as it went on
        self.usage = Usage()  # of repairs

    @property
    def texts(self) -> list[str]:
        """The pieces of text that wait."""
        return [element.content.text for element in self.waiting if element.content.__class__ is Text]

    def released(self, settled: Settled) -> list[StreamElement]:
        """What has waited, with the texts that go on; nothing waits any more."""
        texts = iter(settled.subject.parts)
        out: list[StreamElement] = []
        for element in self.waiting:
            content = element.content
            if content.__class__ is not Text:
                out.append(element)
                continue
            text = next(texts, "")
            if text == content.text:
                out.append(element)
            elif text:
                out.append(element.replace(content=Text(text)))
        self.waiting, self.size = [], 0
        return out


def conversation_of(element: StreamElement) -> str:
    """Id of the conversation that an element belongs to."""
    return str(element.metadata.get(CONVERSATION, ""))
