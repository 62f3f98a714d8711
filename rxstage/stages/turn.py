"""When has the user said all they want to say?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Final

from pydantic import Field, PrivateAttr

from rxstage.content import Data, EndOfTurn, Interrupt, Text
from rxstage.conversation import CONVERSATION, TRANSCRIPT, conversations
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.endings import EndingPolicy, policy_of
from rxstage.voice.floor import floor
from rxstage.voice.speculation import SPECULATIVE, Speculation, speculations
from rxstage.voice.speech import SpeechEnded, SpeechStarted
from rxstage.voice.words import belongs, is_words, joined, text_of

__all__ = ["TurnStage"]

_BESIDE: Final = 64  # elements of a turn beside its words that are kept to be said again


class TurnStage(Stage):
    """Joins what a user says with pauses in between to one turn, and ends it when the user has finished.

    It stands behind the recognition. The detection of speech cuts at short pauses (`VADAccumulatorStage(silence=0.25,
    end_of_turn=False)`); a policy decides by the words how long a silence ends the turn. Who begins to speak again
    before that goes on with the turn, by the times in the marks of speech: it makes no difference how fast the sound
    comes.

    With `speculative=True` the user's message goes on as soon as the words are there, so that the answer is made while
    it is not certain yet that the turn is over. A `SpeculationStage` behind the stage that answers holds the answer.
    When the silence has lasted long enough the turn is confirmed. When more words come it is withdrawn by an
    `Interrupt`, and later all words go on as one message; neither the message nor its answer was ever in the history,
    and no tool was called.

    Args:
        name: name in the graph.
        policy: how long a silence ends a turn: `"words"` (by the last words), `"punctuation"`, `"silence"` (always the
            same), or an `EndingPolicy`.
        maximum: seconds of silence that end a turn whatever the policy says.
        speculative: have the answer made early.
        patience: seconds after which speech that neither ends nor comes to words is forgotten.

    Emits: one user `Message` for each turn, and an `EndOfTurn`; with speculation the message earlier, marked in its
        metadata, and an `Interrupt` where it is withdrawn. The messages of the pauses are gone; everything else passes.
    Holds: the words of a turn; with speculation up to 64 elements that belong to it beside.
    Completes: with its input; a turn that is not over is then.
    Fails: with `StageError` where it is speculative and no `SpeculationStage` holds the answers.
    """

    type: ClassVar[StageType] = StageType.ACCUMULATE

    policy: Any = "words"
    maximum: float = Field(default=3.0, gt=0)
    speculative: bool = False
    patience: float = Field(default=30.0, gt=0)

    _policy: EndingPolicy = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        self._policy = policy_of(self.name, self.policy)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        turn = _Turn(self, context)
        try:
            async for element in elements:
                content = element.content
                value = content.value if content.__class__ is Data else None
                if value.__class__ is _Due:
                    if value is turn.due:
                        for piece in turn.over():
                            yield piece
                elif value.__class__ is SpeechStarted:
                    for piece in turn.begins(value):
                        yield piece
                    yield turn.passing(element)
                elif value.__class__ is SpeechEnded:
                    turn.pauses(value)
                    yield turn.passing(element)
                elif is_words(element):
                    for piece in turn.hears(element):
                        yield piece
                elif content.__class__ is Text and TRANSCRIPT in element.metadata:
                    if content.text.strip():
                        for piece in turn.withdrawn():
                            yield piece
                    yield turn.passing(element)
                elif content.__class__ is Interrupt:
                    turn.forget()
                    yield element
                elif content.__class__ is EndOfTurn:  # somebody has let go of the button
                    for piece in turn.over(marked=True):
                        yield piece
                    yield element
                elif self.speculative and belongs(element):
                    for piece in turn.grows(element):
                        yield piece
                else:
                    yield turn.passing(element)
                if turn.waits:
                    for piece in await turn.speculated():
                        yield piece
                    await turn.judge()
            for piece in turn.over():
                yield piece
        finally:
            turn.forget()


class _Due:
    """Posted when a silence has lasted long enough."""


class _Turn:
    """The turn that is being said.

    Attributes:
        due: what the silence that is waited for will be told by; None where none is.
    """

    def __init__(self, stage: TurnStage, context: StageContext) -> None:
        self._stage, self._context = stage, context
        self._loop = asyncio.get_running_loop()
        self._speculations, self._floor = speculations(context), floor(context)
        self._speculation: Speculation | None = None
        self._words: list[StreamElement] = []
        self._beside: list[StreamElement] = []  # what else belongs to it, where all may have to be said again
        self._speaking = False
        self._began = 0.0  # when the speech was noticed
        self._since = 0.0  # since when there is silence
        self._end: float | None = None  # of the speech, in sample time
        self._wait: tuple[int, float] = (0, 0.0)  # seconds of silence, by the first so many messages
        self._timer: asyncio.TimerHandle | None = None
        self.due: _Due | None = None

    @property
    def waits(self) -> bool:
        """Whether a silence has begun that is not waited for yet."""
        return self.due is None and bool(self._words) and not self._speaking

    # ---------------------------------------------------------------- what is heard

    def begins(self, mark: SpeechStarted) -> Iterator[StreamElement]:
        """Speech begins: the turn goes on, or was over when it began."""
        judged, wait = self._wait
        if self._end is not None and judged == len(self._words) and mark.time - self._end >= wait:
            yield from self.over()
        self._speaking, self._began = True, self._context.now()
        self._disarm()
        if self._words:
            self._arm(self._stage.patience)

    def pauses(self, mark: SpeechEnded) -> None:
        """Speech has ended a while ago.

        How long is known by when it was noticed to begin. Speech that begins again is noticed just as late, so that
        what began in time is there before the silence is taken for the end.
        """
        now = self._context.now()
        self._since = min(self._began + mark.duration, now) if self._speaking else now
        self._speaking, self._end = False, mark.time
        self._disarm()

    def hears(self, element: StreamElement) -> Iterator[StreamElement]:
        """Words have been understood."""
        words = self._words
        if words and words[0].metadata.get(CONVERSATION) != element.metadata.get(CONVERSATION):
            yield from self.over()
        yield from self.withdrawn()
        if self._end is None and not self._speaking:
            self._since = self._context.now()  # nobody tells when speech ends
        self._words.append(element)
        self._disarm()
        if self._speaking:
            self._arm(self._stage.patience)

    def grows(self, element: StreamElement) -> Iterator[StreamElement]:
        """Something that is no speech comes to the turn: it is answered anew, with that."""
        if self._speculation is not None:
            yield from self.withdrawn()
            if not self._speaking:
                self._disarm()
        if len(self._beside) >= _BESIDE:
            yield self._beside.pop(0)
        self._beside.append(element)

    def passing(self, element: StreamElement) -> StreamElement:
        """What passes while an answer may be withdrawn is not lost with it."""
        if self._speculation is None or element.is_control:
            return element
        return element.replace(priority=Priority.CRITICAL)

    # ---------------------------------------------------------------- what becomes of it

    async def judge(self) -> None:
        """Wait for as much silence as what was said needs."""
        judged, wait = self._wait
        if judged != len(self._words):
            async with self._context.interruptible(self._judged()) as judgements:
                async for wait in judgements:
                    self._wait = len(self._words), wait
            if judgements.interrupted:
                return
        self._arm(max(self._since + wait - self._context.now(), 0.0))

    async def _judged(self) -> AsyncIterator[float]:
        policy, context = self._stage._policy, self._context
        history = conversations(context).of(self._words[0]).messages
        try:
            async with asyncio.timeout(self._stage.maximum):
                wait = await policy.silence(text_of(self._words), history)
        except Exception as error:
            context.emit_event("turn.policy_failed", error=str(error) or type(error).__name__)
            wait = policy.longest
        yield min(wait, self._stage.maximum)

    async def speculated(self) -> list[StreamElement]:
        """The message that is answered early, if that can be done now and has not been."""
        stage, known = self._stage, self._speculations
        if not stage.speculative or self._speculation is not None:
            return []
        await asyncio.sleep(0)  # what was yielded may interrupt the answer before
        if known.answering or self._floor.answering or self._floor.speaking:
            return []  # nothing is gained, and to withdraw it would cut off the answer before
        if not known.gates:
            raise RxStageError(
                f"stage {self._context.stage!r} is speculative, but nothing holds the early answers: put a "
                f"SpeculationStage behind the stage that answers"
            )
        self._speculation = known.begin()
        self._context.emit_event("speculation.started", text=text_of(self._words))
        return [*self._beside, joined(self._words, {SPECULATIVE: self._speculation.number})]

    def withdrawn(self) -> Iterator[StreamElement]:
        """More has been said than is being answered."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.decide(False)
            self._context.emit_event("speculation.withdrawn")
            yield StreamElement.interrupt("speculation", source=self._context.stage)

    def over(self, *, marked: bool = False) -> Iterator[StreamElement]:
        """The turn is over, if something was said; `marked` where its end has come in itself."""
        context, words, beside, speculation = self._context, self._words, self._beside, self._speculation
        silence = max(context.now() - self._since, 0.0)
        self._speculation = None
        self._reset()
        if words or marked:
            self._speculations.answering += 1
        if speculation is None:
            yield from beside
        if not words:
            return
        context.emit_event("turn.completed", text=text_of(words), silence=silence, speculative=speculation is not None)
        if speculation is None:
            yield joined(words)
        else:
            speculation.decide(True)
            context.emit_event("speculation.confirmed")
        if not marked:
            yield StreamElement.end_of_turn(metadata=words[-1].metadata, source=context.stage)

    def forget(self) -> None:
        """Nothing of what was said is answered."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.decide(False)
        self._reset()

    def _reset(self) -> None:
        self._disarm()
        self._words, self._beside, self._end, self._wait = [], [], None, (0, 0.0)

    # ---------------------------------------------------------------- time

    def _arm(self, seconds: float) -> None:
        self.due = due = _Due()
        self._timer = self._loop.call_later(seconds, self._tell, due)

    def _disarm(self) -> None:
        self.due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, due: _Due) -> None:
        # Behind what waits already: that may be speech which has begun in time.
        with suppress(RxStageError):  # the input has ended, and with it the turn
            self._context.post(StreamElement(Data(due), priority=Priority.CRITICAL))
