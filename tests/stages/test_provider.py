"""The stage that answers: turns, history, streaming, errors, limits, structured answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from pydantic import BaseModel

from rxstage import (
    Data,
    Event,
    ExecutionCancelled,
    Failure,
    Image,
    Message,
    Parts,
    Pipeline,
    Retry,
    StageContext,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
    Usage,
)
from rxstage.conversation import CONVERSATION, HISTORY, PROMPT, ContextPolicy, Conversation, conversations
from rxstage.dialogue.errors import AnswerWithdrawn, CostLimitExceeded, InvalidOutput
from rxstage.ports import Finish, ModelRequest, ProviderError, ProviderTimeout, Thinking
from rxstage.providers import Reply, Rule, ScriptedProvider, is_retryable
from rxstage.stages.provider import ProviderStage
from rxstage.testing import assert_no_leaks, check_stage, run_virtual

END = StreamElement.end_of_turn


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


def shown(elements: Any) -> list[str]:
    """Pieces of text as they are, other content by what it says."""
    names = []
    for element in elements:
        content = element.content
        if isinstance(content, Text):
            names.append(content.text)
        elif isinstance(content, Message):
            names.append(f"<{content.role}: {content.text}>")
        elif isinstance(content, Failure):
            names.append(f"<{type(content.error).__name__}>")
        elif isinstance(content, Data):
            names.append(repr(content.value))
        else:
            names.append(f"<{type(content).__name__}>")
    return names


def asked(provider: ScriptedProvider) -> list[list[str]]:
    """Role and text of the messages of each call."""
    return [[f"{message.role}: {message.text}" for message in call.messages] for call in provider.calls]


def answering(provider: Any, **options: Any) -> Pipeline:
    return Pipeline.of(ProviderStage("assistant", provider=provider, **options))


# ------------------------------------------------------------------------------------------ turns and history


def test_a_text_is_a_turn_that_ends_with_the_input() -> None:
    """Pieces of text are one question; the answer streams, then one message has its text and usage."""
    provider = ScriptedProvider("Hello you!")
    result = answering(provider).run(["Hi ", "there"])
    assert shown(result.elements) == ["Hello", " you!", "<assistant: Hello you!>"]
    assert result.text == "Hello you!"
    assert result.usage == Usage(2, 2)
    assert asked(provider) == [["user: Hi there"]]
    assert {element.source for element in result.elements} == {"assistant"}


def test_two_utterances_in_one_open_session() -> None:
    """Each user message is answered while the session is open, the second with the history."""
    provider = ScriptedProvider("One.", "Two.")
    out = taken(answering(provider), (0, Message.user("a")), (0, END()), (60, Message.user("b")), (0, END()))
    assert shown(out) == ["One.", "<assistant: One.>", "<EndOfTurn>", "Two.", "<assistant: Two.>", "<EndOfTurn>"]
    assert asked(provider) == [["user: a"], ["user: a", "assistant: One.", "user: b"]]


def test_texts_end_with_the_end_of_the_turn() -> None:
    """Text waits for the `EndOfTurn`, which goes on after the answer; an empty turn is not answered."""
    provider = ScriptedProvider("1", "2")
    source = [END(), "a", "b", END(), END(), "c", END()]
    result = answering(provider).run(source)
    assert shown(result.elements) == [
        "<EndOfTurn>",
        "1",
        "<assistant: 1>",
        "<EndOfTurn>",
        "<EndOfTurn>",
        "2",
        "<assistant: 2>",
        "<EndOfTurn>",
    ]
    assert asked(provider)[1] == ["user: ab", "assistant: 1", "user: c"]


def test_turns_that_only_a_control_ends() -> None:
    """With `turns="control"` several messages are one turn, and their parts one message."""
    provider = ScriptedProvider("Nice.")
    picture = Image(b"x")
    source = [Message.user("Look: "), Message("user", (picture,), name="Ada"), Parts(("and", "that")), END()]
    answering(provider, turns="control").run(source)
    assert provider.calls[0].messages == (
        Message("user", (Text("Look: "), picture, Text("and"), Text("that")), name="Ada"),
    )


def test_instructions_hold_for_one_turn() -> None:
    """`system=` and messages marked as prompt go before the history and do not become part of it."""
    provider = ScriptedProvider("1", "2")
    example = [
        StreamElement(Message.user("q"), metadata={PROMPT: "p"}),
        StreamElement(Message.assistant("a"), metadata={PROMPT: "p"}),
        StreamElement(Message.system("Be brief."), metadata={PROMPT: "p"}),
    ]
    answering(provider, system="You are kind.").run([*example, Message.user("x"), END(), Message.user("y")])
    assert asked(provider) == [
        ["system: You are kind.", "system: Be brief.", "user: q", "assistant: a", "user: x"],
        ["system: You are kind.", "user: x", "assistant: 1", "user: y"],
    ]


def test_messages_of_others_become_history() -> None:
    """What an assistant or system message says is remembered; what is shown from before is passed on."""
    provider = ScriptedProvider("ok")
    old = StreamElement(Message.user("old"), metadata={HISTORY: True})
    out = answering(provider).run([old, Message.system("s"), Message.assistant("earlier"), Message.user("x")])
    assert asked(provider) == [["system: s", "assistant: earlier", "user: x"]]
    assert shown(out.elements) == ["<user: old>", "ok", "<assistant: ok>"]


def test_conversations_are_kept_apart() -> None:
    """Elements that name a conversation have a history of their own, and its name is on the answer."""
    provider = ScriptedProvider(*"1234")
    source = [StreamElement(Message.user(f"{name}{n}"), metadata={CONVERSATION: name}) for n in (1, 2) for name in "ab"]
    result = answering(provider).run(source)
    assert asked(provider) == [
        ["user: a1"],
        ["user: b1"],
        ["user: a1", "assistant: 1", "user: a2"],
        ["user: b1", "assistant: 2", "user: b2"],
    ]
    assert [element.metadata[CONVERSATION] for element in result.elements] == list("aabbaabb")


def test_executions_share_nothing() -> None:
    """A second execution begins with an empty history."""
    provider = ScriptedProvider("1", "2")
    pipeline = answering(provider)
    pipeline.run("a")
    pipeline.run("b")
    assert asked(provider) == [["user: a"], ["user: b"]]


def test_other_content_passes_by() -> None:
    """Data is not for the model and keeps its place before the answer."""
    result = answering(ScriptedProvider("ok")).run([1, Message.user("x"), 2])
    assert shown(result.elements) == ["1", "ok", "<assistant: ok>", "2"]


def test_metadata_of_the_turn_is_on_the_answer() -> None:
    """The first one's metadata, updated by the later ones'."""
    source = [StreamElement.of("a", metadata={"x": 1, "y": 1}), StreamElement.of("b", metadata={"y": 2})]
    result = answering(ScriptedProvider("ok")).run(source)
    assert {tuple(element.metadata.items()) for element in result.elements} == {(("x", 1), ("y", 2))}
    assert {element.sequence for element in result.elements} == {1}


def test_context_policies_decide_what_the_model_sees() -> None:
    """They are applied in the order of their ranks, before each turn."""

    async def last(history: Any, instructions: Any, conversation: Conversation) -> Any:
        return history[-1:]

    async def shout(history: Any, instructions: Any, conversation: Conversation) -> Any:
        return [Message(message.role, message.text.upper()) for message in history]

    async def register(elements: Any, context: StageContext) -> AsyncIterator[StreamElement]:
        held = conversations(context)
        held.add_policy(ContextPolicy(20, shout))
        held.add_policy(ContextPolicy(10, last))
        async for element in elements:
            yield element

    provider = ScriptedProvider("1", "2")
    before = StageFunc("policies", StageType.TRANSFORM, register)
    Pipeline.of(before >> ProviderStage(provider=provider)).run([Message.user("a"), Message.user("b")])
    assert asked(provider) == [["user: A"], ["user: B"]]


# ------------------------------------------------------------------------------------------ streaming


def test_it_streams() -> None:
    """Each piece leaves when it comes."""
    provider = ScriptedProvider("a b c", delay=1.0, token_delay=1.0)
    times: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async for _ in answering(provider).execute("x"):
            times.append(loop.time())  # noqa: PERF401

    run_virtual(main())
    assert times == [1.0, 2.0, 3.0, 3.0]


def test_without_streaming() -> None:
    """The answer is one `Text` and the message."""
    result = answering(ScriptedProvider("a b c"), streaming=False).run("x")
    assert shown(result.elements) == ["a b c", "<assistant: a b c>"]


def test_thinking_is_shown_when_it_is_asked_for() -> None:
    """By default it is not part of what comes out."""
    reply = Reply(thinking="Hm.", text="ok")
    assert shown(answering(ScriptedProvider(reply)).run("x").elements) == ["ok", "<assistant: ok>"]
    shown_too = answering(ScriptedProvider(reply), thinking=True).run("x")
    assert shown_too.contents[0] == Data(Thinking("Hm."))


def test_an_empty_answer_is_a_message_without_text() -> None:
    """The turn ends all the same."""
    result = answering(ScriptedProvider("")).run(["x", END()])
    assert shown(result.elements) == ["<assistant: >", "<EndOfTurn>"]
    assert result.messages[0].parts == ()


def test_the_connection_is_opened_early() -> None:
    """While the turn still comes in the provider is told to prepare, once; a message is a call at once."""
    prepared: list[float] = []

    class Preparing(ScriptedProvider):
        async def prepare(self) -> None:
            prepared.append(asyncio.get_running_loop().time())
            await asyncio.sleep(5.0)

    pipeline = answering(Preparing(default="ok"))
    taken(pipeline, (1, "a"), (1, "b"), (1, END()), (10, Message.user("c")))
    assert prepared == [1.0]


# ------------------------------------------------------------------------------------------ interrupts


def test_an_interrupt_cancels_the_call_and_the_history_keeps_what_went_out() -> None:
    """The answer stops, no message comes, and the next turn is answered with the partial one in the history."""
    provider = ScriptedProvider(Reply(text="a b c d e", token_delay=1.0), "next")
    out = taken(answering(provider), (0, Message.user("x")), (2.5, StreamElement.interrupt()), (0, Message.user("y")))
    assert shown(out) == ["a", " b", " c", "<Interrupt>", "next", "<assistant: next>"]
    assert asked(provider)[1] == ["user: x", "assistant: a b c", "user: y"]


def test_an_interrupt_before_the_first_token() -> None:
    """Nothing went out, so nothing is remembered of the answer."""
    provider = ScriptedProvider(Reply(text="a", delay=10.0), "next")
    out = taken(answering(provider), (0, Message.user("x")), (1, StreamElement.interrupt()), (0, Message.user("y")))
    assert shown(out) == ["<Interrupt>", "next", "<assistant: next>"]
    assert asked(provider)[1] == ["user: x", "user: y"]


def test_an_interrupt_takes_the_turn_that_was_coming_in() -> None:
    """What was said before it is not part of the next turn."""
    provider = ScriptedProvider("ok")
    taken(answering(provider), (0, "gone"), (1, StreamElement.interrupt()), (0, "kept"))
    assert asked(provider) == [["user: kept"]]


# ------------------------------------------------------------------------------------------ errors


def test_a_failed_call_ends_the_execution() -> None:
    """By default with a `StageError` whose cause is the provider's error; what came before it is delivered."""
    cut = ProviderError("the line was cut")
    provider = ScriptedProvider(Reply(text="a b c", error=cut, error_after=2))
    result = answering(provider).run("x", raise_on_error=False)
    assert isinstance(result.error, StageError)
    assert result.error.__cause__ is cut
    assert result.error.stage == "assistant"
    assert shown(result.elements) == ["a", " b"]


