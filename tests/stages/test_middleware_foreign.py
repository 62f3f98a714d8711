"""Code of other libraries as a stage: LangChain Runnables and Processors of genai-processors, the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from importlib import import_module
from typing import Any

import pytest

from rxstage import (
    Audio,
    Data,
    Image,
    Message,
    Parts,
    Pipeline,
    Stage,
    StageError,
    StreamElement,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    Video,
)
from rxstage.conversation import PROMPT
from rxstage.stages.middleware import MiddlewareContext, wrap_middleware
from rxstage.testing import assert_no_leaks, run_virtual

WAIT = 20.0
EOT = StreamElement.end_of_turn()


def run(stage: Stage, *values: Any) -> list[StreamElement]:
    """What comes out of a stage, in virtual time and without anything left behind."""

    async def main() -> list[StreamElement]:
        async with assert_no_leaks():
            return list((await Pipeline.of(stage).execute(list(values))).elements)

    return run_virtual(main)


def shown(elements: Iterable[StreamElement]) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


def given(stage: Stage, *values: Any) -> list[Any]:
    return shown(run(stage, *values))


def failure(stage: Stage, *values: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        run(stage, *values)
    return caught.value


async def timed(stage: Stage, source: Any) -> list[tuple[float, Any]]:
    """What comes out, with its time [s]."""
    loop = asyncio.get_running_loop()
    async with assert_no_leaks():
        return [(loop.time(), *shown([e])) async for e in Pipeline.of(stage).execute(source)]


async def talk() -> AsyncIterator[Any]:
    yield "one"
    yield EOT
    await asyncio.sleep(1.5)
    yield StreamElement.interrupt("barge-in")
    yield "two"
    yield EOT


async def passes(context: Any, call_next: Any) -> None:
    await call_next(context)


async def passes_each(context: Any, call_next: Any) -> AsyncIterator[Any]:
    async for element in call_next(context):
        yield element


async def stars(context: Any, call_next: Any) -> AsyncIterator[Any]:
    async for element in call_next(context):
        yield f"{element.text}*"


# ------------------------------------------------------------------------------------------ LangChain


langchain = pytest.mark.needs("module:langchain_core")


def run_really(stage: Stage, *values: Any) -> list[StreamElement]:
    """What comes out, on an ordinary loop."""

    async def main() -> list[StreamElement]:
        async with assert_no_leaks(), asyncio.timeout(WAIT):
            return list((await Pipeline.of(stage).execute(list(values))).elements)

    return asyncio.run(main())


def chat(*answers: Any) -> Any:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    return GenericFakeChatModel(messages=iter([AIMessage(content=answer) for answer in answers]))


def streams(*chunks: Any, seen: list[Any] | None = None) -> Any:
    """A Runnable that streams chunks, and writes down what it is asked."""
    from langchain_core.runnables import RunnableGenerator

    async def transform(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for each in inputs:
            if seen is not None:
                seen.append(each)
            for chunk in chunks:
                await asyncio.sleep(1.0)
                yield chunk

    return RunnableGenerator(transform)


@langchain
def test_a_runnable() -> None:
    """It gets the text of the turn and streams its answer; a dict is data."""
    from langchain_core.runnables import RunnableLambda

    assert [e.payload for e in run_really(wrap_middleware("r", RunnableLambda(str.upper)), "a", "b")] == ["AB"]
    assert given(wrap_middleware("r", streams("a", {"b": 1}, None)), "x", EOT) == ["a", {"b": 1}, None, "EndOfTurn"]
    assert run_virtual(timed(wrap_middleware("r", streams("a", "b")), ["x"])) == [(1.0, "a"), (2.0, "b")]


@langchain
def test_a_chat_model() -> None:
    """Its answer comes piece by piece, and as one message at the end, as from a `ProviderStage`."""
    out = run_really(wrap_middleware("r", chat("Hello there")), Message.user("Hi"))
    assert [e.payload for e in out] == ["Hello", " ", "there", Message.assistant("Hello there")]


@langchain
def test_a_chain_gets_what_it_wants() -> None:
    """`make_input` says what a Runnable is called with; it may be async."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    chain = ChatPromptTemplate.from_messages([("system", "{style}"), ("user", "{question}")]) | chat("Yes.", "No.")

    def make_input(turn: MiddlewareContext) -> dict[str, str]:
        return {"style": "brief", "question": turn.text}

    async def make_input_later(turn: MiddlewareContext) -> dict[str, str]:
        return make_input(turn)

    for make in (make_input, make_input_later):
        stage = wrap_middleware("r", chain | StrOutputParser(), make_input=make)
        assert "".join(e.payload for e in run_really(stage, "really?")) in ("Yes.", "No.")


