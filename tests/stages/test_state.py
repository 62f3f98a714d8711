"""Conversations that are loaded and saved: each message once, by several at once, after crashes, without a store."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rxstage import (
    Event,
    FilterStage,
    Interrupt,
    Message,
    Pipeline,
    SinkStage,
    Stage,
    StageContext,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
    ToolCall,
    ToolResult,
)
from rxstage.adapters.memory import MemoryStore
from rxstage.adapters.sqlite import SqliteStore
from rxstage.adapters.stores import UnknownStore, store_of
from rxstage.conversation import CONVERSATION, HISTORY, conversations
from rxstage.ports import Entry, StateConflict, StateStore, StoredConversation, StoreError, Summary
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.state import StateStoreLoadStage, StateStoreSaveStage
from rxstage.stages.state.repair import lost_results, well_formed
from rxstage.testing import assert_no_leaks, check_stage, run_virtual, virtual

END = StreamElement.end_of_turn


class Watched(StateStore):
    """A store that writes down what it is asked, takes its time, fails when it is told to, and lets others in between.

    Attributes:
        asked: names of the calls.
        saved: ids of the entries of each append that was done.
        delay: seconds that each call takes.
        down: each call is an error.
        forgets: the next append is done, and then is an error.
        others: what somebody else has written right before the next append.
    """

    def __init__(self, inner: StateStore | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.asked: list[str] = []
        self.saved: list[list[str]] = []
        self.delay = 0.0
        self.down = self.forgets = False
        self.others: list[Sequence[Entry]] = []

    async def _ask(self, name: str) -> None:
        self.asked.append(name)
        await asyncio.sleep(self.delay)
        if self.down:
            raise StoreError("the store is down")

    async def load(self, conversation: str) -> StoredConversation:
        await self._ask("load")
        return await self.inner.load(conversation)

    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        await self._ask("append")
        if self.others:
            await self.inner.append(conversation, self.others.pop(0), version=await self.version(conversation))
        after = await self.inner.append(conversation, entries, version=version)
        self.saved.append([entry.message.text or entry.message.role for entry in entries])
        if self.forgets:
            self.forgets = False
            raise StoreError("the connection broke")
        return after

    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        await self._ask("summarize")
        return await self.inner.summarize(conversation, summary, version=version)

    async def delete(self, conversation: str) -> bool:
        return await self.inner.delete(conversation)

    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        return await self.inner.conversations(limit=limit)

    async def expire(self, older_than: float) -> int:
        await self._ask("expire")
        return await self.inner.expire(older_than)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def version(self, conversation: str = "talk") -> int:
        return (await self.inner.load(conversation)).version


def said(*texts: str) -> list[Entry]:
    """Messages by turns of the user and the assistant."""
    roles = itertools.cycle((Message.user, Message.assistant))
    return [Entry(role(text)) for role, text in zip(roles, texts, strict=False)]


def filled(*texts: str) -> Watched:
    """A store with a conversation `talk`."""
    store = Watched()
    if texts:
        run_virtual(store.inner.append("talk", said(*texts), version=0))
    return store


def told(store: StateStore, conversation: str = "talk") -> list[str]:
    """The text of each message that is stored, or its role."""
    stored = run_virtual(load(store, conversation))
    return [entry.message.text or entry.message.role for entry in stored.entries]


async def load(store: StateStore, conversation: str = "talk") -> StoredConversation:
    async with store:
        return await (store.inner if isinstance(store, Watched) else store).load(conversation)


def asked(provider: ScriptedProvider) -> list[list[str]]:
    """The texts of the messages of each call, or their roles."""
    return [[message.text or message.role for message in call.messages] for call in provider.calls]


def texts(elements: Any) -> list[str]:
    names = []
    for element in elements:
        content = element.content
        match content:
            case Text(text):
                names.append(text)
            case Message(role=role):
                names.append(f"<{role}: {content.text}>")
            case _:
                names.append(f"<{type(content).__name__}>")
    return names


def talking(
    store: Any,
    provider: Any,
    *between: Stage,
    load: dict[str, Any] | None = None,
    save: dict[str, Any] | None = None,
    **options: Any,
) -> Pipeline:
    """Load, answer, save; `between` stands before the stage that saves."""
    chain: Any = StateStoreLoadStage("load", store=store, **{"conversation": "talk", **(load or {})})
    chain = chain >> ProviderStage("assistant", provider=provider, **options)
    for stage in between:
        chain = chain >> stage
    return Pipeline.of(chain >> StateStoreSaveStage("save", store=store, **(save or {})))


def events_of(pipeline: Pipeline, kind: str = "state.") -> list[Event]:
    events: list[Event] = []
    pipeline.events.subscribe(lambda event: events.append(event) if event.type.startswith(kind) else None)
    return events


def kinds(events: list[Event]) -> list[str]:
    return [event.type.removeprefix("state.") for event in events]


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def taken(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[StreamElement]:
    """What comes out of an open session, in virtual time."""

    async def main() -> list[StreamElement]:
        return [element async for element in pipeline.execute(feed(*steps))]

    with assert_no_leaks():
        return run_virtual(main())


# ------------------------------------------------------------------------------------------ there and back


@pytest.mark.needs("module:aiosqlite")
def test_a_conversation_goes_on_in_another_execution(tmp_path: Path) -> None:
    """What was said in one execution is known in the next, with a store that a URL names; nothing is left open."""
    url = f"sqlite:///{tmp_path}/talks.db"
    with assert_no_leaks():
        for number in range(3):
            provider = ScriptedProvider(f"Answer {number}.")
            result = talking(url, provider).run([Message.user(f"Question {number}?")])
            assert result.text == f"Answer {number}."
            before = [text for turn in range(number) for text in (f"Question {turn}?", f"Answer {turn}.")]
            assert asked(provider) == [[*before, f"Question {number}?"]]
        assert told(store_of(url)) == [text for turn in range(3) for text in (f"Question {turn}?", f"Answer {turn}.")]


def test_loaded_once_and_saved_bit_by_bit() -> None:
    """It is loaded once, at its first element, and each message is saved once, when it is there."""
    store = filled("a", "b")
    pipeline = talking(store, ScriptedProvider("d d", "f f", token_delay=1.0))
    events = events_of(pipeline)
    out = taken(pipeline, (5, Message.user("c")), (5, END()), (5, Message.user("e")), (5, END()))
    assert texts(out) == ["d", " d", "<assistant: d d>", "<EndOfTurn>", "f", " f", "<assistant: f f>", "<EndOfTurn>"]
    assert {element.metadata[CONVERSATION] for element in out} == {"talk"}
    assert store.asked == ["load", "append", "append", "append", "append"]
    assert store.saved == [["c"], ["d d"], ["e"], ["f f"]]
    assert told(store) == ["a", "b", "c", "d d", "e", "f f"]
    assert [(event.type, event.stage, event.data["conversation"], event.data["version"]) for event in events] == [
        ("state.loaded", "load", "talk", 1),
        *(("state.saved", "save", "talk", version) for version in (2, 3, 4, 5)),
    ]
    assert [event.data["messages"] for event in events] == [2, 1, 1, 1, 1]
    assert events[0].time == 5.0


def test_several_conversations_in_one_execution() -> None:
    """Elements that name their conversation are answered with its history, and each is saved apart."""
    store = filled("a", "b")
    provider = ScriptedProvider(default=lambda request: f"to {request.messages[-1].text}")
    source = [
        StreamElement.of(Message.user(f"{id} {number}"), metadata={CONVERSATION: id})
        for number in range(3)
        for id in ("talk", "x", "y")
    ]
    talking(store, provider, load={"conversation": None}).run(source)
    assert store.asked.count("load") == 3
    assert told(store) == ["a", "b", *(text for n in range(3) for text in (f"talk {n}", f"to talk {n}"))]
    for id in "xy":
        assert told(store, id) == [text for n in range(3) for text in (f"{id} {n}", f"to {id} {n}")]
    assert asked(provider)[-1] == ["y 0", "to y 0", "y 1", "to y 1", "y 2"]


def test_what_names_no_conversation() -> None:
    """An element without a conversation is an error that says how to name one; a control is none."""
    loads = Pipeline.of(StateStoreLoadStage("load", store=MemoryStore()))
    with pytest.raises(StageError, match=r"'load'.* names no conversation: give the stage .*conversation='...'"):
        loads.run(["hi"])
    assert texts(loads.run([END()]).elements) == ["<EndOfTurn>"]
    answers = ProviderStage("assistant", provider=ScriptedProvider("hello", "hello"))
    with pytest.raises(StageError, match=r"'save'.* has no id: give the stage that saves conversation='...'"):
        Pipeline.of(answers >> StateStoreSaveStage("save", store=MemoryStore())).run(["hi"])
    skips = Pipeline.of(answers >> StateStoreSaveStage("save", store=MemoryStore(), on_error="skip"))
    events = events_of(skips)
    assert skips.run(["hi"]).text == "hello"
    assert set(kinds(events)) == {"failed"}


def test_what_is_no_store() -> None:
    """A store that is none, an unknown URL and a wrong option are errors where the stage is made."""
    for kind in (StateStoreLoadStage, StateStoreSaveStage):
        with pytest.raises(TypeError, match=r"stage 'state': a store must be a StateStore or a URL .* got 7"):
            kind("state", store=7)
        with pytest.raises(UnknownStore, match="mongodb"):
            kind("state", store="mongodb://localhost")
        with pytest.raises(ValueError, match="on_error"):
            kind("state", store="memory://", on_error="emit")
    with pytest.raises(ValueError, match="keep"):
        StateStoreSaveStage(store="memory://", keep=0)


def test_the_history_for_display() -> None:
    """With `emit` what was loaded comes first, marked, before anybody speaks, and is not answered again."""
    store = filled("a", "b")
    provider = ScriptedProvider("d")
    out = taken(talking(store, provider, load={"emit": True}), (50, Message.user("c")))
    assert texts(out) == ["<user: a>", "<assistant: b>", "d", "<assistant: d>"]
    assert [HISTORY in element.metadata for element in out] == [True, True, False, False]
    assert [element.timestamp for element in out[:2]] == [0.0, 0.0]
    assert asked(provider) == [["a", "b", "c"]]
    assert told(store) == ["a", "b", "c", "d"]


# ------------------------------------------------------------------------------------------ when it is saved


@virtual
async def test_stored_before_the_answer_has_ended() -> None:
    """The user's message is stored when the answer begins, and the answer when its message goes on."""
    store = Watched()
    provider = ScriptedProvider(Reply(text="one two three", token_delay=10.0))
    seen = []
    async with assert_no_leaks():
        execution = talking(store, provider).execute([Message.user("a")])
        elements = asyncio.ensure_future(_all(execution))
        for _ in range(4):
            await asyncio.sleep(9.0)
            seen.append([entry.message.text for entry in (await load(store)).entries])
        await elements
    assert seen == [["a"], ["a"], ["a", "one two three"], ["a", "one two three"]]
    assert store.saved == [["a"], ["one two three"]]