def test_on_error_emit_keeps_the_session() -> None:
    """A failed turn is a `Failure` in its place, and the next turn is answered."""
    provider = ScriptedProvider(ProviderError("no"), "yes")
    out = taken(answering(provider, on_error="emit"), (0, Message.user("x")), (0, END()), (1, Message.user("y")))
    assert shown(out) == ["<ProviderError>", "<EndOfTurn>", "yes", "<assistant: yes>"]
    assert out[0].failure is not None
    assert out[0].failure.stage == "assistant"
    assert asked(provider)[1] == ["user: x", "user: y"]


def test_on_error_skip_says_nothing() -> None:
    """A failed turn is left out."""
    provider = ScriptedProvider(ProviderError("no"), "yes")
    result = answering(provider, on_error="skip").run([Message.user("x"), Message.user("y")])
    assert shown(result.elements) == ["yes", "<assistant: yes>"]


def test_a_retry_in_mid_answer_withdraws_what_was_seen() -> None:
    """The consumer is told that its text is void, and the message is only the retry's."""
    cut = ProviderError("cut", retryable=True)
    provider = ScriptedProvider(Reply(text="The answer is 4", error=cut, error_after=3), "It is 42")
    result = answering(provider, retry=Retry(attempts=2, retry_on=is_retryable)).run("x")
    assert shown(result.elements) == ["The", " answer", " is", "<AnswerWithdrawn>", "It", " is", " 42"] + [
        "<assistant: It is 42>"
    ]
    withdrawn = result.failures[0].error
    assert isinstance(withdrawn, AnswerWithdrawn)
    assert withdrawn.text == "The answer is"
    assert withdrawn.__cause__ is cut