@langchain
def test_what_a_runnable_gets() -> None:
    """Text as a string, a value as it is, messages in the form that every model takes."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, convert_to_messages

    got: list[Any] = []
    stage = wrap_middleware("r", streams("ok", seen=got), turns="control")
    given(stage, "a", "b", EOT, {"k": 1}, EOT, Message.user("hi"))
    found = StreamElement.of("Found: it.", metadata={PROMPT: True})
    given(stage, found, "where?")
    assert got == ["ab", {"k": 1}, [("user", "hi")], [("system", "Found: it."), ("user", "where?")]]
    got.clear()
    call = ToolCall("add", {"a": 1}, "c1")
    system = StreamElement.of(Message.system("Be brief."), metadata={PROMPT: True})
    results = Message("tool", (ToolResult("c1", 3, "add"),))
    named = Message("user", (Text("look"), Image(b"i", "image/png")), name="Ann")
    given(stage, system, Message.assistant("", tool_calls=(call,)), results, named)
    system_, assistant, tool, user = convert_to_messages(got[0])
    assert system_ == SystemMessage("Be brief.")
    assert isinstance(assistant, AIMessage)
    assert assistant.tool_calls == [{"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}]
    assert tool == ToolMessage("3", tool_call_id="c1", name="add")
    assert isinstance(user, HumanMessage)
    assert user.name == "Ann"
    assert user.content[1] == {"type": "image", "base64": "aQ==", "mime_type": "image/png"}
    error = failure(stage, Message.user("a"), Audio(b"\0\0", 8000))
    assert "say with make_input=" in str(error)


@langchain
def test_tool_calls_and_usage_of_a_runnable() -> None:
    """Calls that come in pieces go out whole, at the end, and so does what was used."""
    from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage

    def piece(name: str | None, args: str, text: str) -> Any:
        chunk: Any = {"name": name, "args": args, "id": "c1" if name else None, "index": 0}
        return AIMessageChunk(content=[{"type": "text", "text": text}, {"type": "x"}], tool_call_chunks=[chunk])

    used: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    last = AIMessageChunk(content="", usage_metadata=used)
    call = ToolCall("add", {"a": 1}, "c1")
    whole = Message.assistant("One moment", tool_calls=(call,), usage=Usage(3, 4))
    stage = wrap_middleware("r", streams(piece("add", '{"a":', "One "), piece(None, " 1}", "moment"), last))
    assert given(stage, "x") == ["One ", "moment", call, whole]
    answer: Any = {"name": "add", "args": {"a": 1}, "id": "c1"}
    said = AIMessage(content="One moment", tool_calls=[answer], usage_metadata=used)
    assert given(wrap_middleware("r", streams(said)), "x") == ["One moment", call, whole]
    assert given(wrap_middleware("r", streams(HumanMessage("me", name="Ann"))), "x") == [
        Message("user", (Text("me"),), name="Ann")
    ]


@langchain
def test_middlewares_round_a_runnable() -> None:
    """An onion goes round a Runnable as it goes round a stage."""
    out = run_virtual(timed(wrap_middleware("r", [passes_each, stars], around=streams("a", "b")), ["x"]))
    assert out == [(1.0, "a*"), (2.0, "b*")]


@langchain
def test_an_interrupt_closes_a_runnable() -> None:
    """Its stream is cancelled, and the next turn is answered."""
    stage = wrap_middleware("r", streams("a", "b"))
    out = run_virtual(timed(stage, talk()))
    assert out == [(1.0, "a"), (1.5, "Interrupt"), (2.5, "a"), (3.5, "b"), (3.5, "EndOfTurn")]


@langchain
def test_an_error_of_a_runnable() -> None:
    """It is the cause of the stage's error, or of a `Failure`."""
    from langchain_core.runnables import RunnableLambda

    async def broken(text: str) -> str:
        raise ConnectionError(text)

    error = failure(wrap_middleware("r", RunnableLambda(broken)), "a")
    assert isinstance(error.__cause__, ConnectionError)
    assert given(wrap_middleware("r", RunnableLambda(broken), on_error="emit"), "a", EOT) == ["Failure", "EndOfTurn"]


# ------------------------------------------------------------------------------------------ genai-processors


genai = pytest.mark.needs("module:genai_processors")


def library() -> Any:
    """genai-processors, which has no types."""
    return import_module("genai_processors.processor")


def upper_processor() -> Any:
    async def upper(content: Any) -> AsyncIterator[Any]:
        async for part in content:
            yield library().status("working")
            yield library().ProcessorPart(part.text.upper(), role="model", metadata={**part.metadata, "seen": True})

    return library().processor_function(upper)


def same_processor() -> Any:
    async def same(part: Any) -> AsyncIterator[Any]:
        yield part

    return library().part_processor_function(same)


