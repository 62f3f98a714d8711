"""What becomes of the answers that are validated: the history keeps what went out."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rxstage.content import EndOfTurn, Failure, Interrupt, Message, Text
from rxstage.conversation import Conversation, conversations, is_aside
from rxstage.element import StreamElement
from rxstage.stage import StageContext
from rxstage.validation.answer import conversation_of

__all__ = ["Outgoing"]


class _Said:
    """An answer: what came of it, and what went out."""

    __slots__ = ("came", "over", "turn", "went")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.came: list[str] = []
        self.went: list[str] = []
        self.over = False  # whether all of it has come


class Outgoing:
    """Sees what a stage gets and what it lets out, and has the history keep the latter.

    Without a stage that answers there is no history, nor need a text have an end: nothing is kept account of.

    Args:
        context: of the stage.
    """

    def __init__(self, context: StageContext) -> None:
        self._held = conversations(context)
        self._held.cutters.append(self._cut)
        self._said: dict[str, _Said] = {}
        self._left: dict[str, _Said] = {}  # when an interrupt came, till whoever answers has asked

    async def coming(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        """What the stage gets."""
        async for element in elements:
            if self._held.answerer:
                self._comes(element)
            yield element
            self._settle()  # of what is over and has not gone out, something was stopped

    def _comes(self, element: StreamElement) -> None:
        content = element.content
        kind = content.__class__
        if kind is Text:
            self._left.clear()
            self._of(element).came.append(content.text)
        elif kind is Message:
            if _is_answer(element):
                said = self._of(element)
                said.over = True
                if not said.came:
                    said.came.append(content.text)
        elif kind is EndOfTurn:
            for each in self._said.values():
                each.over = True
        elif kind is Interrupt:
            self._left, self._said = self._said, {}
        elif kind is Failure and isinstance(void := getattr(content.error, "text", None), str):
            said = self._of(element)
            said.came[:] = filter(None, ["".join(said.came).removesuffix(void)])

    def goes(self, element: StreamElement) -> None:
        """Something leaves the stage."""
        if not self._held.answerer:
            return
        content = element.content
        if content.__class__ is Text:
            self._of(element).went.append(content.text)
        elif content.__class__ is Message and _is_answer(element):
            said = self._of(element)
            said.went[:] = [content.text]
            said.over = True
            self._settle()

    def _of(self, element: StreamElement) -> _Said:
        id = conversation_of(element)
        said = self._said.get(id)
        if said is None:
            said = self._said[id] = _Said(element.sequence)
        return said

    def _settle(self) -> None:
        for id in [id for id, said in self._said.items() if said.over]:
            said = self._said.pop(id)
            came, went = "".join(said.came), "".join(said.went)
            if came != went:
                self._held.named(id).revise(said.turn, came, went)

    def _cut(self, conversation: Conversation) -> None:
        """An answer was interrupted: what came of it later has not gone out either."""
        said = self._said.get(conversation.id) or self._left.pop(conversation.id, None)
        if said is not None:
            conversation.revise(said.turn, "".join(said.came), "".join(said.went), interrupted=True)


def _is_answer(element: StreamElement) -> bool:
    return element.content.role == "assistant" and not is_aside(element)
