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
    """

    __slots__ = ("entries", "id", "instructions", "stored", "summary", "usage", "version")

    def __init__(self, id: str = "") -> None:
        self.id = id
        self.entries: list[Entry] = []
        self.summary: Summary | None = None
        self.version = 0
        self.stored = 0
        self.usage = Usage()
        self.instructions: tuple[Message, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages, oldest first."""
        return tuple(entry.message for entry in self.entries)

    def add(self, message: Message, metadata: Mapping[str, Any] | None = None) -> Entry:
        """Put a message at the end."""
        entry = Entry(message, metadata=metadata or {})
        self.entries.append(entry)
        return entry

    def answers(self) -> list[list[int]]:
        """Where the assistant's messages stand in the entries, those between two of the user's together.

        The last one is that to the newest message of the user; where nothing has been answered the list is empty.
        """
        answers: list[list[int]] = [[]]
        for at, entry in enumerate(self.entries):
            if entry.message.role == "user":
                answers.append([])
            elif entry.message.role == "assistant":
                answers[-1].append(at)
        return answers

    def cut(self, heard: str | None, at: int = -1) -> None:
        """Leave of an answer only what was heard of it, and nothing of the answers after it: they were never said.

        What is stored already stays as it is, and so does what others have said.

        Args:
            heard: the beginning of the answer that was heard; "" takes it away, None leaves it whole.
            at: place of the message that is cut; by default that of the newest one, if it is an answer.
        """
        entries, stored = self.entries, self.stored
        at = range(len(entries))[at] if entries else 0
        after = max(at + 1, stored)
        entries[after:] = [entry for entry in entries[after:] if entry.message.role not in ("assistant", "tool")]
        if heard is None or not stored <= at < len(entries) or (entry := entries[at]).message.role != "assistant":
            return
        if heard.strip():
            message = Message.assistant(heard.rstrip(), usage=entry.message.usage)
            entries[at] = Entry(message, entry.id, {**entry.metadata, "interrupted": True})
        else:
            del entries[at]

    def revise(self, said: str, went_out: str, *, interrupted: bool = False) -> None:
        """Have an answer be what went out of it, where a stage has changed it on its way: the newest that says this.

        Nothing changes of what is stored already.

        Args:
            said: the answer, in one message or in several with calls of tools.
            went_out: what stands in its place; "" takes it away.
            interrupted: `said` is only as far as it came; no more than that went out.
        """
        entries, answers = self.entries, self.answers()
        for answer in reversed(answers if said else answers[-1:]):
            texts = [entries[at].message.text for at in answer]
            whole = "".join(texts)
            if answer and (whole.startswith(said) if interrupted else whole == said):
                break
        else:
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