@genai
def test_a_processor() -> None:
    """A Processor, a PartProcessor and a chain of both get the parts of a turn, and their parts come out."""
    out = run(wrap_middleware("p", upper_processor() + same_processor()), StreamElement.of("a", metadata={"k": 1}), "b")
    assert [(e.payload, dict(e.metadata)) for e in out] == [
        ("A", {"k": 1, "seen": True, "role": "model"}),
        ("B", {"k": 1, "seen": True, "role": "model"}),
    ]
    stage = wrap_middleware("p", same_processor())
    assert given(stage, Message.user("hi"), Message.user("you")) == ["hi", "you"]
    assert [e.metadata["role"] for e in run(stage, Message.assistant("hi"))] == ["model"]


@genai
def test_contents_survive_a_processor() -> None:
    """What a part can hold comes out as it went in."""
    contents = [
        Text("a"),
        Image(b"i", "image/png"),
        Video(b"v", "video/mp4"),
        Audio(bytes(8), 16_000),
        Audio(bytes(8), 8_000, 2),
        ToolCall("add", {"a": 1}, "c1"),
        ToolResult("c1", {"sum": 3}, "add"),
        ToolResult("c1", "no", "add", is_error=True),
    ]
    assert [e.content for e in run(wrap_middleware("p", same_processor()), *contents)] == contents
    assert given(wrap_middleware("p", same_processor()), Parts(("a", Image(b"i")))) == ["a", Image(b"i")]
    with pytest.raises(StageError, match="ProcessorPart of it in a MapStage"):
        run(wrap_middleware("p", same_processor()), Data(object()))


@genai
def test_parts_of_other_kinds() -> None:
    """A part goes in and out as data where no content stands for it; an empty one only marks the end of a turn."""

    async def makes(content: Any) -> AsyncIterator[Any]:
        async for part in content:
            assert part.mimetype == "audio/mp3"
            yield part
            yield library().ProcessorPart(bytes(4), mimetype="audio/pcm")
            yield library().ProcessorPart("aside", substream_name="notes")
            yield library().ProcessorPart.end_of_turn()

    song = library().ProcessorPart(b"mp3", mimetype="audio/mp3")
    out = run(wrap_middleware("p", library().processor_function(makes)), StreamElement(Data(song), metadata={"k": 1}))
    assert [e.payload for e in out] == [song, Audio(bytes(4), 24_000), "aside"]
    assert out[2].metadata["substream"] == "notes"
    assert song.metadata == {}


@genai
def test_what_a_processor_tells_is_an_event() -> None:
    """Its status goes to whoever listens to the execution, not into the stream."""
    told: list[Any] = []

    async def main() -> list[Any]:
        execution = Pipeline.of(wrap_middleware("p", upper_processor())).execute(["a"])
        execution.events.subscribe(lambda e: told.append((e.stage, e.data["text"])) if "processor" in e.type else None)
        return shown((await execution).elements)

    assert run_virtual(main) == ["A"]
    assert told == [("p", "working")]


@genai
def test_an_error_of_a_processor() -> None:
    """It is the cause of the stage's error, not a group of it; with `on_error` the next turn is treated."""

    async def broken(content: Any) -> AsyncIterator[Any]:
        async for part in content:
            yield part
            if part.text == "bad":
                raise ConnectionError("down")

    processor = library().processor_function(broken)
    error = failure(wrap_middleware("p", processor), "bad")
    assert isinstance(error.__cause__, ConnectionError)
    stage = wrap_middleware("p", processor, on_error="emit")
    assert given(stage, "bad", EOT, "good") == ["bad", "Failure", "EndOfTurn", "good"]
    error = failure(wrap_middleware("p", same_processor() + processor + same_processor()), "bad")
    assert isinstance(error.__cause__, ConnectionError)


@genai
def test_an_interrupt_ends_the_tasks_of_a_processor() -> None:
    """What a Processor has started is cancelled with the turn, and the next one is treated."""
    ended: list[float] = []

    async def slowly(content: Any) -> AsyncIterator[Any]:
        async for part in content:
            for number in range(3):
                try:
                    await asyncio.sleep(1.0)
                except asyncio.CancelledError:
                    ended.append(asyncio.get_running_loop().time())
                    raise
                yield f"{part.text}{number}"

    out = run_virtual(timed(wrap_middleware("p", library().processor_function(slowly) + upper_processor()), talk()))
    assert out == [
        (1.0, "ONE0"),
        (1.5, "Interrupt"),
        (2.5, "TWO0"),
        (3.5, "TWO1"),
        (4.5, "TWO2"),
        (4.5, "EndOfTurn"),
    ]
    assert ended == [1.5]


@genai
def test_middlewares_round_a_processor() -> None:
    """An onion goes round a Processor as it goes round a stage."""
    assert given(wrap_middleware("p", [passes, stars], around=upper_processor()), "a", "b") == ["A*", "B*"]


def test_what_looks_like_a_processor_needs_parts() -> None:
    """Something with `to_processor` of another library is refused with what is missing."""

    class Odd:
        def to_processor(self) -> Any:
            return self

        def __call__(self, content: Any) -> Any:
            return content

    with pytest.raises(TypeError, match="ProcessorPart"):
        wrap_middleware("p", Odd())