def test_429_429_200_and_401() -> None:
    """By default what is worth it is tried again, three times at most; what is not fails at once."""
    busy = ProviderError("busy", status=429, retryable=True)
    provider = ScriptedProvider(busy, busy, "ok")
    assert shown(taken(answering(provider), (0, "x"))) == ["ok", "<assistant: ok>"]
    assert len(provider.calls) == 3
    refused = ScriptedProvider(ProviderError("the key is not valid", status=401), "never")
    with pytest.raises(StageError, match="the key is not valid"):
        answering(refused).run("x")
    assert len(refused.calls) == 1


def test_fallback_and_time_limits() -> None:
    """A first provider that stalls is given up, and another one answers."""
    stalling, other = ScriptedProvider(Reply(text="a b", stalls=True)), ScriptedProvider("other")
    pipeline = answering(stalling, fallback=(other,), token_timeout=3.0, first_token_timeout=9.0, retry=None)
    assert shown(taken(pipeline, (0, "x"))) == ["a", " b", "<AnswerWithdrawn>", "other", "<assistant: other>"]
    silent = answering(ScriptedProvider("late", delay=99.0), first_token_timeout=9.0, retry=None)
    with pytest.raises(StageError, match=r"sent nothing for 9\.0 s before its first token") as caught:
        taken(silent, (0, "x"))
    assert isinstance(caught.value.__cause__, ProviderTimeout)


