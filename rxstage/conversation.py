"""A conversation while it is held: what the stages of one execution know of it in common.

A turn is what comes in until an `EndOfTurn`, the end of the input or, unless a stage is told otherwise, a user
`Message`, which is a whole utterance. Elements that belong to one of several conversations say so in their metadata,
under `"conversation"`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from rxstage.content import EndOfTurn, Message, Usage
from rxstage.element import StreamElement
from rxstage.ports.store import Entry, StoredConversation, Summary
from rxstage.stage import StageContext

__all__ = [
    "CONVERSATION",
    "HISTORY",
    "PROMPT",
    "TRANSCRIPT",
    "ContextPolicy",
    "Conversation",
    "Conversations",
    "TurnEnd",
    "conversations",
    "ends_turn",
    "is_aside",
]

CONVERSATION: Final = "conversation"
"""Key of the metadata: id of the conversation that an element belongs to."""

HISTORY: Final = "history"
"""Key of the metadata: marks a message that was said before and is only shown."""

PROMPT: Final = "prompt"
"""Key of the metadata: marks a message that instructs the model in this turn only and is no part of the history."""

TRANSCRIPT: Final = "transcript"
"""Key of the metadata: marks text that tells what a user said, `"partial"` or `"final"`; it is shown, not answered."""

TurnEnd: TypeAlias = Literal["message", "control"]
"""What ends a turn: a user `Message` or an `EndOfTurn`, or an `EndOfTurn` alone."""


def ends_turn(element: StreamElement, turns: TurnEnd = "message") -> bool:
    """Whether a turn ends with this element."""
    content = element.content
    if content.__class__ is EndOfTurn:
        return True
    return (
        turns == "message"
        and content.__class__ is Message
        and content.role == "user"
        and PROMPT not in element.metadata
    )


def is_aside(element: StreamElement) -> bool:
    """Whether an element is no part of what is said now: a transcript, what was said before, an instruction."""
    metadata = element.metadata
    return bool(metadata) and (TRANSCRIPT in metadata or HISTORY in metadata or PROMPT in metadata)


class Conversation:
    """The messages of one conversation, and how much of it is stored.

    It belongs to one execution. The stage that answers adds to it; the others read it.

    Attributes:
        id: its name; "" where the elements name none.
        entries: the history, oldest first; without the instructions of a turn.
        summary: stands for the oldest messages where the model is asked.
        version: of what is stored, as far as is known here.
        stored: how many of the entries are stored.
        usage: of all model calls in this execution.
        instructions: what the newest turn was answered by, beside the history.
        turns: the turn that an entry of this execution belongs to, where that is known, by the entry's id: the
            `sequence` of the turn's first element, which the elements of its answer have too.
    """

    __slots__ = ("entries", "id", "instructions", "stored", "summary", "turns", "usage", "version")

    def __init__(self, id: str = "") -> None:
        self.id = id
        self.entries: list[Entry] = []
        self.summary: Summary | None = None
        self.version = 0
        self.stored = 0
        self.usage = Usage()
        self.instructions: tuple[Message, ...] = ()
        self.turns: dict[str, int] = {}

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages, oldest first."""
        return tuple(entry.message for entry in self.entries)

    def add(self, message: Message, metadata: Mapping[str, Any] | None = None, turn: int = 0) -> Entry:
        """Put a message at the end; `turn` is the `sequence` of the first element of the turn, where that is known."""
        entry = Entry(message, metadata=metadata or {})
        self.put(entry, turn)
        return entry

    def put(self, entry: Entry, turn: int = 0) -> None:
        """Likewise, an entry."""
        self.entries.append(entry)
        if turn:
            self.turns[entry.id] = turn

    def answer(self, turn: int) -> list[int]:
        """Where the assistant's messages of a turn stand in the entries.

        Args:
            turn: the `sequence` of its elements. Where it is 0, or whoever has answered did not tell it, the answer is
                what stands behind the newest message of the user.
        """
        entries, turns = self.entries, self.turns
        said = [at for at, entry in enumerate(entries) if entry.message.role == "assistant"]
        known = [at for at in said if turn and turns.get(entries[at].id) == turn]
        begin = next((at for at in range(len(entries), 0, -1) if entries[at - 1].message.role == "user"), 0)
        return known or [at for at in said if at >= begin and (not turn or entries[at].id not in turns)]

    def cut(self, heard: str | None, turn: int | None = 0) -> None:
        """Leave of an answer only what was heard of it, and nothing of the answers to later turns, as never said.

        What is stored already stays as it is, and so do calls of tools and what others have said.

        Args:
            heard: the beginning of its last message that was heard; "" takes it away, None leaves it whole.
            turn: which one, as for `answer`; None: nothing was heard of any in this execution.
        """
        entries, stored = self.entries, self.stored
        if turn != 0:
            entries[stored:] = [
                entry
                for entry in entries[stored:]
                if entry.message.role not in ("assistant", "tool") or self.turns.get(entry.id, 0) <= (turn or 0)
            ]
        answer = self.answer(turn) if turn is not None else []
        if heard is None or not answer or answer[-1] < stored or entries[answer[-1]].message.tool_calls:
            return
        entry = entries[answer[-1]]
        if heard.strip():
            message = Message.assistant(heard.rstrip(), usage=entry.message.usage)
            entries[answer[-1]] = Entry(message, entry.id, {**entry.metadata, "interrupted": True})
        else:
            del entries[answer[-1]]

    def revise(self, turn: int, said: str, went_out: str, *, interrupted: bool = False) -> None:
        """Have an answer be what went out of it, where a stage has changed it on its way.

        Nothing changes of what is stored already, nor where the answer does not say that.

        Args:
            turn: which one, as for `answer`.
            said: the answer, in one message or in several with calls of tools.
            went_out: what stands in its place; "" takes it away.
            interrupted: `said` is only as far as it came; no more than that went out.
        """
        entries, answer = self.entries, self.answer(turn)
        texts = [entries[at].message.text for at in answer]
        whole = "".join(texts)
        if not answer or not (whole.startswith(said) if interrupted else whole == said):
            return
        if interrupted:  # what came last was on its way
            texts[-1] = texts[-1].removesuffix(whole[len(said) :])
        for at, text in reversed([*zip(answer, _shared_out(texts, went_out), strict=True)]):
            entry = entries[at]
            if at < self.stored or entry.message.text == text:
                continue
            if text or entry.message.tool_calls:
                message = Message.assistant(
                    *((text,) if text else ()), tool_calls=entry.message.tool_calls, usage=entry.message.usage
                )
                entries[at] = Entry(message, entry.id, {**entry.metadata, "revised": True})
            else:
                del entries[at]

    def restore(self, stored: StoredConversation) -> None:
        """Take over what a store has; what is here and not stored yet stays, behind it."""
        unsaved = self.entries[self.stored :]
        known = {entry.id for entry in stored.entries}
        self.entries = [*stored.entries, *(entry for entry in unsaved if entry.id not in known)]
        self.stored, self.version, self.summary = len(stored.entries), stored.version, stored.summary


