"""Where texts wait till they are validated: the state of the answers, or of the user's turns, of one execution."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from rxstage.content import Data, Failure, Message, Parts, Text, Usage
from rxstage.conversation import CONVERSATION, HISTORY, PROMPT, TurnEnd, ends_turn
from rxstage.element import StreamElement
from rxstage.stage import StageContext
from rxstage.validation.answer import Answer, conversation_of
from rxstage.validation.errors import ValidationFailed
from rxstage.validation.inspector import Inspector
from rxstage.validation.rules import Rules
from rxstage.validation.subject import Settled, Structure, Subject, texts_of, with_texts

__all__ = ["Checkpoint"]

_IMAGES: Final = 64  # that wait with a text
_PARTIAL: Final = "partial"  # marks what is known of an object while it streams


class Checkpoint:
    """Lets texts pass by what validators say.

    Args:
        rules: the validators and their policies.
        context: of the stage.
        user: whether it stands before a model and looks at what the user says.
        most: characters that may wait.
        turns: what ends a turn of the user.
    """

    def __init__(self, rules: Rules, context: StageContext, *, user: bool, most: int, turns: TurnEnd) -> None:
        self._context, self._user, self._most, self._turns = context, user, most, turns
        self._inspector = Inspector(rules, context)
        self._holds = rules.holds or user
        self._slow = bool(rules.whole) or rules.repair is not None
        self._answers: dict[str, Answer] = {}

    # ---------------------------------------------------------------- what comes in

    def text(self, element: StreamElement) -> Sequence[StreamElement]:
        """A piece of text has come; gives what may go on."""
        answer = self._answer(element)
        if answer.stopped:
            return ()
        answer.element = element
        text: str = element.content.text
        passage = answer.passage
        findings = passage.feed(text)
        if self._holds:
            passage.take(passage.safe)  # it will be looked at again when all of it is there
            error = self._inspector.stopped(findings, answer.conversation) if findings else None
            return self._wait(answer, element, len(text)) if error is None else (self._stop(answer, error),)
        error, upto = None, passage.safe
        if findings:
            error, upto = self._inspector.found(passage, findings, answer.conversation, answer.told)
        settled = passage.take(upto)
        if error is None:
            if passage.held <= self._most:
                return (element,) if settled == text else self._piece(answer, settled)
            error = self._too_long(answer)
        return (*self._piece(answer, settled), self._stop(answer, error))

    def image(self, element: StreamElement) -> Sequence[StreamElement]:
        """An image has come; behind a text of the user that waits, it waits too."""
        answer = self._answers.get(conversation_of(element))
        if not self._user or answer is None:
            return (element,)
        if answer.stopped:
            return ()
        answer.images += 1
        if answer.images > _IMAGES:
            reason = f"more than {_IMAGES} images wait for its end"
            return (self._stop(answer, self._inspector.too_much(reason, answer.conversation)),)
        return self._wait(answer, element, 1) if answer.waiting else (element,)

    async def message(self, element: StreamElement) -> AsyncGenerator[StreamElement]:
        """A message has come; gives what may go on."""
        if not self._concerns(element):
            if not self._user and HISTORY not in element.metadata and ends_turn(element):  # the user speaks again
                async with aclosing(self.end(element)) as rest:
                    async for each in rest:
                        yield each
            yield element
            return
        answer = self._answer(element)
        over = not self._user or ends_turn(element, self._turns)
        if not answer.stopped:
            async with aclosing(self._said(answer, element)) as said:
                async for each in said:
                    yield each
        if over or not answer.stopped:
            self._answers.pop(answer.conversation, None)

    async def data(self, element: StreamElement) -> AsyncGenerator[StreamElement]:
        """An object has come; gives what may go on."""
        if self._user or not Structure.fits(element.content.value):
            yield element
            return
        answer = self._answer(element)
        if answer.stopped or element.metadata.get(_PARTIAL):
            return
        answer.element = element
        structure = Structure(element.content.value)
        settled = await self._settle(answer, structure)
        if settled is None:
            return
        if settled.error is not None:
            yield self._stop(answer, settled.error)
            return
        assert isinstance(settled.subject, Structure)
        answer.structures = structure, settled.subject
        yield element if settled.subject is structure else element.replace(content=Data(settled.subject.value))

    def tool_call(self, element: StreamElement) -> Sequence[StreamElement]:
        """A model has finished a text with a call; gives what may still go on before it."""
        answer = self._answers.get(conversation_of(element))
        if answer is None or self._holds or answer.stopped:
            return ()
        rest = self._ended(answer)
        if not answer.stopped:
            answer.passage = self._inspector.passage(answer.passage.end)
        return rest

    def failure(self, element: StreamElement) -> None:
        """A failure has come: the answer so far is void, or that part of it that an `AnswerWithdrawn` names."""
        answer = self._answers.get(conversation_of(element))
        void = getattr(element.content.error, "text", None)
        if answer is None or self._user or (answer.stopped and void is not None):
            return
        del self._answers[answer.conversation]
        if isinstance(void, str) and void:
            again = self._answer(element)
            again.passage = self._inspector.passage(max(answer.passage.end - len(void), 0))
            again.usage = answer.usage
            kept = "".join(answer.texts)
            if kept.endswith(void) and (kept := kept[: -len(void)]):
                self._wait(again, answer.element.replace(content=Text(kept)), len(kept))

    async def end(self, element: StreamElement | None = None) -> AsyncGenerator[StreamElement]:
        """A turn has ended, that of the conversation of `element` or all; gives what may still go on."""
        named = element is not None and CONVERSATION in element.metadata
        for conversation in [conversation_of(element)] if element is not None and named else [*self._answers]:
            answer = self._answers.get(conversation)
            if answer is None:
                continue
            async with aclosing(self._rest(answer)) as rest:
                async for each in rest:
                    yield each
            self._answers.pop(conversation, None)

    def clear(self) -> None:
        """Forget all that waits."""
        self._answers.clear()

    # ---------------------------------------------------------------- what goes out

    async def _said(self, answer: Answer, element: StreamElement) -> AsyncGenerator[StreamElement]:
        """A message that is to be looked at, and before it what waits."""
        texts = texts_of(element.content)
        answer.element = element
        told = answer.structures
        if told is not None and told[0].says("".join(texts)):
            yield self._with(element, texts if told[0] is told[1] else [told[1].text], answer)
            return
        pieces = answer.texts
        if pieces and "".join(pieces) == "".join(texts):  # it repeats what waits
            settled = await self._settle(answer, Subject(pieces))
            if settled is None:
                return
            if settled.error is None:
                for each in answer.released(settled):
                    yield each
                parts = settled.subject.parts
                settled = replace(settled, subject=Subject(texts if [*parts] == pieces else ["".join(parts)]))
        else:
            async with aclosing(self._rest(answer, last=not texts)) as rest:
                async for each in rest:
                    yield each
            if answer.stopped:
                return
            if not texts:
                yield self._with(element, texts, answer)
                return
            settled = await self._settle(answer, Subject(texts))
        if settled is None:
            return
        if settled.error is not None:
            yield self._stop(answer, settled.error)
        else:
            yield self._with(element, settled.subject.parts, answer)

    async def _rest(self, answer: Answer, last: bool = True) -> AsyncGenerator[StreamElement]:
        """What waits of a text that has ended."""
        if answer.stopped:
            return
        if self._holds:
            if not answer.waiting:
                return
            settled = await self._settle(answer, Subject(answer.texts))
            if settled is None:
                return
            if settled.error is not None:
                yield self._stop(answer, settled.error)
                return
            for each in answer.released(settled):
                yield each
            return
        if answer.passage.end:
            for each in self._ended(answer):
                yield each
            if last and not answer.stopped:
                self._inspector.passed(answer.told, answer.conversation)

    def _ended(self, answer: Answer) -> Sequence[StreamElement]:
        """The rest of a text that has streamed."""
        passage = answer.passage
        findings = passage.feed("", final=True)
        error, upto = self._inspector.found(passage, findings, answer.conversation, answer.told)
        if error is not None:
            return (*self._piece(answer, passage.take(upto)), self._stop(answer, error))
        return self._piece(answer, passage.take(passage.end))

    async def _settle(self, answer: Answer, subject: Subject) -> Settled | None:
        """What becomes of a whole text; None where an interrupt came first."""
        settled: Settled | None = None
        if self._slow:
            async with self._context.interruptible(self._settling(answer, subject)) as results:
                async for each in results:
                    settled = each
            if results.interrupted:
                return None
        else:
            settled = await self._inspector.settle(subject, answer.conversation, answer.told)
        assert settled is not None
        answer.usage += settled.usage
        return settled

    async def _settling(self, answer: Answer, subject: Subject) -> AsyncIterator[Settled]:
        yield await self._inspector.settle(subject, answer.conversation, answer.told)

    # ---------------------------------------------------------------- the answers

    def _answer(self, element: StreamElement) -> Answer:
        conversation = conversation_of(element)
        answer = self._answers.get(conversation)
        if answer is None:
            answer = self._answers[conversation] = Answer(conversation, self._inspector.passage(), element)
        return answer

    def _concerns(self, element: StreamElement) -> bool:
        """Whether a message is one to be looked at; instructions and what is only shown are not."""
        content = element.content
        if PROMPT in element.metadata or HISTORY in element.metadata:
            return False
        if content.__class__ is Parts:
            return self._user
        role: str = content.role
        return role == ("user" if self._user else "assistant")

    def _wait(self, answer: Answer, element: StreamElement, size: int) -> Sequence[StreamElement]:
        answer.waiting.append(element)
        answer.size += max(size, 1)
        if answer.size <= self._most:
            return ()
        return (self._stop(answer, self._too_long(answer)),)

    def _too_long(self, answer: Answer) -> ValidationFailed:
        reason = (
            f"more than {self._most} characters of it would have to be held; allow more with max_characters=, or stop "
            f"it earlier with Length(maximum=...)"
        )
        return self._inspector.too_much(reason, answer.conversation)

    def _stop(self, answer: Answer, error: ValidationFailed) -> StreamElement:
        """Let nothing more of this turn through; gives what stands in its place."""
        answer.stopped = True
        answer.waiting = []
        answer.passage = self._inspector.passage()
        return StreamElement(Failure(error, self._context.stage), metadata=answer.element.metadata)

    def _piece(self, answer: Answer, text: str) -> Sequence[StreamElement]:
        return (answer.element.replace(content=Text(text)),) if text else ()

    def _with(self, element: StreamElement, texts: Sequence[str], answer: Answer) -> StreamElement:
        """A message with other texts, and the usage of its repairs."""
        content = element.content
        changed = content if [*texts] == texts_of(content) else with_texts(content, texts)
        if answer.usage != Usage() and changed.__class__ is Message:
            changed = replace(changed, usage=(changed.usage or Usage()) + answer.usage)
        return element if changed is content else element.replace(content=changed)