@virtual
async def test_what_is_seen_is_stored() -> None:
    """When the message of an answer comes out, it is stored."""
    store = Watched()
    store.delay = 3.0
    async with assert_no_leaks():
        async for element in talking(store, ScriptedProvider("one two")).execute([Message.user("a")]):
            if element.message is not None:
                assert [entry.message.text for entry in (await load(store)).entries] == ["a", "one two"]
                return
    pytest.fail("there was no message")


@virtual
async def test_a_slow_store_holds_up_no_piece() -> None:
    """Pieces of the answer go on while the store takes its time; the message waits until everything is stored."""
    store = Watched()
    store.delay = 7.0
    provider = ScriptedProvider(Reply(text="one two three", token_delay=1.0))
    loop = asyncio.get_running_loop()
    async with assert_no_leaks():
        execution = talking(store, provider).execute([Message.user("a")])
        seen = [(element.text or "message", loop.time()) async for element in execution]
    assert seen == [("one", 7.0), (" two", 8.0), (" three", 9.0), ("message", 21.0)]
    assert store.saved == [["a"], ["one two three"]]


@virtual
async def test_tools_are_saved_as_they_come() -> None:
    """A call is stored before its tool has ended, and the result while the model is thinking about it."""
    store = Watched()

    async def slow() -> str:
        await asyncio.sleep(10.0)
        return "done"

    provider = ScriptedProvider(ToolCall("slow", {}, "1"), Reply(text="Ready.", delay=10.0))
    pipeline = talking(store, provider, tools=[slow])
    async with assert_no_leaks():
        execution = pipeline.execute([Message.user("a")])
        elements = asyncio.ensure_future(_all(execution))
        await asyncio.sleep(5.0)
        assert [entry.message.role for entry in (await load(store)).entries] == ["user", "assistant"]
        await asyncio.sleep(10.0)
        stored = await load(store)
        assert [entry.message.role for entry in stored.entries] == ["user", "assistant", "tool"]
        assert stored.entries[2].message.parts == (ToolResult("1", "done", "slow"),)
        await elements
    assert [text for batch in store.saved for text in batch] == ["a", "assistant", "tool", "Ready."]