def _shared_out(texts: Sequence[str], whole: str) -> list[str]:
    """A text in place of several: those at both ends that it has too stay as they are."""
    first, last, head, tail = 0, len(texts), 0, len(whole)
    while first < last and whole.startswith(texts[first], head):
        head += len(texts[first])
        first += 1
    while first < last and texts[last - 1] and whole.endswith(texts[last - 1], head, tail):
        last -= 1
        tail -= len(texts[last])
    between = [whole[head:tail], *[""] * (last - first - 1)][: last - first]
    return [*texts[:first], *between, *texts[last:]]


class ContextPolicy(Struct, frozen=True):
    """Decides what of the history a model gets to see; applied before each call.

    Attributes:
        rank: policies are applied in the order of their ranks, whatever the order of the stages.
        apply: `async apply(history, instructions, conversation)` gives the history to send. `history` ends with the
            newest turn; `instructions` are the system and example messages of the turn, which are sent as they are.
        stage: name of the stage that it comes from.
    """

    rank: int
    apply: Callable[[Sequence[Message], Sequence[Message], Conversation], Awaitable[Sequence[Message]]]
    stage: str = ""


class Conversations:
    """The conversations of one execution, by id, and the policies of its stages for what a model gets to see.

    Attributes:
        answerer: name of the stage that adds to them; "" where none does.
        policies: for what a model gets to see.
        cutters: know what of an answer was heard.
    """

    __slots__ = ("_held", "answerer", "cutters", "policies")

    def __init__(self) -> None:
        self._held: dict[str, Conversation] = {}
        self.answerer = ""
        self.policies: list[ContextPolicy] = []
        self.cutters: list[Callable[[Conversation], object]] = []

    def of(self, element: StreamElement | None = None, default: str = "") -> Conversation:
        """The conversation that an element belongs to.

        Args:
            element: names it in its metadata; without one, and where it names none, it is `default`.
            default: id for elements that name none.
        """
        return self.named(str(element.metadata.get(CONVERSATION, default)) if element is not None else default)

    def named(self, id: str) -> Conversation:
        """The conversation of that id."""
        held = self._held.get(id)
        if held is None:
            held = self._held[id] = Conversation(id)
        return held

    def held(self) -> Iterable[Conversation]:
        """All of them."""
        return tuple(self._held.values())

    def add_policy(self, policy: ContextPolicy) -> None:
        """Have a policy applied to what the model gets to see."""
        self.policies.append(policy)
        self.policies.sort(key=lambda each: each.rank)

    def interrupted(self, conversation: Conversation) -> None:
        """An answer was interrupted: whoever knows what of it was heard cuts the history down to that."""
        for cut in self.cutters:
            cut(conversation)

    async def shown(
        self, history: Sequence[Message], instructions: Sequence[Message], conversation: Conversation
    ) -> Sequence[Message]:
        """What of the history the model gets to see, by all policies."""
        for policy in self.policies:
            history = await policy.apply(history, instructions, conversation)
        return history


def conversations(context: StageContext) -> Conversations:
    """The conversations of the execution that a stage runs in."""
    return context.shared(Conversations, Conversations)
