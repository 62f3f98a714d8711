"""What a stage that answers keeps apart, keeps in its history, and says of a provider that does wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rxstage import (
    Failure,
    Message,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PromptAssemblyStage,
    RetrievalStage,
    Retry,
    Stage,
    StageContext,
    StageError,
    StageType,
    StreamElement,
    Text,
    ToolCall,
    tool,
)
from rxstage.content import Interrupt
from rxstage.conversation import CONVERSATION, TRANSCRIPT, conversations
from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider, ProviderError
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.testing import assert_no_leaks, run_virtual
from rxstage.tools import Approval

END = StreamElement.end_of_turn


class Streaming(Provider):
    """Streams what a function gives."""

    name = "mine"

    def __init__(self, make: Callable[[ModelRequest], Any]) -> None:
        self._make = make

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        return self._make(request)  # type: ignore[no-any-return]


class Spy(Stage):
    """Keeps what the conversation has come to."""

    type = StageType.TRANSFORM
    told: Any = None

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        self.told.append(conversations(context))
        async for element in elements:
            yield element


def by(name: str, value: Any) -> StreamElement:
    return StreamElement.of(value, metadata={"conversation": name})


def answering(provider: Any, *tools: Any, **options: Any) -> Pipeline:
    return Pipeline.of(ProviderStage("assistant", provider=provider, tools=tools, **options))


def taken(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[StreamElement]:
    """What comes out of an open session, in virtual time."""

    async def feed() -> AsyncIterator[Any]:
        for seconds, value in steps:
            await asyncio.sleep(seconds)
            yield value

    async def main() -> list[StreamElement]:
        return [element async for element in pipeline.execute(feed())]

    with assert_no_leaks():
        return run_virtual(main())


def said(elements: list[StreamElement]) -> list[tuple[str, str]]:
    """The answers, and who got them."""
    return [(element.metadata.get("conversation", ""), element.message.text) for element in elements if element.message]


def seen(provider: ScriptedProvider) -> list[list[str]]:
    """Text of the messages of each call."""
    return [[message.text for message in call.messages] for call in provider.calls]


@tool(schedule="when_idle")
async def slow(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return f"after {seconds:g}"


@tool(schedule="interrupt")
async def urgent(seconds: float) -> str:
    """Take a while, and then do not wait."""
    await asyncio.sleep(seconds)
    return f"after {seconds:g}"


def test_pieces_of_two_conversations_are_two_turns() -> None:
    """What one user has begun to say is never part of what another one asks."""
    provider = ScriptedProvider(default=lambda request: request.messages[-1].text)
    out = taken(answering(provider), (0, by("ann", "my secret ")), (0, by("bob", Message.user("hello"))), (0, END()))
    assert said(out) == [("bob", "hello"), ("ann", "my secret ")]


def test_an_end_of_turn_of_one_conversation() -> None:
    """It ends the turn of that one."""
    provider = ScriptedProvider(default=lambda request: request.messages[-1].text)
    end = StreamElement.end_of_turn(metadata={"conversation": "ann"})
    out = taken(answering(provider), (0, by("ann", "a")), (0, by("bob", "b")), (0, end), (0, by("bob", "c")))
    assert said(out) == [("ann", "a"), ("bob", "bc")]


def test_a_message_ends_the_turn_of_its_own_conversation() -> None:
    """Also one that names none."""
    provider = ScriptedProvider(default=lambda request: request.messages[-1].text)
    out = taken(answering(provider), (0, by("ann", "a")), (0, Message.user("x")), (0, by("ann", "b")))
    assert said(out) == [("", "x"), ("ann", "ab")]


def test_instructions_that_name_no_conversation() -> None:
    """They are for whoever speaks next."""
    provider = ScriptedProvider(default="ok")
    brief = StreamElement(Message.system("Be brief."), metadata={"prompt": "p"})
    taken(answering(provider), (0, brief), (0, by("ann", Message.user("a"))), (0, by("bob", Message.user("b"))))
    assert seen(provider) == [["Be brief.", "a"], ["b"]]


def test_background_results_of_two_conversations_are_told_to_both() -> None:
    """Two that are there at once are two turns."""
    provider = ScriptedProvider(
        ToolCall("slow", {"seconds": 5}), "started", ToolCall("slow", {"seconds": 5}), "started", default="told"
    )
    steps = ((0, by("ann", Message.user("x"))), (0, by("bob", Message.user("x"))), (20, END()))
    assert said(taken(answering(provider, slow), *steps)) == [
        ("ann", "started"),
        ("bob", "started"),
        ("ann", "told"),
        ("bob", "told"),
    ]


def test_a_background_result_cuts_no_other_conversation_short() -> None:
    """It interrupts the answer of its own conversation only."""
    provider = ScriptedProvider(
        ToolCall("urgent", {"seconds": 2}), "started", Reply(text="a b c d", token_delay=1.0), default="told"
    )
    out = taken(answering(provider, urgent), (0, by("ann", Message.user("x"))), (0, by("bob", Message.user("x"))))
    assert said(out) == [("ann", "started"), ("bob", "a b c d"), ("ann", "told")]
    assert not any(element.content.__class__ is Interrupt for element in out)


def test_the_end_of_the_input_waits_for_what_the_last_answer_has_begun() -> None:
    """Whether the last turn ended with a message or with the input, and again for what that answer has begun."""
    call = ToolCall("slow", {"seconds": 1})
    provider = ScriptedProvider(call, "started", call, "again", default="told")
    assert said(taken(answering(provider, slow), (0, "x"))) == [("", "started"), ("", "again"), ("", "told")]


@pytest.mark.parametrize("id", ["", "same"])
def test_an_approval_is_about_one_call_only(id: str) -> None:
    """Sent twice it does not approve a later call, even of a model that gives no ids or the same again."""
    done: list[int] = []

    @tool(approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        done.append(amount)
        return "paid"

    provider = ScriptedProvider(ToolCall("pay", {"amount": 1}, id), ToolCall("pay", {"amount": 1000}, id), "ok")
    approval = Approval(id or "call_1")
    taken(answering(provider, pay), (0, Message.user("x")), (1, approval), (0, approval), (1, END()))
    assert done == [1]
    calls = [call for message in provider.calls[-1].messages for call in message.tool_calls]
    assert len({call.id for call in calls}) == 2


def test_a_choice_of_tools_holds_for_the_first_round() -> None:
    """A model that has to call a tool in every round would never answer."""

    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    provider = ScriptedProvider(
        default=lambda request: ToolCall("look", {}) if request.tool_choice == "required" else "answer"
    )
    assert answering(provider, look, tool_choice="required").run("x").messages[-1].text == "answer"
    assert [call.tool_choice for call in provider.calls] == ["required", "auto"]


def test_what_went_out_before_a_tool_loop_is_in_the_history() -> None:
    """The text of the call that asked for tools once too often was seen."""

    @tool
    async def look(at: int) -> str:
        """Look."""
        return "seen"

    def asks(request: ModelRequest) -> Reply:
        return Reply(text=f"look {len(request.messages)}", tool_calls=[ToolCall("look", {"at": len(request.messages)})])

    told: list[Any] = []
    stage = ProviderStage(provider=ScriptedProvider(default=asks), tools=(look,), tool_rounds=1, on_error="emit")
    Pipeline.of(stage >> Spy("spy", told=told)).run("x")
    assert [message.text for message in told[0].of().messages] == ["x", "look 1", "", "look 3"]


@pytest.mark.parametrize("options", [{"streaming": False}, {"output": dict[str, Any]}])
def test_what_nobody_saw_is_not_in_the_history(options: dict[str, Any]) -> None:
    """An answer that is emitted as a whole has not been said when it is interrupted."""
    provider = ScriptedProvider(Reply(text='{"a": "b c d"}', token_delay=1.0), default='{"a": "e"}')
    steps = ((0, Message.user("x")), (2.5, StreamElement.interrupt()), (0, Message.user("y")))
    taken(answering(provider, **options), *steps)
    assert seen(provider)[1] == ["x", "y"]


def test_an_interrupt_takes_what_waited_for_a_decision() -> None:
    """As it does with what waits for its turn: it is neither answered nor remembered."""

    @tool(approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    provider = ScriptedProvider(ToolCall("pay", {}), default="ok")
    taken(
        answering(provider, pay),
        (0, Message.user("x")),
        (1, Message.user("forget me")),
        (1, StreamElement.interrupt()),
        (1, Message.user("y")),
    )
    assert "forget me" not in seen(provider)[-1]
    assert seen(provider)[-1][-1] == "y"


@pytest.mark.parametrize("event", [None, 3, b"a", {"text": "a"}, Text("a")])
def test_what_a_provider_must_not_stream(event: Any) -> None:
    """It is not swallowed: the error says whose it is and what may be streamed."""

    async def stream(_: ModelRequest) -> AsyncIterator[Any]:
        yield event

    with pytest.raises(StageError, match=r"provider 'mine' streamed .*it streams str, Thinking, ToolCall"):
        answering(Streaming(stream)).run("x")


def test_a_kind_of_str_is_a_str() -> None:
    """Some libraries have their own."""

    class Word(str):
        __slots__ = ()

    async def stream(_: ModelRequest) -> AsyncIterator[Any]:
        yield Word("hello")
        yield Finish()

    assert answering(Streaming(stream)).run("x").contents[0] == Text("hello")


def test_a_connection_that_cannot_be_opened_early() -> None:
    """The call tells what is wrong, if it still is."""

    class Shy(ScriptedProvider):
        async def prepare(self) -> None:
            raise OSError("no")

    assert answering(Shy("hello")).run("x").messages[-1].text == "hello"


def test_wrong_tools_name_the_stage() -> None:
    """A graph has several stages that may have tools."""
    with pytest.raises(TypeError, match=r"stage 'assistant': a toolbox takes tools"):
        answering("local", "search")


def test_two_stages_do_not_add_to_one_history() -> None:
    """A second provider in an execution is refused, or remembers for itself."""
    first, second = ScriptedProvider("one", "two"), ScriptedProvider("Eins.", "Zwei.")

    def chain(**options: Any) -> Pipeline:
        return Pipeline.of(
            ProviderStage("answer", provider=first)
            >> ProviderStage("translate", provider=second, turns="control", **options)
        )

    with pytest.raises(StageError, match=r"stages '\w+' and '\w+' would both add to the conversations"):
        chain().run(Message.user("x"))
    source = [Message.user("x"), StreamElement.end_of_turn(), Message.user("y"), StreamElement.end_of_turn()]
    first, second = ScriptedProvider("one", "two"), ScriptedProvider("Eins.", "Zwei.")
    chain(memory="own").run(source)
    assert [[message.text for message in call.messages] for call in first.calls] == [["x"], ["x", "one", "y"]]


def test_a_withdrawal_goes_through_a_merge_once() -> None:
    """It is a control that the stage made: behind two branches it leaves once, and nothing waits for it."""
    cut = ProviderError("cut", retryable=True)
    provider = ScriptedProvider(Reply(text="a b c", error=cut, error_after=2), "ok")
    pipeline = (
        PipelineBuilder()
        .chain(ProviderStage("answer", provider=provider, retry=Retry(attempts=2)))
        .branch("answer", PassthroughStage("left"), PassthroughStage("right"))
        .merge("left", "right", into=PassthroughStage("out"))
        .build()
    )
    elements = pipeline.run([StreamElement(Message.user("x")), StreamElement.end_of_turn()]).elements
    assert sum(isinstance(element.content, Failure) for element in elements) == 1
    assert sum(element.message is not None for element in elements) == 2
    assert type(elements[-1].content).__name__ == "EndOfTurn"


def test_prompts_and_documents_are_of_ones_own_conversation() -> None:
    """Where the pieces of two conversations come interleaved, neither shows in what the other is answered by."""
    asked: list[str] = []

    async def retrieve(question: str) -> list[str]:
        asked.append(question)
        return [f"found for {question}"]

    provider = ScriptedProvider(default="ok")
    pipeline = Pipeline.of(
        PromptAssemblyStage(template="You talk to {{ user }}.")
        >> RetrievalStage(retriever=retrieve)
        >> ProviderStage(provider=provider)
    )

    def of(name: str, content: Any) -> StreamElement:
        return StreamElement.of(content, metadata={CONVERSATION: name, "user": name})

    said = [of("ann", "my secret"), of("bob", "hel"), of("bob", "lo"), of("bob", StreamElement.end_of_turn())]
    pipeline.run([*said, of("ann", " is safe"), of("ann", StreamElement.end_of_turn())])
    told = [" / ".join(message.text for message in call.messages) for call in provider.calls]
    assert asked == ["hello", "my secret is safe"]
    assert len(told) == 2
    assert "You talk to bob." in told[0]
    assert "secret" not in told[0]
    assert "ann" not in told[0]
    assert "You talk to ann." in told[1]
    assert "hello" not in told[1]


def test_a_transcript_is_not_asked_for_twice() -> None:
    """What a user was heard to say is shown as text and comes as a message: a question is that message alone."""
    asked: list[str] = []

    async def retrieve(question: str) -> list[str]:
        asked.append(question)
        return []

    heard = StreamElement.of("what is it", metadata={TRANSCRIPT: "final"})
    stages = RetrievalStage(retriever=retrieve) >> ProviderStage(provider=ScriptedProvider("ok"))
    Pipeline.of(stages).run([heard, Message.user("what is it"), StreamElement.end_of_turn()])
    assert asked == ["what is it"]
