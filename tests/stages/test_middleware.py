"""Existing code as a stage: middlewares of all natures, what they wrap, and what is left of a turn cut short."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

import pytest

from rxstage import (
    EndOfTurn,
    Event,
    ExecutionCancelled,
    Failure,
    GraphError,
    Image,
    MapStage,
    Message,
    Pipeline,
    PipelineConfig,
    ProviderStage,
    RxStageError,
    Stage,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.conversation import HISTORY, PROMPT
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.middleware import MiddlewareAdapter, MiddlewareContext, MiddlewareResult, wrap_middleware
from rxstage.testing import assert_no_leaks, check_stage, run_virtual, virtual

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


async def passes(context: Any, call_next: Any) -> None:
    await call_next(context)


async def passes_each(context: Any, call_next: Any) -> AsyncIterator[Any]:
    async for element in call_next(context):
        yield element


def passes_plainly(context: Any, call_next: Any) -> Any:
    return call_next(context)


def passes_each_plainly(context: Any, call_next: Any) -> Any:
    yield from call_next(context)


NATURES: dict[str, Callable[..., Any]] = {
    "coroutine": passes,
    "async generator": passes_each,
    "plain function": passes_plainly,
    "generator": passes_each_plainly,
}
natures = pytest.mark.parametrize("middleware", NATURES.values(), ids=NATURES.keys())


async def backwards(text: str) -> str:
    await asyncio.sleep(0.1)
    return text[::-1]


def slow() -> MapStage:
    return MapStage("slow", backwards, on=Text)


async def counting(items: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Three pieces for each item, one a second."""
    async for item in items:
        for number in range(3):
            await asyncio.sleep(1.0)
            yield f"{item}{number}"


async def doubling(items: AsyncIterator[str]) -> AsyncIterator[str]:
    async for item in items:
        yield item
        await asyncio.sleep(0.01)
        yield item


# ------------------------------------------------------------------------------------------ the laws


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("around", [None, slow(), doubling], ids=["nothing", "a stage", "a generator"])
@natures
def test_laws(middleware: Any, around: Any, streaming: bool) -> None:
    """An adapter keeps the laws of a stage, whatever the nature of its middleware and whatever it wraps."""
    report = check_stage(
        lambda: wrap_middleware("m", middleware, around=around, turns="element", streaming=streaming), ["a", "bc"]
    )
    assert set(report.skipped) == {"falsy", "envelope"}


def test_laws_of_an_onion_of_messages() -> None:
    """Four middlewares of all natures keep the laws where each message is a turn."""
    report = check_stage(
        lambda: wrap_middleware("m", list(NATURES.values())), [Message.user("alpha"), Message.user("bravo")]
    )
    assert len(report.kept) == 15


# ------------------------------------------------------------------------------------------ the onion


def test_a_turn_goes_through_the_onion() -> None:
    """The first middleware is outermost: its part before `call_next` comes first, its part behind it last."""
    told: list[str] = []

    def layer(name: str) -> Callable[..., Any]:
        async def middleware(context: Any, call_next: Any) -> str:
            told.append(f"{name} {context.text}")
            context.text += name
            result = await call_next(context)
            told.append(f"{name} {result.text}")
            return str(result.text + name)

        return middleware

    stage = wrap_middleware("m", [layer("a"), layer("b")], around=slow())
    assert given(stage, "1", "2", EOT, "3") == ["ba21ba", "EndOfTurn", "ba3ba"]
    assert told[:4] == ["a 12", "b 12a", "b ba21", "a ba21b"]


@natures
def test_nothing_is_wrapped(middleware: Any) -> None:
    """Without `around`, `call_next` gives what came in, with its envelope."""
    element = StreamElement.of("a", metadata={"k": 1}, source="mic")
    out = run(wrap_middleware("m", middleware), element, Image(b"i"))
    assert [e.replace(sequence=0, timestamp=0.0) for e in out] == [element, StreamElement.of(Image(b"i"))]
    assert [e.sequence for e in out] == [1, 2]


class Pair(NamedTuple):
    """A value of the application."""

    one: int
    two: int


RETURNED: dict[str, tuple[Any, list[Any]]] = {
    "nothing": (lambda context, result: None, ["a"]),
    "the result": (lambda context, result: result, ["a"]),
    "the context": (lambda context, result: context, ["a"]),
    "text": (lambda context, result: "b", ["b"]),
    "a message": (lambda context, result: Message.assistant("b"), [Message.assistant("b")]),
    "an element": (lambda context, result: StreamElement.of(1), [1]),
    "a dict": (lambda context, result: {"b": 1}, [{"b": 1}]),
    "a list": (lambda context, result: [*result, "b"], ["a", "b"]),
    "a tuple": (lambda context, result: (*result, "b"), ["a", "b"]),
    "a named tuple": (lambda context, result: Pair(1, 2), [Pair(1, 2)]),
    "an iterator": (lambda context, result: iter(["b", "c"]), ["b", "c"]),
    "an empty list": (lambda context, result: [], []),
    "a control": (lambda context, result: ["b", EndOfTurn()], ["b", "EndOfTurn"]),
    "an exception": (lambda context, result: ValueError("b"), ["Failure"]),
    "an async iterator": (lambda context, result: counting(_items("b")), ["b0", "b1", "b2"]),
}