async def _all(execution: Any) -> list[StreamElement]:
    return [element async for element in execution]


def test_a_turn_at_a_time() -> None:
    """With `when="turn"` a turn is saved at its end, tools and all, and half a one where it is cut short."""
    store = Watched()

    def count() -> int:
        return 3

    provider = ScriptedProvider(ToolCall("count", {}, "1"), "Three.", Reply(text="And more", stalls=True))
    pipeline = talking(store, provider, tools=[count], save={"when": "turn"})
    out = taken(pipeline, (0, Message.user("a")), (5, Message.user("b")), (5, StreamElement.interrupt()), (5, END()))
    assert texts(out)[-4:] == ["And", " more", "<Interrupt>", "<EndOfTurn>"]
    assert store.saved == [["a", "assistant", "tool", "Three."], ["b", "And more"]]


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda: FilterStage("nothing", lambda element: False), id="filter"),
        pytest.param(lambda: SinkStage("shown", lambda element: None), id="sink"),
        pytest.param(lambda: StageFunc("only_text", StageType.TRANSFORM, _without_messages), id="loop"),
    ],
)
def test_39_a_stage_that_consumes_the_message(between: Callable[[], Stage]) -> None:
    """CASE 39: saving is not prevented by a stage before it that consumes the message; nothing is saved twice."""
    store = Watched()
    pipeline = talking(store, ScriptedProvider("b", "d", "f"), between())
    taken(pipeline, (0, Message.user("a")), (1, END()), (1, Message.user("c")), (1, Message.user("e")))
    assert [text for batch in store.saved for text in batch] == ["a", "b", "c", "d", "e", "f"]
    assert told(store) == ["a", "b", "c", "d", "e", "f"]


