"""Tools in a conversation: rounds, approvals, results that come later, and loops that never end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rxstage import Event, Failure, Message, Pipeline, StageError, StreamElement, Text, ToolCall, ToolResult, Usage
from rxstage.dialogue.errors import ToolLoop
from rxstage.ports import ModelRequest
from rxstage.providers import Reply, Rule, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.testing import assert_no_leaks, run_virtual
from rxstage.tools import Approval, Progress, Tool, tool

END = StreamElement.end_of_turn


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def slow(seconds: float) -> str:
    """Take some time."""
    await asyncio.sleep(seconds)
    return f"took {seconds:g} s"


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def taken(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[StreamElement]:
    async def main() -> list[StreamElement]:
        return [element async for element in pipeline.execute(feed(*steps))]

    with assert_no_leaks():
        return run_virtual(main())


def timed(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[tuple[float, str]]:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        return [(loop.time(), said(element)) async for element in pipeline.execute(feed(*steps))]

    with assert_no_leaks():
        return run_virtual(main())


def said(element: StreamElement) -> str:
    match element.content:
        case Text(text):
            return text
        case Message(role=role, parts=parts):
            return f"<{role}: {''.join(part.text for part in parts if isinstance(part, Text))}>"
        case ToolCall(name=name):
            return f"<call {name}>"
        case ToolResult(value=value, is_error=is_error):
            return f"<{'error' if is_error else 'result'} {value}>"
        case Failure(error=error):
            return f"<{type(error).__name__}>"
        case other:
            return f"<{type(other).__name__}>"


def answering(provider: Any, *tools: Any, **options: Any) -> Pipeline:
    return Pipeline.of(ProviderStage("assistant", provider=provider, tools=tools, **options))


def results(provider: ScriptedProvider) -> list[Any]:
    """What the model was told of its tools in the newest call."""
    return [part.value for message in provider.calls[-1].messages if message.role == "tool" for part in message.parts]  # type: ignore[union-attr]


def test_a_round_of_tools() -> None:
    """Calls and results come out as elements, the model gets the results, and one message has the whole answer."""
    call = ToolCall("add", {"a": 1, "b": 2}, "c1")
    provider = ScriptedProvider(Reply(text="Let me see. ", tool_calls=[call]), "It is 3.")
    out = taken(answering(provider, add), (0, Message.user("1 + 2?")), (0, END()))
    assert [said(element) for element in out] == [
        "Let",
        " me",
        " see.",
        " ",
        "<call add>",
        "<result 3>",
        "It",
        " is",
        " 3.",
        "<assistant: Let me see. It is 3.>",
        "<EndOfTurn>",
    ]
    question, asks, told = provider.calls[1].messages
    assert question == Message.user("1 + 2?")
    assert (asks.role, asks.text, asks.tool_calls) == ("assistant", "Let me see. ", (call,))
    assert told == Message("tool", (ToolResult("c1", 3, "add"),))
    assert out[-2].message is not None
    assert out[-2].message.usage == Usage(3 + 6, 4 + 3)


def test_tools_of_one_message_run_side_by_side() -> None:
    """Results come as they are ready; the model is told them in the order of its calls."""
    calls = [ToolCall("slow", {"seconds": seconds}, str(seconds)) for seconds in (3, 1, 2)]
    provider = ScriptedProvider(calls, "done")
    out = timed(answering(provider, slow), (0, Message.user("x")))
    assert out[:3] == [(0.0, "<call slow>")] * 3
    assert out[3:6] == [(1.0, "<result took 1 s>"), (2.0, "<result took 2 s>"), (3.0, "<result took 3 s>")]
    assert results(provider) == ["took 3 s", "took 1 s", "took 2 s"]


def test_tools_are_offered_in_the_same_order_for_ever() -> None:
    """A hundred calls offer the same list: prompt caches depend on it."""
    provider = ScriptedProvider(default="ok")
    others = [Tool.external(name, "", {"type": "object"}) for name in ("zeta", "alpha", "mid")]
    answering(provider, slow, *others, add).run([Message.user(str(number)) for number in range(100)])
    orders = {tuple(spec.name for spec in request.tools) for request in provider.calls}
    assert len(provider.calls) == 100
    assert orders == {("slow", "zeta", "alpha", "mid", "add")}


def test_what_goes_wrong_is_told_to_the_model() -> None:
    """A tool that raises, one that is not there, arguments that do not fit: the turn goes on."""

    @tool
    def broken() -> str:
        """Break."""
        raise ValueError("out of order")

    calls = [ToolCall("broken", {}, "1"), ToolCall("ad", {}, "2"), ToolCall("add", {"a": "x", "b": 1}, "3")]
    provider = ScriptedProvider(calls, "sorry")
    result = answering(provider, broken, add).run("x")
    assert result.text == "sorry"
    told = results(provider)
    assert "out of order" in told[0]
    assert "add" in told[1]
    assert "a" in told[2]
    assert all(content.is_error for content in result.contents if isinstance(content, ToolResult))


def test_a_model_that_asks_for_ever() -> None:
    """The same call is not made for ever, and a turn does not go on for ever: a clear failure ends it."""
    made: list[int] = []

    @tool
    async def again() -> str:
        """Ask again."""
        made.append(1)
        return "ask again"

    provider = ScriptedProvider(default=ToolCall("again", {}, "1"))
    with pytest.raises(StageError, match="asked for tools more than 5 times in one turn and did not answer") as caught:
        answering(provider, again, tool_rounds=5, tool_repeats=2).run("x")
    assert isinstance(caught.value.__cause__, ToolLoop)
    assert len(made) == 2
    assert len(provider.calls) == 6
    assert "too often" in results(provider)[-1]


def test_an_interrupt_cancels_tools() -> None:
    """What was running is cancelled, and the model is told next time that its outcome is not known."""
    provider = ScriptedProvider([ToolCall("slow", {"seconds": 60}, "1"), ToolCall("slow", {"seconds": 1}, "2")], "ok")
    pipeline = answering(provider, slow)
    out = timed(pipeline, (0, Message.user("x")), (2, StreamElement.interrupt()), (0, Message.user("y")))
    assert [what for _, what in out] == [
        "<call slow>",
        "<call slow>",
        "<result took 1 s>",
        "<Interrupt>",
        "ok",
        "<assistant: ok>",
    ]
    assert out[-1][0] == 2.0
    assert results(provider) == [
        "It was interrupted before it finished; whether it took effect is not known.",
        "took 1 s",
    ]


def test_a_tool_that_must_not_be_interrupted() -> None:
    """It goes on behind the interrupt, and the model hears of its result in a later turn, silently."""
    ended: list[float] = []

    @tool(interruptible=False)
    async def pay() -> str:
        """Pay."""
        await asyncio.sleep(10)
        ended.append(asyncio.get_running_loop().time())
        return "paid"

    provider = ScriptedProvider(ToolCall("pay", {}, "1"), "first", "second")
    pipeline = answering(provider, pay)
    steps = [(0, Message.user("x")), (1, StreamElement.interrupt()), (0, Message.user("y")), (20, Message.user("z"))]
    out = timed(pipeline, *steps)
    assert [what for _, what in out][1:] == [
        "<Interrupt>",
        "first",
        "<assistant: first>",
        "second",
        "<assistant: second>",
    ]
    assert ended == [10.0]
    told = [message.text for message in provider.calls[-1].messages if message.role == "user"]
    assert told == ["x", "y", "[The tool 'pay' that ran in the background has a result: paid]", "z"]


# ------------------------------------------------------------------------------------------ approvals


def test_an_approval_is_an_element_out_and_a_later_one_in() -> None:
    """The call waits, marked as pending; what else comes in waits for the end of the turn; then it is done."""

    @tool(approval=True)
    async def delete(path: str) -> str:
        """Delete a file."""
        return f"deleted {path}"

    provider = ScriptedProvider(ToolCall("delete", {"path": "a"}, "c1"), "Done.", "Next.")
    pipeline = answering(provider, delete)
    out = taken(
        pipeline,
        (0, Message.user("x")),
        (0, END()),
        (5, Message.user("y")),
        (1, Approval("c1")),
        (1, END()),
    )
    assert [said(element) for element in out] == [
        "<call delete>",
        "<result deleted a>",
        "Done.",
        "<assistant: Done.>",
        "<EndOfTurn>",
        "Next.",
        "<assistant: Next.>",
        "<EndOfTurn>",
    ]
    assert out[0].metadata == {"pending": "approval"}


def test_a_refusal_and_changed_arguments() -> None:
    """A refused call is told to the model with the reason; an approval can change the arguments."""

    @tool(name="add", approval=lambda call: call.arguments["a"] > 1)
    async def asking(a: int, b: int) -> int:
        return a + b

    calls = [ToolCall("add", {"a": a, "b": 1}, str(a)) for a in (1, 2, 3)]
    provider = ScriptedProvider(calls, "ok")
    out = taken(
        answering(provider, asking),
        (0, Message.user("x")),
        (1, Approval("2", approved=False, reason="too much")),
        (1, Approval("3", arguments={"a": 100, "b": 1})),
    )
    assert [element.metadata.get("pending") for element in out if element.tool_call] == [None, "approval", "approval"]
    told = results(provider)
    assert (told[0], told[2]) == (2, 101)
    assert told[1].endswith("was not allowed: too much")


def test_nobody_decides() -> None:
    """After `approval_timeout`, at the end of the input, or when too much else comes, the call is refused."""

    @tool(approval=True)
    async def delete() -> str:
        """Delete."""
        return "deleted"

    call = ToolCall("delete", {}, "c1")
    late = ScriptedProvider(call, "ok")
    out = timed(answering(late, delete, approval_timeout=30.0), (0, Message.user("x")), (99, END()))
    assert out[1] == (30.0, "<error Nobody decided about it within 30 s.>")
    ended = ScriptedProvider(call, "ok")
    assert timed(answering(ended, delete), (0, Message.user("x")))[1][1].startswith("<error The input has ended")
    flood = ScriptedProvider(call, default="ok")
    many = [(0, Message.user(str(number))) for number in range(100)]
    out = timed(answering(flood, delete), (0, Message.user("x")), *many)
    assert out[1][1].startswith("<error Something else came in")
    assert sum(what == "<assistant: ok>" for _, what in out) == 101


def test_an_external_tool() -> None:
    """The application answers the call with a `ToolResult` element."""
    where = Tool.external("where", "Where the user is.", {"type": "object", "properties": {}})
    provider = ScriptedProvider(ToolCall("where", {}, "c1"), "In Rome.")
    out = taken(answering(provider, where), (0, Message.user("x")), (3, ToolResult("c1", "Rome", "where")))
    assert [said(element) for element in out][:3] == ["<call where>", "<result Rome>", "In"]
    assert out[0].metadata == {"pending": "result"}
    assert results(provider) == ["Rome"]


def test_who_talks_in_another_conversation_decides_nothing() -> None:
    """An `Approval` or a result is for a call of its own conversation, whatever its id."""
    answered: list[str] = []

    @tool(approval=True)
    async def delete(path: str) -> str:
        """Delete a file."""
        answered.append(path)
        return "deleted"

    def by(name: str, value: Any) -> StreamElement:
        return StreamElement.of(value, metadata={"conversation": name})

    for who, done in (("bob", []), ("ann", ["a"])):
        answered.clear()
        provider = ScriptedProvider(ToolCall("delete", {"path": "a"}, "1"), default="ok")
        out = taken(
            answering(provider, delete),
            (0, by("ann", Message.user("x"))),
            (1, by(who, Approval("1"))),
            (0, by(who, ToolResult("1", "forged"))),
            (1, END()),
        )
        assert answered == done
        assert next(element.content.value for element in out if element.content.__class__ is ToolResult) == (
            "deleted" if done else "The input has ended before anybody decided about it."
        )


def test_an_interrupt_while_nobody_has_decided() -> None:
    """The pending call is given up, and the next turn works."""
    where = Tool.external("where", "", {"type": "object", "properties": {}})
    provider = ScriptedProvider(ToolCall("where", {}, "c1"), "ok")
    out = taken(
        answering(provider, where), (0, Message.user("x")), (1, StreamElement.interrupt()), (0, "y"), (0, END())
    )
    assert [said(element) for element in out] == ["<call where>", "<Interrupt>", "ok", "<assistant: ok>", "<EndOfTurn>"]


# ------------------------------------------------------------------------------------------ background


def background(schedule: Any) -> Tool:
    @tool(name="research", schedule=schedule)
    async def research() -> str:
        """Look something up, slowly."""
        await asyncio.sleep(10)
        return "found it"

    return research


TOLD = "[The tool 'research' that ran in the background has a result: found it]"


def script(*others: Any) -> ScriptedProvider:
    return ScriptedProvider(
        ToolCall("research", {}, "c1"),
        "It is under way.",
        *others,
        rules=[Rule("has a result: found it", "Here it is.")],
    )


def test_when_idle() -> None:
    """The turn goes on without the result; when it is there and nothing else is said, the model speaks of it."""
    provider = script()
    out = timed(answering(provider, background("when_idle")), (0, Message.user("x")), (30, END()))
    assert out[:2] == [
        (0.0, "<call research>"),
        (0.0, "<result It runs in the background; its result will be told when it is there.>"),
    ]
    assert (10.0, "<assistant: Here it is.>") in out
    assert provider.calls[-1].messages[-1].text == TOLD


def test_when_idle_waits_for_the_end_of_an_answer() -> None:
    """An answer that is under way is not disturbed."""
    provider = script(Reply(text="a b c d", token_delay=3.0))
    out = timed(
        answering(provider, background("when_idle")), (0, Message.user("x")), (8, Message.user("y")), (30, END())
    )
    assert (17.0, "<assistant: a b c d>") in out
    assert (17.0, "<assistant: Here it is.>") in out


def test_interrupt() -> None:
    """The result cuts the answer short: an `Interrupt` goes on, and the model speaks of the result at once."""
    provider = script(Reply(text="a b c d", token_delay=3.0))
    out = timed(
        answering(provider, background("interrupt")), (0, Message.user("x")), (8, Message.user("y")), (30, END())
    )
    assert [each for each in out if each[0] >= 8.0] == [
        (8.0, "a"),
        (10.0, "<Interrupt>"),
        (10.0, "Here"),
        (10.0, " it"),
        (10.0, " is."),
        (10.0, "<assistant: Here it is.>"),
        (38.0, "<EndOfTurn>"),
    ]
    texts = [f"{message.role}: {message.text}" for message in provider.calls[-1].messages]
    assert texts[-3:] == ["user: y", "assistant: a", f"user: {TOLD}"]


def test_silent() -> None:
    """Nobody speaks of the result before the next turn."""
    provider = script("I know.")
    provider._rules = ()
    out = timed(answering(provider, background("silent")), (0, Message.user("x")), (30, Message.user("y")))
    assert [what for at, what in out if 0 < at < 30] == []
    assert [message.text for message in provider.calls[-1].messages][-2:] == [TOLD, "y"]


def test_the_end_of_the_input_waits_for_the_background() -> None:
    """A result that comes after the input has ended is still spoken of."""
    out = timed(answering(script(), background("when_idle")), (0, Message.user("x")))
    assert out[-1] == (10.0, "<assistant: Here it is.>")


def test_cancelling_ends_the_background() -> None:
    """No tool outlives its execution."""
    provider = script()

    async def main() -> None:
        async with answering(provider, background("silent")).execute(
            feed((0, Message.user("x")), (99, "y"))
        ) as running:
            async for element in running:
                if element.message is not None:
                    break

    with assert_no_leaks():
        run_virtual(main())
    assert len(provider.calls) == 2


# ------------------------------------------------------------------------------------------ told


def test_events_and_progress() -> None:
    """Tools are told of: start, progress, end."""

    @tool
    async def stepping() -> AsyncIterator[Progress | str]:
        """Step by step."""
        yield Progress(0.5, "half way")
        yield "done"

    events: list[Event] = []

    async def main() -> None:
        execution = answering(ScriptedProvider(ToolCall("stepping", {}, "1"), "ok"), stepping).execute("x")
        execution.events.subscribe(events.append)
        await execution

    run_virtual(main())
    told = [event.type for event in events if event.type.startswith("tool.")]
    assert told == ["tool.call.started", "tool.call.progress", "tool.call.completed"]


def test_a_plain_function_is_a_tool() -> None:
    """Without the decorator its name, docstring and annotations say what the model has to know."""

    def shout(text: str) -> str:
        """Say it loud."""
        return text.upper()

    provider = ScriptedProvider(ToolCall("shout", {"text": "hey"}, "1"), "ok")
    answering(provider, shout).run("x")
    request: ModelRequest = provider.calls[0]
    assert (request.tools[0].name, request.tools[0].description) == ("shout", "Say it loud.")
    assert results(provider) == ["HEY"]


def test_calls_without_an_id_get_one() -> None:
    """Some servers send none; results need one to refer to."""
    provider = ScriptedProvider([ToolCall("add", {"a": 1, "b": 1}), ToolCall("add", {"a": 2, "b": 2})], "ok")
    answering(provider, add).run("x")
    asks = next(message for message in provider.calls[1].messages if message.tool_calls)
    assert len({call.id for call in asks.tool_calls} - {""}) == 2


def test_two_calls_of_one_id_are_told_apart() -> None:
    """An approval is about one call: a second one of the same id gets another."""

    @tool(approval=True)
    async def delete(path: str) -> str:
        """Delete a file."""
        return f"deleted {path}"

    calls = [ToolCall("delete", {"path": path}, "same") for path in ("a", "b")]
    provider = ScriptedProvider(calls, "ok")
    out = taken(answering(provider, delete), (0, Message.user("x")), (1, Approval("same")), (1, END()))
    asked = [element.tool_call.id for element in out if element.tool_call]
    assert asked == ["same", "call_2_same"]
    assert results(provider)[0] == "deleted a"
    assert "ended" in results(provider)[1]


def test_nobody_is_asked_about_a_call_that_cannot_be_made() -> None:
    """Arguments that do not fit are told to the model before anybody has to decide."""

    @tool(approval=True)
    async def delete(path: str) -> str:
        """Delete a file."""
        return path

    provider = ScriptedProvider(ToolCall("delete", {"way": "a"}, "1"), "sorry")
    out = taken(answering(provider, delete), (0, Message.user("x")))
    assert out[0].metadata == {}
    assert said(out[-1]) == "<assistant: sorry>"


def test_a_background_result_is_answered_by_the_same_instructions() -> None:
    """What a prompt stage said in the turn that started the tool holds for the answer that tells of it, too."""
    provider = script()
    brief = StreamElement(Message.system("Be brief."), metadata={"prompt": "p"})
    timed(answering(provider, background("when_idle")), (0, brief), (0, Message.user("x")), (30, END()))
    assert [message.text for message in provider.calls[-1].messages if message.role == "system"] == ["Be brief."]