async def _items(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize("what", RETURNED)
@pytest.mark.parametrize("how", ["returned", "set", "returned by a plain function"])
def test_what_goes_out(what: str, how: str) -> None:
    """What a function returns goes out, or what it has set as the result; with neither, what `call_next` gave."""
    make, expected = RETURNED[what]

    async def middleware(context: Any, call_next: Any) -> Any:
        result = await call_next()
        if how == "returned":
            return make(context, result)
        if what not in ("nothing", "the context"):
            context.result = make(context, result)

    def plain(context: Any, call_next: Any) -> Any:
        return make(context, call_next())

    assert given(wrap_middleware("m", plain if "plain" in how else middleware), "a") == expected


def test_call_next_can_be_returned() -> None:
    """An async function that returns `call_next(context)` streams what comes."""

    async def middleware(context: Any, call_next: Any) -> Any:
        return call_next(context)

    out = run_virtual(timed(wrap_middleware("m", middleware, around=counting), ["a"]))
    assert out == [(1.0, "a0"), (2.0, "a1"), (3.0, "a2")]


@pytest.mark.parametrize("how", ["returned", "set", "nothing", "yielded"])
def test_a_short_circuit(how: str) -> None:
    """A middleware that does not call `call_next` answers by itself, or with nothing; what it wraps is not run."""
    ran: list[str] = []

    async def middleware(context: Any, call_next: Any) -> Any:
        if how == "returned":
            return "cached"
        if how == "set":
            context.result = "cached"

    async def generator(context: Any, call_next: Any) -> Any:
        yield "cached"

    stage = wrap_middleware(
        "m", [passes, generator if how == "yielded" else middleware], around=MapStage("llm", ran.append, on=Text)
    )
    assert given(stage, "a", EOT) == (["EndOfTurn"] if how == "nothing" else ["cached", "EndOfTurn"])
    assert ran == []


@natures
def test_call_next_can_be_called_again(middleware: Any) -> None:
    """Each call runs what is wrapped again; the last result stands, unless the middleware says otherwise."""
    ran: list[str] = []

    def llm(text: str) -> str:
        ran.append(text)
        return f"{text}{len(ran)}"

    async def twice(context: Any, call_next: Any) -> None:
        first = await call_next(context)
        context.text = f"{context.text}-{first.text}"
        await call_next(context=context)

    assert given(wrap_middleware("m", [twice, middleware], around=MapStage("llm", llm, on=Text)), "a") == ["a-a12"]
    assert ran == ["a", "a-a1"]


def test_calls_at_once() -> None:
    """Two calls of `call_next` can be under way at once."""

    async def both(context: Any, call_next: Any) -> list[Any]:
        results = await asyncio.gather(call_next(), call_next())
        return [each for result in results for each in result]

    assert run_virtual(timed(wrap_middleware("m", both, around=slow()), ["ab"])) == [(0.1, "ba"), (0.1, "ba")]


def test_a_forgotten_await_is_an_error() -> None:
    """A call that nobody waits for would be lost: it is an error that says so."""

    async def forgets(context: Any, call_next: Any) -> None:
        call_next(context)

    async def forgets_each(context: Any, call_next: Any) -> Any:
        call_next(context)
        yield "a"

    for middleware in (forgets, forgets_each):
        assert "without waiting for it" in str(failure(wrap_middleware("m", middleware), "a"))


@pytest.mark.parametrize("middleware", ["async", "plain", "generator"])
def test_call_next_takes_the_context(middleware: str) -> None:
    """Something else than the context is refused, and what to do instead is said."""

    async def wrong(context: Any, call_next: Any) -> None:
        await call_next("b")

    def wrong_plainly(context: Any, call_next: Any) -> None:
        call_next("b")

    def wrong_each(context: Any, call_next: Any) -> Any:
        yield from call_next("b")

    stage = wrap_middleware("m", {"async": wrong, "plain": wrong_plainly, "generator": wrong_each}[middleware])
    error = failure(stage, "a")
    assert isinstance(error.__cause__, TypeError)
    assert "set context.text" in str(error)


def test_a_context_of_its_own() -> None:
    """A middleware can go on with a copy of the context; what it says on it holds from there on."""
    import copy

    async def overrides(context: Any, call_next: Any) -> Any:
        other = copy.copy(context)
        other.text = "b"
        await call_next(other)
        return [context.text, other.text, *context.result]

    assert given(wrap_middleware("m", overrides), "a") == ["a", "b", "b"]


# ------------------------------------------------------------------------------------------ the context


def seen(read: Callable[[Any], Any], *values: Any) -> Any:
    """What a middleware reads of its context."""
    found: list[Any] = []

    async def middleware(context: Any, call_next: Any) -> None:
        found.append(read(context))

    run(wrap_middleware("m", middleware), *values)
    assert len(found) == 1
    return found[0]


def test_text_and_messages() -> None:
    """The text is what the user said; the messages are the whole turn."""
    system = StreamElement.of(Message.system("Be brief."), metadata={PROMPT: True})
    turn = [system, "Look ", "at ", Image(b"i"), "this", Message.user("now", Image(b"j"))]
    assert seen(lambda context: context.text, *turn) == "Look at thisnow"
    assert seen(lambda context: context.messages, *turn) == (
        Message.system("Be brief."),
        Message.user("Look at ", Image(b"i"), "this"),
        Message.user("now", Image(b"j")),
    )
    found = StreamElement.of("Found: it.", metadata={PROMPT: True})
    assert seen(lambda context: context.messages, found, "a") == (Message.system("Found: it."), Message.user("a"))
    assert seen(lambda context: context.text, found, "a") == "a"
    assert seen(lambda context: (context.result, type(context.elements)), "a") == (None, list)


def changed(change: Callable[[Any], None], *values: Any) -> list[StreamElement]:
    """What goes on after a middleware has changed its context."""

    async def middleware(context: Any, call_next: Any) -> None:
        change(context)
        await call_next()

    return run(wrap_middleware("m", middleware), *values)


def test_what_came_in_can_be_changed() -> None:
    """Text, messages and elements can be set; what is not text stays where it is."""

    def text(context: Any) -> None:
        context.text = "b"

    assert shown(changed(text, "a1", Image(b"i"), "a2")) == ["b", Image(b"i")]
    assert shown(changed(text, Message.user("a", Image(b"i")))) == [Message.user("b", Image(b"i"))]
    assert shown(changed(text, Image(b"i"))) == [Image(b"i"), "b"]

    def elements(context: Any) -> None:
        context.elements = ["b", *context.elements, 1]

    assert shown(changed(elements, "a")) == ["b", "a", 1]

    def messages(context: Any) -> None:
        context.messages = [Message.system("Be brief."), *context.messages]

    user = StreamElement.of(Message.user("a"), metadata={"k": 1})
    out = changed(messages, user)
    assert [(e.content.role, dict(e.metadata)) for e in out] == [("system", {"k": 1, PROMPT: True}), ("user", {"k": 1})]


def test_metadata_goes_on_and_out() -> None:
    """Metadata of all elements are there together; what is added is put on what goes on, and on what comes out."""

    def note(context: Any) -> None:
        assert context.metadata == {"a": 1, "b": 2}
        context.metadata["user"] = "Ann"

    out = changed(note, StreamElement.of("x", metadata={"a": 1}), StreamElement.of("y", metadata={"b": 2}))
    assert [dict(e.metadata) for e in out] == [{"a": 1, "user": "Ann"}, {"b": 2, "user": "Ann"}]

    async def late(context: Any, call_next: Any) -> list[Any]:
        result = await call_next()
        context.metadata["late"] = True
        return [*result, "z"]

    inner: list[Any] = []

    def notes(element: StreamElement) -> StreamElement:
        inner.append(dict(element.metadata))
        return element

    stage = wrap_middleware("m", late, around=MapStage("i", notes))
    out = run(stage, StreamElement.of("x", metadata={"a": 1}))
    assert [dict(e.metadata) for e in out] == [{"a": 1, "late": True}] * 2
    assert inner == [{"a": 1}]


def test_middlewares_share_the_context() -> None:
    """What one middleware puts on the context, under a name of its own too, the others find there."""
    found: list[Any] = []

    async def sets(context: Any, call_next: Any) -> None:
        found.append(getattr(context, "user", None))
        context.user = "Ann"
        await call_next()
        found.append(context.checked)

    def reads(context: Any, call_next: Any) -> Any:
        context.checked = context.user == "Ann"
        return call_next(context)

    assert given(wrap_middleware("m", [sets, reads], turns="element"), "a", "b") == ["a", "b"]
    assert found == [None, True, None, True]


def test_a_context_in_the_language_of_another_framework() -> None:
    """With `context_type` a middleware finds the names that it was written for, and runs unchanged."""

    class Request(MiddlewareContext):
        @property
        def prompt(self) -> str:
            return self.text

        @prompt.setter
        def prompt(self, prompt: str) -> None:
            self.text = prompt

        @property
        def reply(self) -> str:
            return str(self.result.text)

        @reply.setter
        def reply(self, reply: str) -> None:
            self.result = reply

    class Polite:
        async def process(self, request: Any, call_next: Any) -> None:
            request.prompt = f"Please: {request.prompt}"
            await call_next()
            request.reply = f"{request.reply}, sir"

    stage = wrap_middleware("m", Polite(), around=MapStage("up", str.upper, on=Text), context_type=Request)
    assert given(stage, "go") == ["PLEASE: GO, sir"]


def test_forms_of_a_middleware() -> None:
    """Functions, methods, partial functions, callable objects, decorated ones and objects with `process` all do."""

    class Called:
        async def __call__(self, context: Any, call_next: Any) -> str:
            return f"{(await call_next()).text}c"

        async def method(self, context: Any, call_next: Any) -> str:
            return f"{(await call_next()).text}m"

        def process(self, context: Any, call_next: Any) -> None:
            raise AssertionError("a callable object is called")

    class Processes:
        def process(self, context: Any, call_next: Any) -> str:
            return f"{call_next().text}p"

    async def with_option(option: str, context: Any, call_next: Any) -> str:
        return f"{(await call_next()).text}{option}"

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    onion = [
        Called(),
        Called().method,
        Processes(),
        functools.partial(with_option, "o"),
        decorated(Called().method),
        decorated(passes_each),
        decorated(passes_plainly),
    ]
    assert given(wrap_middleware("m", onion), "a") == ["amopmc"]


@pytest.mark.parametrize(
    "wrong",
    [None, "text", 3, lambda: None, lambda context: None, lambda a, b, c: None, [passes, str.upper], MiddlewareContext],
    ids=["None", "text", "number", "no argument", "one argument", "three", "in a list", "a class"],
)
def test_no_middleware(wrong: Any) -> None:
    """What is no middleware is refused when the stage is made, with what would be one."""
    with pytest.raises(TypeError, match="takes a middleware"):
        wrap_middleware("m", wrong)


def test_nothing_to_go_round() -> None:
    """What `around` cannot run is refused, and what would make an answer itself is no middleware round something."""
    with pytest.raises(TypeError, match="around= takes a stage"):
        wrap_middleware("m", passes, around=passes)
    with pytest.raises(TypeError, match="can only stand in around="):
        wrap_middleware("m", counting, around=slow())
    with pytest.raises(GraphError, match="slow"):
        wrap_middleware("m", passes, around=[slow(), slow()])
    with pytest.raises(TypeError, match="only stages can stand in a series"):
        wrap_middleware("m", passes, around=[slow(), passes])
    with pytest.raises(TypeError, match="make_input= is for"):
        wrap_middleware("m", passes, make_input=lambda turn: turn.text)
    with pytest.raises(TypeError, match="a subclass of MiddlewareContext"):
        wrap_middleware("m", passes, context_type=dict)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_elements"):
        wrap_middleware("m", passes, max_elements=0)


# ------------------------------------------------------------------------------------------ streaming


async def stars(context: Any, call_next: Any) -> AsyncIterator[Any]:
    async for element in call_next(context):
        yield f"{element.text}*"


def stars_plainly(context: Any, call_next: Any) -> Any:
    for element in call_next(context):
        yield f"{element.text}*"


@pytest.mark.parametrize("middleware", [stars, stars_plainly])
def test_a_generator_streams(middleware: Any) -> None:
    """A generator treats each element as it comes."""
    out = run_virtual(timed(wrap_middleware("m", [stars, middleware], around=counting), ["a"]))
    assert out == [(1.0, "a0**"), (2.0, "a1**"), (3.0, "a2**")]


@pytest.mark.parametrize("middleware", [passes, passes_plainly])
def test_a_function_waits_unless_it_is_told_to_stream(middleware: Any) -> None:
    """What a function waits for goes on at its end, so that it can change it; with `streaming=True`, meanwhile."""
    whole = run_virtual(timed(wrap_middleware("m", [passes, middleware], around=counting), ["a"]))
    assert whole == [(3.0, "a0"), (3.0, "a1"), (3.0, "a2")]
    streaming = wrap_middleware("m", [passes, middleware], around=counting, streaming=True)
    assert run_virtual(timed(streaming, ["a"])) == [(1.0, "a0"), (2.0, "a1"), (3.0, "a2")]


def test_streaming_cannot_be_undone() -> None:
    """With `streaming=True` a function that changes the result, or asks again, is an error that says what to do."""

    async def changes(context: Any, call_next: Any) -> str:
        return str((await call_next()).text.upper())

    async def sets(context: Any, call_next: Any) -> None:
        await call_next()
        context.result = "b"

    async def again(context: Any, call_next: Any) -> None:
        await call_next()
        await call_next()

    for middleware, words in (
        (changes, "changed the result"),
        (sets, "changed the result"),
        (again, "call_next again"),
    ):
        error = failure(wrap_middleware("m", middleware, around=counting, streaming=True), "a")
        assert words in str(error)
        assert "streaming=False" in str(error)


def test_streaming_leaves_what_has_not_begun() -> None:
    """With `streaming=True` a cache may answer, and a call that failed before its first element may be repeated."""
    tries: list[str] = []

    async def flaky(items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for item in items:
            tries.append(item)
            if len(tries) == 1:
                raise ConnectionError("down")
            yield item

    async def retries(context: Any, call_next: Any) -> Any:
        if context.text == "known":
            return "cached"
        try:
            await call_next()
        except ConnectionError:
            await call_next()

    stage = wrap_middleware("m", retries, around=flaky, streaming=True)
    assert given(stage, "known", EOT, "new") == ["cached", "EndOfTurn", "new"]
    assert tries == ["new", "new"]


@pytest.mark.parametrize("nature", ["async", "plain"])
def test_a_stream_that_is_left_early_is_closed(nature: str) -> None:
    """Leaving the loop over `call_next` ends what is wrapped at once, and nothing of it is left."""
    closed: list[float] = []

    async def endless(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        try:
            async for _ in elements:
                while True:
                    await asyncio.sleep(1.0)
                    yield "word"
        finally:
            closed.append(asyncio.get_running_loop().time())

    async def first(context: Any, call_next: Any) -> AsyncIterator[Any]:
        async for element in call_next():
            yield element
            break

    def first_plainly(context: Any, call_next: Any) -> Any:
        for element in call_next():
            yield element
            return

    stage = wrap_middleware(
        "m", first if nature == "async" else first_plainly, around=StageFunc("e", StageType.TRANSFORM, endless)
    )
    assert run_virtual(timed(stage, ["a", EOT, "b"])) == [(1.0, "word"), (1.0, "EndOfTurn"), (2.0, "word")]
    assert closed == [1.0, 2.0]


def test_a_slow_consumer_slows_what_is_wrapped() -> None:
    """A generator holds 16 elements, whatever the length of the stream."""
    made = 0

    async def endless(items: AsyncIterator[Any]) -> AsyncIterator[str]:
        nonlocal made
        async for _ in items:
            while True:
                made += 1
                yield "word"

    async def main(**options: Any) -> int:
        nonlocal made
        made = 0
        stage = wrap_middleware("m", around=endless, **options)
        async with Pipeline.of(stage, config=PipelineConfig(buffer_size=4)).execute(["a"]) as execution:
            output = aiter(execution)
            await anext(output)
            await asyncio.sleep(10.0)
            return made

    assert run_virtual(main()) < 40
    assert run_virtual(main(middleware=passes_each)) < 40
    assert run_virtual(main(middleware=[passes, passes], streaming=True)) < 80


# ------------------------------------------------------------------------------------------ turns


def turns_of(*values: Any, **options: Any) -> list[str]:
    """The texts of the turns that a middleware gets."""
    texts: list[str] = []

    async def middleware(context: Any, call_next: Any) -> None:
        texts.append(context.text)
        await call_next()

    run(wrap_middleware("m", middleware, **options), *values)
    return texts


def test_what_ends_a_turn() -> None:
    """A turn ends with an `EndOfTurn`, with a user message unless told otherwise, and with the input."""
    values = ["a", "b", Message.user("c"), EOT, EOT, "d", Message.assistant("e"), EOT, "f"]
    assert turns_of(*values) == ["abc", "d", "f"]
    assert turns_of(*values, turns="control") == ["abc", "d", "f"]
    assert turns_of("a", Message.user("b"), Message.user("c")) == ["ab", "c"]
    assert turns_of("a", Message.user("b"), Message.user("c"), turns="control") == ["abc"]
    assert turns_of("a", "b", EOT, turns="element") == ["a", "b"]
    prompt = StreamElement.of(Message.user("example"), metadata={PROMPT: True})
    assert turns_of(prompt, "a") == ["a"]


def test_what_is_no_part_of_a_turn_passes_by() -> None:
    """Content that it does not accept, messages that are only shown, and controls pass by in their place."""
    old = StreamElement.of(Message.user("old"), metadata={HISTORY: True})
    failed = Failure(ValueError("v"), "x")
    stage = wrap_middleware("m", [passes, stars], accepts=Text)
    assert given(stage, old, "a", Image(b"i"), failed, "b", EOT) == [
        Message.user("old"),
        Image(b"i"),
        "Failure",
        "a*",
        "b*",
        "EndOfTurn",
    ]


def test_a_turn_is_bounded() -> None:
    """More elements than `max_elements` are an error that says what to do, and no further one is taken."""
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield "a"

    with pytest.raises(StageError, match=r"more than 3 elements .* EndOfTurn"):
        Pipeline.of(wrap_middleware("m", passes, max_elements=3)).run(endless(), timeout=WAIT)
    assert taken < 100
    values = ["a", "b", EOT, "c", "d", "e", "f", EOT, "g"]
    emitted = given(wrap_middleware("m", passes, max_elements=3, on_error="emit"), *values)
    assert emitted == ["a", "b", "EndOfTurn", "Failure", "EndOfTurn", "g"]


def test_a_result_is_bounded() -> None:
    """A function cannot wait for more elements than `max_elements`; a generator holds none, and may."""

    async def many(items: AsyncIterator[Any]) -> AsyncIterator[str]:
        for _ in range(4):
            yield "a"

    error = failure(wrap_middleware("m", passes, around=many, max_elements=3), "x")
    assert "make the middleware a generator" in str(error)
    assert given(wrap_middleware("m", passes_each, around=many, max_elements=3), "x") == ["a"] * 4


# ------------------------------------------------------------------------------------------ errors


async def bad(context: Any, call_next: Any) -> None:
    if context.text == "bad":
        raise KeyError("of the middleware")
    await call_next()


def bad_plainly(context: Any, call_next: Any) -> Any:
    if context.text == "bad":
        raise KeyError("of the middleware")
    return call_next()


async def bad_late(context: Any, call_next: Any) -> Any:
    async for element in call_next():
        yield element
    if context.text == "bad":
        raise KeyError("of the middleware")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("middleware", [bad, bad_plainly, bad_late])
def test_an_error_of_a_middleware(middleware: Any, streaming: bool) -> None:
    """It ends the execution; with `on_error` it concerns its turn alone, and the next one is treated."""
    values = ["bad", EOT, "good", EOT]
    stage = functools.partial(wrap_middleware, "m", [passes, middleware], streaming=streaming)
    error = failure(stage(), *values)
    assert error.stage == "m"
    assert isinstance(error.__cause__, KeyError)
    begun = ["bad"] if middleware is bad_late and streaming else []
    assert given(stage(on_error="emit"), *values) == [*begun, "Failure", "EndOfTurn", "good", "EndOfTurn"]
    assert given(stage(on_error="skip"), *values) == [*begun, "EndOfTurn", "good", "EndOfTurn"]
    emitted = [e.failure for e in run(stage(on_error="emit"), *values) if e.failure is not None]
    assert [(type(each.error), each.stage) for each in emitted] == [(KeyError, "m")]


def test_other_policies_are_refused() -> None:
    """A `Retry` would have to repeat the input; what can be repeated is a call of `call_next`."""
    from rxstage import Retry

    with pytest.raises(ValueError, match="on_error"):
        wrap_middleware("m", passes, on_error=Retry(2))  # type: ignore[arg-type]


def fails(text: str) -> str:
    raise ConnectionError(f"no {text}")


@natures
def test_an_error_of_what_is_wrapped(middleware: Any) -> None:
    """A middleware gets the error itself, and can catch it; where none does, the inner stage is named."""
    stage = wrap_middleware("m", middleware, around=[slow(), MapStage("llm", fails, on=Text)])
    error = failure(stage, "ab")
    assert (error.stage, error.stage_type) == ("m/llm", StageType.TRANSFORM)
    assert isinstance(error.__cause__, ConnectionError)
    assert error.element.text == "ba"

    async def apologises(context: Any, call_next: Any) -> Any:
        try:
            return await call_next(context)
        except ConnectionError as caught:
            return f"sorry: {caught}"

    def apologises_plainly(context: Any, call_next: Any) -> Any:
        try:
            return call_next(context)
        except ConnectionError as caught:
            return f"sorry: {caught}"

    for outer in (apologises, apologises_plainly):
        stage = wrap_middleware("m", [outer, middleware], around=MapStage("llm", fails, on=Text))
        assert given(stage, "a", EOT, "b") == ["sorry: no a", "EndOfTurn", "sorry: no b"]


def test_an_inner_policy_holds_inside() -> None:
    """A stage inside keeps its own `on_error`: its `Failure` is an element of the result."""

    async def middleware(context: Any, call_next: Any) -> Any:
        result = await call_next()
        assert [e.failure.stage for e in result] == ["llm"]
        return result

    stage = wrap_middleware("m", middleware, around=MapStage("llm", fails, on=Text, on_error="emit"))
    assert given(stage, "a", EOT) == ["Failure", "EndOfTurn"]


def test_a_plain_function_that_returns_an_awaitable() -> None:
    """Nobody would await it: it is an error that says to write `async def`."""
    error = failure(wrap_middleware("m", lambda context, call_next: asyncio.sleep(0)), "a")
    assert "make it an `async def` function" in str(error)


def test_none_among_elements() -> None:
    """A generator that yields None is an error that names the stage."""

    async def middleware(context: Any, call_next: Any) -> Any:
        yield None

    assert "the middleware of stage 'm' gave None" in str(failure(wrap_middleware("m", middleware), "a"))


@pytest.mark.parametrize("kind", [StopIteration, SystemError, asyncio.CancelledError])
def test_whatever_a_thread_raises_is_heard(kind: type[BaseException]) -> None:
    """An exception that no future takes, or one that is none of the ordinary ones, does not make the stage hang."""

    def middleware(context: Any, call_next: Any) -> None:
        raise kind("odd")

    with pytest.raises((StageError, ExecutionCancelled)):
        run(wrap_middleware("m", middleware), "a")


def test_a_cancellation_that_nobody_asked_for() -> None:
    """It fails the execution, as with any stage."""

    async def middleware(context: Any, call_next: Any) -> None:
        raise asyncio.CancelledError

    for streaming in (False, True):
        error = failure(wrap_middleware("m", middleware, streaming=streaming, on_error="skip"), "a")
        assert isinstance(error.__cause__, asyncio.CancelledError)


# ------------------------------------------------------------------------------------------ threads


def test_a_plain_middleware_does_not_keep_the_loop() -> None:
    """It runs on a thread of the stage, in the context of its caller; what it calls runs on the loop."""
    loop_thread = threading.get_ident()
    user = contextvars.ContextVar("user", default="nobody")
    where: dict[str, Any] = {}
    released = threading.Event()

    async def sets(context: Any, call_next: Any) -> None:
        user.set("Ann")
        await call_next()

    def plain(context: Any, call_next: Any) -> Any:
        where["plain"] = threading.get_ident()
        where["name"] = threading.current_thread().name
        where["user"] = user.get()
        assert released.wait(WAIT)
        return call_next()

    async def inner(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        where["inner"] = threading.get_ident()
        async for item in items:
            yield item

    async def main() -> list[Any]:
        async with assert_no_leaks():
            execution = Pipeline.of(wrap_middleware("m", [sets, plain], around=inner)).execute(["a"])
            asyncio.get_running_loop().call_later(0.01, released.set)  # only if the loop is free
            async with asyncio.timeout(WAIT):
                return shown((await execution).elements)

    assert asyncio.run(main()) == ["a"]
    assert where["plain"] != loop_thread
    assert where["inner"] == loop_thread
    assert (where["name"], where["user"]) == ("rxstage:m", "Ann")


def test_threads_are_kept_for_the_next_turn() -> None:
    """As many threads as plain middlewares serve all turns."""
    used: set[int] = set()

    def plain(context: Any, call_next: Any) -> Any:
        used.add(threading.get_ident())
        return call_next()

    stage = wrap_middleware("m", [plain, passes, plain], turns="element")
    assert len(given(stage, *"abcdefgh")) == 8
    assert len(used) == 2


def test_a_thread_stands_still_while_it_waits() -> None:
    """In virtual time, what a plain middleware waits for takes no real time."""
    begin = time.monotonic()
    out = run_virtual(timed(wrap_middleware("m", [passes_plainly, passes_each_plainly], around=counting), ["a"]))
    assert [at for at, _ in out] == [3.0, 3.0, 3.0]
    assert time.monotonic() - begin < WAIT


# ------------------------------------------------------------------------------------------ cut short


async def talk() -> AsyncIterator[Any]:
    yield "one"
    yield EOT
    await asyncio.sleep(1.5)
    yield StreamElement.interrupt("barge-in")
    yield "two"
    yield EOT


@pytest.mark.parametrize("streaming", [False, True])
@natures
def test_an_interrupt_cuts_a_turn_short(middleware: Any, streaming: bool) -> None:
    """It cancels the middleware and what it wraps in mid-call, goes ahead, and the next turn is treated."""
    stage = wrap_middleware("m", [passes_each, middleware], around=counting, streaming=streaming)
    out = run_virtual(timed(stage, talk()))
    streams = streaming or middleware in (passes_each, passes_each_plainly)
    after = [(2.5, "two0"), (3.5, "two1"), (4.5, "two2")] if streams else [(4.5, f"two{n}") for n in range(3)]
    begun = [(1.0, "one0")] if streams else []
    assert out == [*begun, (1.5, "Interrupt"), *after, (4.5, "EndOfTurn")]


def test_an_interrupt_drops_what_has_come_of_its_turn() -> None:
    """What came in before it belongs to the turn that it ends."""
    assert turns_of("old", StreamElement.interrupt(), "new") == ["new"]


def test_the_end_of_an_interrupted_turn_comes_before_the_next() -> None:
    """What a middleware does when it is cancelled is done before the next turn begins."""
    told: list[tuple[float, str]] = []

    async def careful(context: Any, call_next: Any) -> None:
        clock = asyncio.get_running_loop().time
        told.append((clock(), f"begin {context.text}"))
        try:
            await call_next()
        finally:
            await asyncio.sleep(0.5)
            told.append((clock(), f"end {context.text}"))

    run_virtual(timed(wrap_middleware("m", careful, around=counting), talk()))
    assert told == [(0.0, "begin one"), (2.0, "end one"), (2.0, "begin two"), (5.5, "end two")]


def test_a_middleware_that_hangs_does_not_keep_the_next_turn() -> None:
    """One that ignores its cancellation gets a second; then the next turn begins."""

    async def stubborn(context: Any, call_next: Any) -> Any:
        if context.text == "one":
            for _ in range(8):
                try:
                    await asyncio.sleep(1.0)
                except asyncio.CancelledError:
                    continue
        return call_next()

    out = run_virtual(timed(wrap_middleware("m", stubborn), talk()))
    assert [what for _, what in out] == ["Interrupt", "two", "EndOfTurn"]
    assert out[1][0] == 2.5


@virtual
async def test_an_interrupt_lets_a_thread_go() -> None:
    """A plain middleware that waits in `call_next` is let go by what `except Exception` does not catch."""
    let_go: list[BaseException] = []

    def plain(context: Any, call_next: Any) -> Any:
        for _ in range(3):
            try:
                return call_next()
            except Exception:
                continue  # a retry must not go on
            except BaseException as error:
                let_go.append(error)

    out = await timed(wrap_middleware("m", plain, around=counting), talk())
    assert [what for _, what in out] == ["Interrupt", "two0", "two1", "two2", "EndOfTurn"]
    assert [type(error) for error in let_go] == [asyncio.CancelledError] * 3


def test_a_thread_that_is_busy_does_not_keep_the_next_turn() -> None:
    """One in the middle of something cannot be stopped: the next turn gets another, and it finds its turn over."""
    busy, released, ended = threading.Event(), threading.Event(), threading.Event()

    def plain(context: Any, call_next: Any) -> Any:
        if context.text == "one":
            busy.set()
            assert released.wait(WAIT)
            try:
                return call_next()
            finally:
                ended.set()
        return call_next()

    async def source() -> AsyncIterator[Any]:
        yield "one"
        yield EOT
        async with asyncio.timeout(WAIT):
            while not busy.is_set():
                await asyncio.sleep(0.001)
        yield StreamElement.interrupt()
        yield "two"

    async def main() -> list[Any]:
        async with asyncio.timeout(WAIT):
            return shown((await Pipeline.of(wrap_middleware("m", plain)).execute(source())).elements)

    with assert_no_leaks():
        assert asyncio.run(main()) == ["Interrupt", "two"]
        assert not ended.is_set()
        released.set()
        assert ended.wait(WAIT)


@pytest.mark.parametrize("how", ["cancel", "leave", "error"])
@natures
def test_nothing_is_left_of_an_execution_that_is_stopped(middleware: Any, how: str) -> None:
    """Stopped in the middle of a call, what is wrapped has ended and no task, thread or subscription is left."""
    ended: list[str] = []

    async def never(text: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(text)
        return text

    async def fails_later(element: StreamElement) -> StreamElement:
        await asyncio.sleep(2.0)
        raise ValueError("elsewhere")

    async def source() -> AsyncIterator[Any]:
        yield Image(b"i")  # passes by, and fails behind the adapter while the turn is treated
        for value in ("ab", EOT, "cd", EOT):
            yield value
        await asyncio.Event().wait()

    stage = wrap_middleware(
        "m", [middleware, passes, middleware], around=[slow(), MapStage("n", never, on=Text)], accepts=Text
    )
    tail = [MapStage("f", fails_later)] if how == "error" else []

    async def main() -> None:
        async with assert_no_leaks():
            execution = Pipeline.of(stage, *tail).execute(source(), raise_on_error=False)
            if how == "cancel":
                asyncio.get_running_loop().call_later(5.0, execution.cancel)
                assert isinstance((await execution).error, ExecutionCancelled)
            elif how == "error":
                error = (await execution).error
                assert isinstance(error, StageError)
                assert error.stage == "f"
            else:
                async with execution:
                    await asyncio.sleep(5.0)

    run_virtual(main)
    assert ended == ["ba"]


# ------------------------------------------------------------------------------------------ stages inside


def test_a_pipeline_inside() -> None:
    """A pipeline, a list of stages and stages in series can stand inside; elements keep their numbers."""
    inner = Pipeline.of(slow(), MapStage("up", str.upper, on=Text), name="inner")
    for around in (inner, [slow(), MapStage("up", str.upper, on=Text)], slow() >> MapStage("up", str.upper, on=Text)):
        out = run(wrap_middleware("m", passes, around=around), "ab", EOT, "cd", "ef")
        assert shown(out) == ["BA", "EndOfTurn", "DC", "FE"]
        assert [e.sequence for e in out] == [1, 2, 3, 4]


def test_a_pipeline_inside_that_waits_for_its_turn() -> None:
    """A pipeline that admits one execution at once may stand in several adapters; the conversation is known in it."""
    found: list[int] = []

    async def reads(elements: AsyncIterator[StreamElement], *, context: Any) -> AsyncIterator[StreamElement]:
        from rxstage.conversation import conversations

        async for element in elements:
            await asyncio.sleep(1.0)
            found.append(len(conversations(context).of(element).entries))
            conversations(context).of(element).add(Message.user("x"))
            yield element

    config = PipelineConfig(max_concurrent_executions=1)
    inner = Pipeline.of(StageFunc("reads", StageType.TRANSFORM, reads), config=config)

    async def both(context: Any, call_next: Any) -> list[Any]:
        one, two = await asyncio.gather(call_next(), call_next())
        return [*one, *two]

    out = run_virtual(timed(wrap_middleware("m", both, around=inner), ["a"]))
    assert out == [(2.0, "a"), (2.0, "a")]
    assert found == [0, 1]


def test_a_control_that_is_made_inside() -> None:
    """A control that a stage inside makes comes out as one that the adapter made."""

    async def ends(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element
            yield EndOfTurn()

    stage = wrap_middleware("m", passes, around=StageFunc("s", StageType.TRANSFORM, ends))
    out = run(stage, "a", EOT, "b")
    assert shown(out) == ["a", "EndOfTurn", "EndOfTurn", "b", "EndOfTurn"]


def asked(provider: ScriptedProvider) -> list[list[str]]:
    """What a provider was sent, call by call."""
    return [[message.text for message in request.messages] for request in provider.calls]


def test_a_conversation_goes_on_inside() -> None:
    """A model inside knows the turns before, though each is an execution of its own."""
    provider = ScriptedProvider("Hello Ann.", "Ann, you said.")
    stage = wrap_middleware("m", [passes, passes_each], around=ProviderStage("llm", provider=provider))
    out = run(stage, Message.user("I am Ann."), Message.user("Who am I?"))
    assert [e.message.text for e in out if e.message is not None] == ["Hello Ann.", "Ann, you said."]
    assert asked(provider) == [["I am Ann."], ["I am Ann.", "Hello Ann.", "Who am I?"]]


def test_a_call_that_is_repeated_is_in_the_history_once() -> None:
    """Where a middleware asks again, the model is not told the question twice, nor the answer that was thrown away."""
    error = ConnectionError("down")
    provider = ScriptedProvider(Reply(text="One two", error=error, error_after=1), "Bad.", "Good.", "Bye.")

    async def retries(context: Any, call_next: Any) -> Any:
        for _ in range(3):
            try:
                result = await call_next()
            except ConnectionError:
                continue
            if "Bad" not in result.text:
                return result

    stage = wrap_middleware("m", retries, around=ProviderStage("llm", provider=provider, retry=None))
    out = run(stage, Message.user("Hi."), Message.user("And?"))
    assert "".join(e.text for e in out if e.text) == "Good.Bye."
    assert asked(provider) == [["Hi."], ["Hi."], ["Hi."], ["Hi.", "Good.", "And?"]]


def test_an_answer_that_is_cut_short_stays_in_the_history() -> None:
    """As with a `ProviderStage` that stands in the graph itself."""
    provider = ScriptedProvider(Reply(text="One two three", token_delay=1.0), "Yes.")
    stage = wrap_middleware("m", passes_each, around=ProviderStage("llm", provider=provider))
    out = run_virtual(timed(stage, talk()))
    assert [what for _, what in out if isinstance(what, str)] == ["One", " two", "Interrupt", "Yes.", "EndOfTurn"]
    assert asked(provider)[1] == ["one", "One two", "two"]


def test_context_tells_of_the_conversation() -> None:
    """A middleware sees the history, which the stage that answers keeps."""
    found: list[list[str]] = []

    async def middleware(context: Any, call_next: Any) -> None:
        await call_next()
        found.append([message.text for message in context.conversation.messages])

    provider = ScriptedProvider("A.", "B.")
    stage = wrap_middleware("m", middleware, around=ProviderStage("llm", provider=provider))
    run(stage, Message.user("a"), Message.user("b"))
    assert found == [["a", "A."], ["a", "A.", "b", "B."]]


@pytest.mark.parametrize("form", ["stage", "pipeline"])
def test_events_of_what_is_inside_are_heard_outside(form: str) -> None:
    """What a stage inside tells is heard in the execution, under the adapter's name and its own."""
    provider = ProviderStage("llm", provider=ScriptedProvider("A.", "B."))
    inner = Pipeline.of(provider, name="inner")
    own: list[str] = []
    inner.events.subscribe(lambda event: own.append(event.type))
    stage = wrap_middleware("m", passes, around=provider if form == "stage" else inner)
    told: list[Event] = []

    async def main() -> None:
        execution = Pipeline.of(stage, name="outer").execute([Message.user("a")])
        execution.events.subscribe(told.append)
        await execution
        assert {event.execution_id for event in told} == {execution.id}

    run_virtual(main)
    assert {(e.pipeline, e.stage) for e in told if e.type.startswith("provider.")} == {("outer", "m/llm")}
    assert [e.type for e in told if e.type.startswith("pipeline.")] == ["pipeline.started", "pipeline.completed"]
    assert ("pipeline.completed" in own and "provider.call.completed" in own) == (form == "pipeline")


# ------------------------------------------------------------------------------------------ generators


def test_a_plain_async_generator() -> None:
    """It gets the payloads of a turn, or its elements where its annotation says so, and what it yields goes out."""

    async def joined(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        yield [item async for item in items]

    async def numbered(items: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for item in items:
            yield item.replace(metadata={"number": item.sequence})

    assert given(wrap_middleware("g", joined), "a", 1, EOT, "b") == [["a", 1], "EndOfTurn", ["b"]]
    assert [e.metadata["number"] for e in run(wrap_middleware("g", numbered), "a", "b")] == [1, 2]

    class Doubles:
        async def __call__(self, items: AsyncIterator[str]) -> AsyncIterator[str]:
            async for item in items:
                yield item * 2

    assert given(wrap_middleware("g", Doubles()), "a") == ["aa"]
    assert given(wrap_middleware("g", around=Doubles()), "a") == ["aa"]


def test_an_adapter_is_a_stage() -> None:
    """It is made without the function, too, and says what it is."""
    stage = MiddlewareAdapter("m", passes, around=slow())
    assert (stage.name, stage.type, repr(stage)) == ("m", StageType.ACCUMULATE, "MiddlewareAdapter('m')")
    assert Pipeline.of(stage).run(["ab"], timeout=WAIT).text == "ba"


async def exclaims(context: Any, call_next: Any) -> str:
    return f"{(await call_next()).text}!"


def test_an_adapter_goes_to_a_spec_and_back() -> None:
    """A pipeline with one is data, with its middlewares by name and what they wrap."""
    pipeline = Pipeline.of(wrap_middleware("m", exclaims, around=MapStage("up", str.upper, on=Text), turns="element"))
    again = Pipeline.from_spec(pipeline.to_spec(), allow_imports=(exclaims.__module__,))
    assert again.run(["a", "b"], timeout=WAIT).text == "A!B!"


def test_a_result() -> None:
    """It is a tuple of elements that knows its text and its messages."""
    message = Message.assistant("whole")
    result = MiddlewareResult(map(StreamElement.of, ["a", "b", message]))
    assert (result.text, result.messages, len(result)) == ("ab", (message,), 3)
    assert MiddlewareResult([StreamElement.of(message)]).text == "whole"
    assert MiddlewareResult().text == ""


# ------------------------------------------------------------------------------------------ no imports


def test_nothing_of_other_libraries_is_imported() -> None:
    """Neither importing nor running the adapter imports LangChain or genai-processors."""
    program = """
import sys
from rxstage import Pipeline
from rxstage.stages.middleware import wrap_middleware

class Runnable:
    async def ainvoke(self, value): ...
    async def astream(self, value):
        yield value.upper()

async def generator(items):
    async for item in items:
        yield item

for wrapped in (Runnable(), generator, lambda context, call_next: call_next()):
    assert Pipeline.of(wrap_middleware("m", wrapped)).run("a", timeout=20).text.lower() == "a"
found = [name for name in sys.modules if name.partition(".")[0] in ("langchain_core", "genai_processors", "google")]
print(found)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_only_a_result_is_bounded_by_the_rules() -> None:
    """An error that is the adapter's own is an `RxStageError`."""
    assert isinstance(failure(wrap_middleware("m", passes, max_elements=1), "a", "b").__cause__, RxStageError)