async def _without_messages(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        if element.message is None:
            yield element


@virtual
async def test_nothing_follows_an_answer_whose_message_was_consumed() -> None:
    """An answer behind which nothing comes any more is stored when it has been quiet for two seconds."""
    store = Watched()
    pipeline = talking(store, ScriptedProvider("b"), StageFunc("texts", StageType.TRANSFORM, _without_messages))
    async with assert_no_leaks(), pipeline.execute(feed((0, Message.user("a")), (1000, END()))) as run:
        elements = asyncio.ensure_future(_all(run))
        await asyncio.sleep(1.0)
        assert store.saved == [["a"]]
        await asyncio.sleep(2.0)
        assert store.saved == [["a"], ["b"]]
        await elements


def playing(seconds: float) -> Stage:
    """A stage that plays an answer: what comes after a text waits; an interrupt leaves what was heard of it."""

    async def process(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        heard = ""
        newest: StreamElement | None = None
        async for element in elements:
            if element.text:
                newest = element
                for word in element.text.split():
                    if context.interrupted:
                        break
                    heard += f"{word} "
                    yield element.replace(content=word)
                    end = context.now() + seconds
                    while context.now() < end and not context.interrupted:
                        await context.sleep(0.02)
                continue
            if isinstance(element.content, Interrupt) and newest is not None:
                conversations(context).of(newest).cut(heard)
            yield element

    return StageFunc("plays", StageType.TRANSFORM, process)


def test_an_answer_that_was_not_heard_to_its_end() -> None:
    """While an answer is played it is not stored, so that an interrupt leaves in the history just what was heard."""
    store = Watched()
    whole = ScriptedProvider("one two three four five", "Yes?")
    pipeline = talking(store, whole, playing(1.5), streaming=False)
    out = taken(
        pipeline,
        (0, Message.user("a")),
        (2.0, StreamElement.of(Message.user("noise"), metadata={HISTORY: True})),
        (2.0, StreamElement.interrupt()),
        (5, Message.user("b")),
        (50, END()),
    )
    assert [element.text for element in out if element.text] == ["one", "two", "three", "Yes?"]
    assert store.saved == [["a"], ["one two three"], ["b"], ["Yes?"]]
    assert asked(whole)[-1] == ["a", "one two three", "b"]
    assert told(store) == ["a", "one two three", "b", "Yes?"]

    store = Watched()
    taken(
        talking(store, ScriptedProvider("one two"), playing(1.5), streaming=False), (0, Message.user("a")), (9, END())
    )
    assert store.saved == [["a"], ["one two"]]


def test_a_message_that_is_taken_back_while_it_is_saved() -> None:
    """Where a stage takes back what is just being saved, what is stored stays, and nothing after it is lost."""
    store = Watched()
    store.delay = 1.0

    async def process(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
            if element.text == "b":
                await context.sleep(0.5)  # the first message is on its way to the store
                del conversations(context).of(element).entries[0]

    pipeline = talking(
        store, ScriptedProvider("b c", "d"), StageFunc("takes_back", StageType.TRANSFORM, process), streaming=True
    )
    taken(pipeline, (0, Message.user("a")), (50, Message.user("x")))
    assert told(store)[0] == "a"
    assert sorted(told(store)) == ["a", "b c", "d", "x"]


def test_two_stages_that_save() -> None:
    """Two stages that save the same conversation in one execution save nothing twice."""
    store = Watched()
    pipeline = talking(store, ScriptedProvider("b", "d"), StateStoreSaveStage("first", store=store))
    pipeline.run([Message.user("a"), Message.user("c")])
    assert [text for batch in store.saved for text in batch] == ["a", "b", "c", "d"]
    assert told(store) == ["a", "b", "c", "d"]


# ------------------------------------------------------------------------------------------ several at once


def test_two_executions_on_one_conversation() -> None:
    """Two executions that talk at once lose nothing: each message is stored once, and each is told of the other's."""
    store = Watched()
    providers = [ScriptedProvider(*(Reply(text=f"{n}{name}!", delay=3.0) for n in range(3))) for name in "xy"]
    pipelines = [talking(store, provider) for provider in providers]
    events = events_of(pipelines[0]), events_of(pipelines[1])

    async def main() -> None:
        async def hold(number: int, name: str) -> None:
            steps = [(4.0 + number, Message.user(f"{n}{name}")) for n in range(3)]
            await _all(pipelines[number].execute(feed(*steps)))

        await asyncio.gather(hold(0, "x"), hold(1, "y"))

    with assert_no_leaks():
        run_virtual(main())
    found = told(store)
    for name in "xy":
        own = [text for text in found if name in text]
        assert own == [text for n in range(3) for text in (f"{n}{name}", f"{n}{name}!")]
    assert len(found) == 12
    conflicts = [event for event in (*events[0], *events[1]) if event.type == "state.conflict"]
    assert conflicts
    assert all(event.data["merged"] and event.data["messages"] > 0 for event in conflicts)
    assert "0y" in asked(providers[0])[-1]
    assert "0x!" in asked(providers[1])[-1]


def test_a_conflict_is_merged() -> None:
    """What somebody else has written meanwhile stays where it is, and what is new here goes behind it."""
    store = filled("a", "b")
    store.others = [said("theirs", "and ours")]
    provider = ScriptedProvider("d", "f")
    pipeline = talking(store, provider)
    events = events_of(pipeline, "state.conflict")
    taken(pipeline, (0, Message.user("c")), (5, Message.user("e")))
    assert told(store) == ["a", "b", "theirs", "and ours", "c", "d", "e", "f"]
    assert asked(provider)[-1] == ["a", "b", "theirs", "and ours", "c", "d", "e"]
    assert [dict(event.data) for event in events] == [
        {"conversation": "talk", "expected": 1, "actual": 2, "messages": 2, "merged": True}
    ]


def test_a_conflict_is_refused() -> None:
    """With `on_conflict="refuse"` it is an error that says so, and nothing is written over or behind what is there."""
    store = filled("a", "b")
    store.others = [said("theirs")]
    with pytest.raises(StageError, match=r"'save'.*'talk' is at version 2 in the store, not at 1.*merge") as caught:
        talking(store, ScriptedProvider("d"), save={"on_conflict": "refuse"}).run([Message.user("c")])
    assert isinstance(caught.value.__cause__, StateConflict)
    assert told(store) == ["a", "b", "theirs"]

    store = filled("a", "b")
    store.others = [said("theirs")]
    pipeline = talking(store, ScriptedProvider("d", "f"), save={"on_conflict": "refuse", "on_error": "skip"})
    events = events_of(pipeline)
    assert pipeline.run([Message.user("c"), Message.user("e")]).text == "df"
    assert told(store) == ["a", "b", "theirs"]
    assert kinds(events)[:3] == ["loaded", "conflict", "failed"]
    assert "saved" not in kinds(events)


def test_others_never_stop_writing() -> None:
    """Where each save meets another conflict it is given up after a number of tries."""
    store = filled("a", "b")
    store.others = [said(f"theirs {number}") for number in range(100)]
    with pytest.raises(StageError, match=r"'save'.*at version"):
        talking(store, ScriptedProvider("d")).run([Message.user("c")])
    assert store.asked.count("append") == 20


def test_saved_without_having_been_loaded() -> None:
    """Without a stage that loads, what the store has of the conversation is taken over at the first save."""
    store = filled("a", "b")
    provider = ScriptedProvider("d", "f")
    chain = ProviderStage("assistant", provider=provider) >> StateStoreSaveStage(store=store, conversation="talk")
    source = [StreamElement.of(Message.user(text), metadata={CONVERSATION: "talk"}) for text in ("c", "e")]
    taken(Pipeline.of(chain), *((5, element) for element in source))
    assert told(store) == ["a", "b", "c", "d", "e", "f"]
    assert asked(provider) == [["c"], ["a", "b", "c", "d", "e"]]


def test_a_conversation_that_no_element_names() -> None:
    """Without a stage that loads, what names no conversation is saved under the id that the stage was given."""
    store = filled("a", "b")
    provider = ScriptedProvider("d", "f")
    chain = ProviderStage("assistant", provider=provider) >> StateStoreSaveStage(store=store, conversation="talk")
    pipeline = Pipeline.of(chain)
    events = events_of(pipeline, "state.saved")
    taken(pipeline, (0, Message.user("c")), (5, Message.user("e")))
    assert told(store) == ["a", "b", "c", "d", "e", "f"]
    assert asked(provider) == [["c"], ["a", "b", "c", "d", "e"]]
    assert {event.data["conversation"] for event in events} == {"talk"}


def test_an_outcome_that_is_not_known() -> None:
    """A save that was done and reported as failed is not done again, nor taken for a conflict with somebody else."""
    steps = [(5, Message.user("c")), (5, Message.user("e"))]
    for on_conflict in ("merge", "refuse"):
        store = filled("a", "b")
        store.forgets = True
        pipeline = talking(store, ScriptedProvider("d", "f"), save={"on_error": "skip", "on_conflict": on_conflict})
        events = events_of(pipeline)
        assert [element.text for element in taken(pipeline, *steps) if element.text] == ["d", "f"]
        assert told(store) == ["a", "b", "c", "d", "e", "f"]
        assert kinds(events) == ["loaded", "failed", "saved"]

        store = filled("a", "b")
        store.forgets, store.others = True, [[], said("theirs")]
        pipeline = talking(store, ScriptedProvider("d", "f"), save={"on_error": "skip", "on_conflict": on_conflict})
        events = events_of(pipeline)
        taken(pipeline, *steps)
        ours = ["e", "f"] if on_conflict == "merge" else []
        assert told(store) == ["a", "b", "c", "d", "theirs", *ours]
        assert kinds(events)[:3] == ["loaded", "failed", "conflict"]


def test_a_conversation_that_is_deleted_meanwhile() -> None:
    """What somebody has deleted does not come back: what is said from then on begins it anew."""
    store = filled("a", "b")

    async def delete(element: StreamElement) -> StreamElement:
        if element.message is not None and element.message.text == "e":
            await store.delete("talk")
        return element

    provider = ScriptedProvider("d", "f", "h")
    chain = (
        StateStoreLoadStage(store=store, conversation="talk")
        >> StageFunc("deletes", StageType.TRANSFORM, _each(delete))
        >> ProviderStage("assistant", provider=provider)
        >> StateStoreSaveStage("save", store=store)
    )
    pipeline = Pipeline.of(chain)
    events = events_of(pipeline, "state.conflict")
    taken(pipeline, (0, Message.user("c")), (5, Message.user("e")), (5, Message.user("g")))
    assert told(store) == ["e", "f", "g", "h"]
    assert asked(provider)[-1] == ["e", "f", "g"]
    assert [(event.data["actual"], event.data["messages"]) for event in events] == [(0, 0)]


def _each(function: Any) -> Any:
    async def process(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield await function(element)

    return process


def test_somebody_comes_between_a_call_and_its_result() -> None:
    """A merged history has the results of tools behind their calls again when the model is asked."""
    store = Watched()
    store.others = [[], said("theirs")]

    async def count() -> int:
        await asyncio.sleep(5.0)
        return 3

    provider = ScriptedProvider(ToolCall("count", {}, "1"), "Three.", "More.")
    taken(talking(store, provider, tools=[count]), (0, Message.user("a")), (10, Message.user("b")))
    assert told(store) == ["a", "assistant", "theirs", "tool", "Three.", "b", "More."]
    assert asked(provider)[-1] == ["a", "assistant", "tool", "theirs", "Three.", "b"]


# ------------------------------------------------------------------------------------------ after a crash


@pytest.mark.parametrize(
    ("resume", "requests", "stored", "out"),
    [
        ("keep", [["a", "b", "c", "e"]], ["a", "b", "c", "e", "1"], ["1"]),
        ("answer", [["a", "b", "c"], ["a", "b", "c", "1", "e"]], ["a", "b", "c", "1", "e", "2"], ["1", "2"]),
        ("drop", [["a", "b", "e"]], ["a", "b", "c", "e", "1"], ["1"]),
    ],
)
def test_a_message_that_nobody_has_answered(
    resume: str, requests: list[list[str]], stored: list[str], out: list[str]
) -> None:
    """After a crash in mid-turn the unanswered message stays, is answered first, or is left out; never stored twice."""
    for conflict in (False, True):
        store = filled("a", "b", "c")
        provider = ScriptedProvider("1", "2")
        pipeline = talking(store, provider, load={"resume": resume})
        events = events_of(pipeline, "state.resumed")
        if conflict:
            store.others = [said("theirs")]
        result = taken(pipeline, (10, Message.user("e")))
        assert [element.text for element in result if element.text] == out
        if not conflict:
            assert asked(provider) == requests
            assert told(store) == stored
        else:
            assert sorted(told(store)) == sorted([*stored, "theirs"])
        assert [dict(event.data) for event in events] == [{"conversation": "talk", "unanswered": resume}]


def test_crash_after_crash() -> None:
    """A message whose answer crashes again and again is answered in the end, and stored once."""
    store = filled("a", "b", "c")
    for _ in range(3):
        provider = ScriptedProvider(RuntimeError("the process dies"))
        with pytest.raises(StageError, match="the process dies"):
            talking(store, provider, load={"resume": "answer"}).run([])
        assert asked(provider) == [["a", "b", "c"]]
        assert told(store) == ["a", "b", "c"]
    assert talking(store, ScriptedProvider("d"), load={"resume": "answer"}).run([]).text == "d"
    assert told(store) == ["a", "b", "c", "d"]
    assert talking(store, ScriptedProvider(), load={"resume": "answer"}).run([]).text == ""


def test_answered_where_turns_end_with_a_control() -> None:
    """Where only an `EndOfTurn` ends a turn, the message that comes in again brings one."""
    store = filled("a", "b", "c")
    provider = ScriptedProvider("1", "2")
    pipeline = talking(store, provider, load={"resume": "answer", "turns": "control"}, turns="control")
    out = taken(pipeline, (10, "e"), (0, END()))
    assert texts(out) == ["1", "<assistant: 1>", "<EndOfTurn>", "2", "<assistant: 2>", "<EndOfTurn>"]
    assert told(store) == ["a", "b", "c", "1", "e", "2"]


def test_a_message_that_comes_in_again_changed() -> None:
    """Where a stage changes the message that comes in again, both are kept, and the first is stored once."""
    store = filled("a", "b", "c")
    provider = ScriptedProvider("1")
    louder = FilterStage("same", lambda element: True)
    chain = (
        StateStoreLoadStage(store=store, conversation="talk", resume="answer")
        >> StageFunc("louder", StageType.TRANSFORM, _each(_louder))
        >> ProviderStage("assistant", provider=provider)
        >> louder
        >> StateStoreSaveStage(store=store)
    )
    Pipeline.of(chain).run([])
    assert told(store) == ["a", "b", "c", "C", "1"]
    assert store.saved == [["C", "1"]]


async def _louder(element: StreamElement) -> StreamElement:
    message = element.message
    return element if message is None else element.replace(content=Message.user(message.text.upper()))


def test_tools_that_were_interrupted() -> None:
    """Calls without results get one that says so, stored once, however many executions find them."""
    calls = (ToolCall("pay", {"sum": 5}, "1"), ToolCall("look", {}, "2"))
    store = Watched()
    entries = [
        *said("a"),
        Entry(Message.assistant("One moment.", tool_calls=calls)),
        Entry(Message("tool", (ToolResult("2", "seen", "look"),))),
    ]
    run_virtual(store.inner.append("talk", entries, version=0))
    providers = [ScriptedProvider("x"), ScriptedProvider("y")]
    pipelines = [talking(store, provider) for provider in providers]
    events = events_of(pipelines[0], "state.resumed")

    async def main() -> None:
        await asyncio.gather(*(_all(pipeline.execute(["b"])) for pipeline in pipelines))

    run_virtual(main())
    lost = ToolResult(
        "1", "It was interrupted before it finished; whether it took effect is not known.", "pay", is_error=True
    )
    assert providers[0].calls[0].messages[3] == Message("tool", (lost,))
    assert [dict(event.data) for event in events] == [{"conversation": "talk", "interrupted_tools": ["pay"]}]
    stored = run_virtual(load(store)).entries
    assert [entry.message for entry in stored].count(Message("tool", (lost,))) == 1
    assert stored[3].metadata == {"interrupted": True}
    assert len(stored) == 8


_CRASHES = """
import asyncio, sys
from rxstage import Message, Pipeline
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.state import StateStoreLoadStage, StateStoreSaveStage

provider = ScriptedProvider("b", Reply(text="half an answer", stalls=True))
pipeline = Pipeline.of(
    StateStoreLoadStage(store=sys.argv[1], conversation="talk")
    >> ProviderStage("assistant", provider=provider)
    >> StateStoreSaveStage(store=sys.argv[1])
)

async def main():
    async for element in pipeline.execute([Message.user("a"), Message.user("c")]):
        if element.text == " answer":
            await asyncio.sleep(0.5)
            print("now", flush=True)

asyncio.run(main())
"""


@pytest.mark.needs("module:aiosqlite")
def test_a_process_is_killed_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    """A process that is killed in mid-turn has stored all before it, and the next one answers what was left."""
    url = f"sqlite:///{tmp_path}/talks.db"
    process = subprocess.Popen([sys.executable, "-c", _CRASHES, url], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
    finally:
        process.kill()
        process.communicate()
    provider = ScriptedProvider("d")
    assert talking(url, provider, load={"resume": "answer"}).run([]).text == "d"
    assert asked(provider) == [["a", "b", "c"]]
    assert told(SqliteStore(tmp_path / "talks.db")) == ["a", "b", "c", "d"]


# ------------------------------------------------------------------------------------------ ends


@virtual
async def test_an_interrupt() -> None:
    """What of the answer went out before an interrupt is stored soon after it, though nothing follows."""
    store = Watched()
    provider = ScriptedProvider(Reply(text="half an answer", stalls=True))
    async with assert_no_leaks(), talking(store, provider).execute(feed((0, Message.user("a")), (1000, END()))) as run:
        elements = asyncio.ensure_future(_all(run))
        await asyncio.sleep(1.0)
        run.interrupt()
        await asyncio.sleep(1.0)
        stored = (await load(store)).entries
        assert [entry.message.text for entry in stored] == ["a", "half an answer"]
        assert stored[1].metadata == {"interrupted": True}
        await elements


@virtual
async def test_cancelled_in_the_middle_of_an_answer() -> None:
    """When an execution is cancelled, what has been said so far is stored before it is gone."""
    store = Watched()
    provider = ScriptedProvider(Reply(text="half an answer", stalls=True))
    async with assert_no_leaks():
        async with talking(store, provider).execute(feed((0, Message.user("a")), (1000, END()))) as run:
            elements = aiter(run)
            for _ in range(3):
                await anext(elements)
        assert [entry.message.text for entry in (await load(store)).entries] == ["a", "half an answer"]


@virtual
async def test_cancelled_while_the_store_hangs() -> None:
    """A store that does not answer holds up the end of an execution for a second at most."""
    store = Watched()
    provider = ScriptedProvider(Reply(text="half an answer", stalls=True))
    loop = asyncio.get_running_loop()
    async with assert_no_leaks():
        async with talking(store, provider).execute(feed((0, Message.user("a")), (1000, END()))) as run:
            elements = aiter(run)
            await anext(elements)
            store.delay = 1e5
            await asyncio.sleep(1.0)
            begin = loop.time()
        assert loop.time() - begin < 1.5
    assert [entry.message.text for entry in (await load(store)).entries] == ["a"]


def test_an_answer_that_fails() -> None:
    """Where the answer fails and ends the execution, the user's message is stored all the same."""
    store = Watched()
    with pytest.raises(StageError, match="no answer"):
        talking(store, ScriptedProvider("b", RuntimeError("no answer"))).run([Message.user("a"), Message.user("c")])
    assert told(store) == ["a", "b", "c"]


# ------------------------------------------------------------------------------------------ dead stores


def test_a_dead_store_ends_the_execution() -> None:
    """A store that cannot be read or written is an error that names the stage and says what is the matter."""
    for down_at, stage in (("load", "load"), ("append", "save")):
        store = filled("a", "b")
        store.down = down_at == "load"

        async def goes_down(element: StreamElement, store: Watched = store) -> StreamElement:
            store.down = True
            return element

        pipeline = talking(store, ScriptedProvider("d"), StageFunc("down", StageType.TRANSFORM, _each(goes_down)))
        events = events_of(pipeline, "state.failed")
        with pytest.raises(StageError, match=f"stage '{stage}' .*the store is down") as caught:
            pipeline.run([Message.user("c")])
        assert isinstance(caught.value.__cause__, StoreError)
        action = "load" if stage == "load" else "save"
        assert [dict(event.data) for event in events] == [
            {"conversation": "talk", "action": action, "error": "the store is down"}
        ]


def test_the_conversation_goes_on_without_its_store() -> None:
    """With `on_error="skip"` each turn is answered; when the store is back, all that was said meanwhile is saved."""
    store = Watched()
    provider = ScriptedProvider(*"bdfh")

    async def up_and_down(element: StreamElement) -> StreamElement:
        message = element.message
        if message is not None:
            store.down = message.text in ("c", "e")
        return element

    chain = (
        StageFunc("weather", StageType.TRANSFORM, _each(up_and_down))
        >> StateStoreLoadStage(store=store, conversation="talk", on_error="skip")
        >> ProviderStage("assistant", provider=provider)
        >> StateStoreSaveStage(store=store, on_error="skip")
    )
    pipeline = Pipeline.of(chain)
    events = events_of(pipeline)
    out = taken(pipeline, *((5, Message.user(text)) for text in "aceg"))
    assert [element.text for element in out if element.text] == ["b", "d", "f", "h"]
    assert store.saved == [["a", "b"], list("cdefgh")]
    assert told(store) == list("abcdefgh")
    assert kinds(events) == ["loaded", "saved", "failed", "failed", "saved"]
    assert asked(provider)[-1] == list("abcdefg")


def test_a_dead_store_is_not_asked_for_every_piece() -> None:
    """While a store is dead it is asked again with each message and control, not with each piece, and none waits."""
    store = Watched()
    provider = ScriptedProvider(Reply(text="word " * 50, token_delay=1.0))
    pipeline = talking(store, provider, save={"on_error": "skip"}, load={"on_error": "skip"})
    store.down, store.delay = True, 5.0
    out = taken(pipeline, (0, Message.user("a")), (0, END()))
    assert len(out) == 53
    assert store.asked == ["load", *["append"] * 4]


def test_a_history_that_could_not_be_loaded() -> None:
    """Where loading failed, the history comes back with the first save that goes well."""
    store = filled("a", "b")
    provider = ScriptedProvider("d", "f")
    store.down = True

    async def back(element: StreamElement) -> StreamElement:
        store.down = False
        return element

    pipeline = talking(store, provider, StageFunc("back", StageType.TRANSFORM, _each(back)), load={"on_error": "skip"})
    taken(pipeline, (0, Message.user("c")), (5, Message.user("e")))
    assert asked(provider) == [["c"], ["a", "b", "c", "d", "e"]]
    assert told(store) == ["a", "b", "c", "d", "e", "f"]


# ------------------------------------------------------------------------------------------ summaries, retention


def summing_up(made: dict[int, Summary]) -> Stage:
    """A stage that, at the n-th turn, sums up what was said before."""

    async def process(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        turn = 0
        async for element in elements:
            if element.message is not None:
                turn += 1
                if turn in made:
                    conversations(context).of(element).summary = made[turn]
            yield element

    return StageFunc("sums_up", StageType.TRANSFORM, process)


def test_summaries_are_saved() -> None:
    """A summary of old turns is saved when it changes, and loaded with the conversation."""
    store = filled("a", "b")
    first, second = Summary("They said a and b.", 2), Summary("And c and d.", 4)
    chain = (
        StateStoreLoadStage(store=store, conversation="talk")
        >> summing_up({1: first, 3: second})
        >> ProviderStage("assistant", provider=ScriptedProvider("d", "f", "h"))
        >> StateStoreSaveStage(store=store)
    )
    taken(Pipeline.of(chain), *((5, Message.user(text)) for text in "ceg"))
    assert store.asked == ["load", "append", "summarize", "append", "append", "summarize"]
    assert run_virtual(load(store)).summary == second
    seen: list[Summary | None] = []

    async def look(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        async for element in elements:
            seen.append(conversations(context).of(element).summary)
            yield element

    before = len(store.asked)
    Pipeline.of(
        StateStoreLoadStage(store=store, conversation="talk")
        >> StageFunc("look", StageType.TRANSFORM, look)
        >> StateStoreSaveStage(store=store)
    ).run(["x"])
    assert seen == [second]
    assert store.asked[before:] == ["load"]


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        (Summary("ours", 2), None, "ours"),
        (Summary("ours", 2), Summary("theirs", 1), "ours"),
        (Summary("ours", 1), Summary("theirs", 2), "theirs"),
        (Summary("ours", 3), Summary("theirs", 2), "theirs"),  # it is of messages that theirs stand before now
    ],
)
def test_two_summaries(ours: Summary, theirs: Summary | None, kept: str) -> None:
    """Of two summaries the one of more messages is kept, if it is of what both had in common."""
    store = filled("a", "b")
    store.others = [said("theirs")]

    async def meanwhile(element: StreamElement) -> StreamElement:
        if theirs is not None:
            await store.inner.summarize("talk", theirs, version=1)
        return element

    chain = (
        StateStoreLoadStage(store=store, conversation="talk")
        >> StageFunc("others", StageType.TRANSFORM, _each(meanwhile))
        >> summing_up({1: ours})
        >> ProviderStage("assistant", provider=ScriptedProvider("d"))
        >> StateStoreSaveStage(store=store)
    )
    Pipeline.of(chain).run([Message.user("c")])
    assert told(store) == ["a", "b", "theirs", "c", "d"]
    stored = run_virtual(load(store)).summary
    assert stored is not None
    assert stored.text == kept


def test_retention() -> None:
    """With `keep` old conversations are deleted, at the first save and then now and then."""
    now = 0.0
    store = Watched(MemoryStore(clock=lambda: now))
    run_virtual(store.inner.append("old", said("x"), version=0))
    now = 100.0
    pipeline = talking(store, ScriptedProvider(*"bdfh"), save={"keep": 50.0})
    events = events_of(pipeline, "state.expired")
    taken(pipeline, (0, Message.user("a")), (20, Message.user("c")), (20, Message.user("e")), (20, Message.user("g")))
    assert [event.data["conversations"] for event in events] == [1]
    assert store.asked.count("expire") == 2
    assert told(store, "old") == []
    assert told(store) == list("abcdefgh")


# ------------------------------------------------------------------------------------------ repair, laws


def call(*ids: str) -> Message:
    return Message.assistant(tool_calls=tuple(ToolCall("f", {}, id) for id in ids))


def gave(*ids: str, value: Any = 1) -> Message:
    return Message("tool", tuple(ToolResult(id, value, "f") for id in ids))


A, B = Message.user("a"), Message.user("b")


def test_lost_results() -> None:
    """Only calls of the last message that have no result lack one."""
    assert lost_results([]) is None
    assert lost_results([A]) is None
    assert lost_results([call("1"), gave("1")]) is None
    assert lost_results([call("1", "2"), gave("2"), gave("1")]) is None
    assert lost_results([call("1"), A]) is None
    for history, ids in (([A, call("1", "2")], ["1", "2"]), ([call("1", "2", "3"), gave("2")], ["1", "3"])):
        lost = lost_results(history)
        assert lost is not None
        assert [part.call_id for part in lost.parts if isinstance(part, ToolResult)] == ids


@pytest.mark.parametrize(
    "history",
    [
        [],
        [A, B],
        [A, call("1"), gave("1"), B],
        [call("1", "2"), gave("1"), gave("2"), call("1"), gave("1")],
        [gave("9"), A],
    ],
)
def test_what_is_well_formed_stays(history: list[Message]) -> None:
    """A history that is in order is given back as it is."""
    assert well_formed(history) is history


def test_results_move_behind_their_calls() -> None:
    """Results that stand apart from their calls are moved there, and what is lost is made up for."""
    assert well_formed([call("1"), A, gave("1"), B]) == [call("1"), gave("1"), A, B]
    assert well_formed([call("1", "2"), gave("2"), A, gave("1")]) == [call("1", "2"), gave("1", "2"), A]
    broken = [call("1"), A, call("1"), B, gave("1", value="second")]
    mended = well_formed(broken)
    assert [message.role for message in mended] == ["assistant", "tool", "user", "assistant", "tool", "user"]
    assert mended[4] == gave("1", value="second")
    [lost] = mended[1].parts
    assert isinstance(lost, ToolResult)
    assert (lost.call_id, lost.is_error) == ("1", True)


def test_the_laws_of_a_stage() -> None:
    """Both stages keep the laws of a stage."""
    check_stage(lambda: StateStoreLoadStage("load", store=MemoryStore(), conversation="talk"))
    check_stage(lambda: StateStoreSaveStage("save", store=MemoryStore(), conversation="talk"))