def test_cost_limits() -> None:
    """Once an execution, or a conversation, has cost its limit, no further call is made."""
    provider = ScriptedProvider(default="a b", price=0.25)
    with pytest.raises(
        StageError, match=r"of this execution have cost 0\.750000 \$, and its limit is 0\.7 \$"
    ) as caught:
        answering(provider, cost_limit=0.7).run([Message.user("x"), Message.user("y")])
    assert isinstance(caught.value.__cause__, CostLimitExceeded)
    assert len(provider.calls) == 1
    source = [StreamElement(Message.user("x"), metadata={CONVERSATION: name}) for name in "aab"]
    result = answering(provider, conversation_cost_limit=0.7, on_error="emit").run(source)
    assert shown(result.elements).count("<assistant: a b>") == 2
    assert "of this conversation 'a' have cost" in str(result.failures[0].error)


def test_limits_hold_for_all_executions() -> None:
    """`max_calls` is shared by the executions of a stage."""
    running: list[int] = []

    class Counting(ScriptedProvider):
        async def stream(self, request: ModelRequest) -> AsyncIterator[Any]:
            running.append(1)
            assert len(running) <= 2
            await asyncio.sleep(1.0)
            running.pop()
            yield Finish()

    pipeline = answering(Counting(), max_calls=2)

    async def main() -> float:
        await asyncio.gather(*(pipeline.execute("x") for _ in range(6)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3.0


# ------------------------------------------------------------------------------------------ structured answers


class City(BaseModel):
    name: str
    people: int


def test_a_structured_answer() -> None:
    """The model is asked for the schema, and the object comes out validated, before the message."""
    provider = ScriptedProvider('{"name": "Rome", "people": 3}')
    result = answering(provider, output=City).run("x")
    assert result.contents[0] == Data(City(name="Rome", people=3))
    assert result.messages[0].text == '{"name": "Rome", "people": 3}'
    assert len(result.elements) == 2
    spec = provider.calls[0].output
    assert spec is not None
    assert spec.name == "City"
    assert spec.schema["required"] == ["name", "people"]


def test_partial_objects_while_it_streams() -> None:
    """They are plain data, marked, each with more in it; the last one is the whole object."""
    words = " ".join(f"word{n}" for n in range(40))
    provider = ScriptedProvider(f'{{"name": "{words}", "people": 3}}')
    result = answering(provider, output=City, partials=True).run("x")
    partials = [element.data for element in result.elements if element.metadata.get("partial")]
    assert len(partials) > 3
    assert all(words.startswith(partial["name"]) for partial in partials)
    assert result.contents[-2] == Data(City(name=words, people=3))


def test_an_answer_of_the_wrong_form_is_asked_for_again() -> None:
    """The model is told what is wrong; the history keeps only the good answer."""
    provider = ScriptedProvider('{"name": "Rome"}', '```json\n{"name": "Rome", "people": 3}\n```', "ok")
    pipeline = answering(provider, output=City)
    result = pipeline.run("x")
    assert result.contents[0] == Data(City(name="Rome", people=3))
    told = provider.calls[1].messages[-1].text
    assert told == "the answer does not fit City: people: Field required. Answer again in that form."
    assert result.usage.output_tokens > 2


def test_an_answer_that_stays_wrong_fails() -> None:
    """After `output_attempts` the turn fails with what is wrong."""
    provider = ScriptedProvider(default="no")
    with pytest.raises(StageError, match="does not fit City") as caught:
        answering(provider, output=City, output_attempts=3).run("x")
    assert isinstance(caught.value.__cause__, InvalidOutput)
    assert len(provider.calls) == 3


# ------------------------------------------------------------------------------------------ declared


def test_what_is_wrong_with_the_options_is_said_at_once() -> None:
    """A provider that is none, an output without fields, a limit of nothing."""
    with pytest.raises(TypeError, match=r"a provider must be a Provider or a model string such as .*, got 3"):
        ProviderStage("assistant", provider=3)
    with pytest.raises(ValueError, match="has the JSON schema of no object"):
        ProviderStage("assistant", provider=ScriptedProvider(), output=int)
    with pytest.raises(ValueError, match="tool_repeats"):
        ProviderStage("assistant", provider=ScriptedProvider(), tool_repeats=0)


def test_events() -> None:
    """Calls are told of: start, first token, end with usage."""
    events: list[Event] = []

    async def main() -> None:
        execution = answering(ScriptedProvider("a b", delay=2.0)).execute("x")
        execution.events.subscribe(events.append)
        await execution

    run_virtual(main())
    told = {event.type: event for event in events if event.type.startswith("provider.")}
    assert list(told) == ["provider.call.started", "provider.call.first_token", "provider.call.completed"]
    assert told["provider.call.first_token"].data["duration"] == 2.0
    assert told["provider.call.completed"].data == {
        "provider": "scripted",
        "model": "script",
        "duration": 2.0,
        "reason": "stop",
        "input_tokens": 1,
        "output_tokens": 2,
        "cost": 0.0,
    }
    assert told["provider.call.started"].stage == "assistant"


@pytest.mark.parametrize("how", ["interrupt", "cancel", "leave"])
def test_a_call_that_is_cut_short_is_told(how: str) -> None:
    """An interrupt, a cancelled execution and a consumer that leaves end the call; an event says so."""
    events: list[Event] = []

    async def main() -> None:
        pipeline = answering(ScriptedProvider(Reply(text="a b c d e", token_delay=1.0)))
        async with pipeline.execute(feed((0, Message.user("x")), (9, END()))) as execution:
            execution.events.subscribe(events.append)
            async for element in execution:
                if element.text == " b" and how == "interrupt":
                    execution.interrupt()
                elif element.text == " b" and how == "cancel":
                    execution.cancel()
                elif element.text == " b":
                    break

    with assert_no_leaks(), suppress(ExecutionCancelled):
        run_virtual(main())
    told = [event for event in events if event.type.startswith("provider.")]
    assert [event.type.rpartition(".")[2] for event in told] == ["started", "first_token", "cancelled"]
    assert told[-1].data == {"provider": "scripted", "model": "script", "duration": 1.0, "characters": 3}


def test_laws() -> None:
    """It keeps the laws of a stage."""
    provider = ScriptedProvider(rules=[Rule("", lambda request: f"to {request.messages[-1].text}")])
    check_stage(lambda: ProviderStage("assistant", provider=provider), [Message.user("a"), Message.user("b")])


def test_many_conversations_at_once() -> None:
    """A thousand sessions on one loop lose no turn."""
    provider = ScriptedProvider(rules=[Rule("", lambda request: f"re {request.messages[-1].text}")], token_delay=0.1)
    pipeline = answering(provider)

    async def one(number: int) -> list[str]:
        source = feed((0, Message.user(f"{number}a")), (0, END()), (1, Message.user(f"{number}b")), (0, END()))
        return [element.message.text async for element in pipeline.execute(source) if element.message is not None]

    async def main() -> list[list[str]]:
        return await asyncio.gather(*map(one, range(1000)))

    assert run_virtual(main()) == [[f"re {number}a", f"re {number}b"] for number in range(1000)]
