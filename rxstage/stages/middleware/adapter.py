"""The stage that calls middlewares, and what they wrap, with each turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, PrivateAttr

from rxstage.content import Failure, Interrupt
from rxstage.conversation import HISTORY, ends_turn
from rxstage.element import StreamElement
from rxstage.errors import RxStageError, StageError
from rxstage.flow.callback import Select, kinds_of
from rxstage.flow.threads import StageThreads
from rxstage.stage import Stage, StageContext, StageType
from rxstage.stages.middleware.cores import core_of, is_core, middleware_of
from rxstage.stages.middleware.layers import Flow, Rules, onion, plain_functions
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["MiddlewareAdapter", "wrap_middleware"]

_PATIENCE: Final = 1.0  # seconds that an interrupted turn gets to end before the next one begins


class MiddlewareAdapter(Stage):
    """Calls existing code with each turn; see `wrap_middleware`, which makes it.

    Args:
        name: name in the graph.
        middleware: a middleware or several, the first one outermost; or what can be wrapped, with nothing round it.
        around: what the innermost `call_next` calls: a stage, a list of stages in series, a pipeline, a LangChain
            Runnable, a Processor, an async generator function. Without it `call_next` gives what came in.
        streaming: let what a function waits for with `await call_next()` go on meanwhile.
        turns: what ends a turn: `"message"` (a user `Message` or an `EndOfTurn`), `"control"` (an `EndOfTurn` alone),
            or `"element"`: each is one.
        max_elements: elements that a turn may have, and a result.
        context_type: what a middleware gets, a subclass of `MiddlewareContext`.
        make_input: `make_input(context)` gives what a Runnable is called with, in place of the text or messages.
        on_error: what a turn that failed means: `"fail"` ends the execution; with `"emit"` a `Failure` stands in its
            place and the next turn is treated; `"skip"` says nothing.
        accepts: content that is part of a turn; other content passes by.

    Emits: what comes out of the outermost middleware, then the control that ended the turn.
    Holds: the turn that is coming in, at most `max_elements`; where a function waits for it, the result, likewise; a
        generator holds 16 elements.
    Completes: with its input, after the last turn.
    Fails: with `StageError` where a middleware or what it wraps raises, unless `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.ACCUMULATE

    middleware: tuple[Any, ...] = ()
    around: Any = None
    streaming: bool = False
    turns: Literal["message", "control", "element"] = "message"
    max_elements: int = Field(default=10_000, ge=1)
    context_type: Any = MiddlewareContext
    make_input: Any = None
    on_error: Literal["fail", "emit", "skip"] = "fail"

    _core: Flow = PrivateAttr()

    def __init__(self, name: str | None = None, /, middleware: Any = (), **options: Any) -> None:
        around = options.pop("around", None)
        if is_core(middleware):
            if around is not None:
                raise TypeError(f"stage {name!r}: {middleware!r} is no middleware, it can only stand in around=")
            middleware, around = (), middleware
        if not issubclass(options.get("context_type", MiddlewareContext), MiddlewareContext):
            raise TypeError(
                f"stage {name!r}: context_type must be a subclass of MiddlewareContext, got {options['context_type']!r}"
            )
        given = middleware if isinstance(middleware, (list, tuple)) else (middleware,)
        super().__init__(name, middleware=tuple(map(middleware_of, given)), around=around, **options)
        self._core = core_of(around, self.make_input)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        threads = StageThreads(context.stage, max(1, plain_functions(self.middleware)))
        rules = Rules(stage=context.stage, threads=threads, most=self.max_elements, streaming=self.streaming)
        flow = onion(self.middleware, self._core, rules)
        select = Select(*kinds_of(self.accepts))
        turn: list[StreamElement] = []
        count = 0
        try:
            while True:
                element = await anext(elements, None)
                if element is not None and not element.is_control:
                    if not select.takes(element) or HISTORY in element.metadata:
                        yield element
                        continue
                    count += 1
                    if count <= self.max_elements:
                        turn.append(element)
                    elif self.on_error == "fail":
                        raise self._too_long(context.stage)
                elif element is not None and element.content.__class__ is Interrupt:
                    turn, count = [], 0
                if count and (element is None or self.turns == "element" or ends_turn(element, self.turns)):
                    if element is not None and element.is_control:
                        context.hold(element)
                    given, whole = self.context_type(turn, context), count <= self.max_elements
                    turn, count = [], 0
                    error = None if whole else self._too_long(context.stage)
                    async with aclosing(self._treated(flow, given, context, error)) as answer:
                        async for each in answer:
                            yield each
                if element is None:
                    return
                if element.is_control and not context.interrupted:
                    yield element
        finally:
            threads.shutdown()

    async def _treated(
        self, flow: Flow, turn: MiddlewareContext, context: StageContext, error: Exception | None
    ) -> AsyncGenerator[StreamElement, None]:
        """What comes of a turn, or what `on_error` makes of its error."""
        if error is None:
            ended = asyncio.Event()
            answer = context.interruptible(_told(flow(turn), ended))
            try:
                while error is None:
                    try:
                        element = await anext(answer)
                    except StopAsyncIteration:
                        break
                    except Exception as raised:
                        error = raised
                    else:
                        yield element
            finally:
                if not answer.interrupted:  # else it is cancelled already: a second time would disturb its end
                    await answer.aclose()
            if answer.interrupted:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):  # so that what it does at its end comes before the next
                        await ended.wait()
                return
        if error is None:
            return
        if self.on_error == "fail":
            blame = turn._blame
            if blame is not None and blame.__cause__ is error:
                raise StageError(f"{context.stage}/{blame.stage}", blame.stage_type, blame.element, error) from error
            raise error
        context.emit_event("stage.skipped", error=str(error))
        if self.on_error == "emit":
            yield turn._one(Failure(error, context.stage))

    def _too_long(self, stage: str) -> RxStageError:
        return RxStageError(
            f"stage {stage!r}: more than {self.max_elements} elements came before the end of a turn; send an "
            f"EndOfTurn, raise max_elements, or use turns='element'"
        )


async def _told(flow: AsyncGenerator[StreamElement, None], ended: asyncio.Event) -> AsyncGenerator[StreamElement, None]:
    try:
        async with aclosing(flow) as elements:
            async for element in elements:
                yield element
    finally:
        ended.set()


def wrap_middleware(
    name: str,
    middleware: Any = (),
    *,
    around: Any = None,
    streaming: bool = False,
    turns: Literal["message", "control", "element"] = "message",
    max_elements: int = 10_000,
    context_type: type[MiddlewareContext] = MiddlewareContext,
    make_input: Callable[[MiddlewareContext], Any] | None = None,
    on_error: Literal["fail", "emit", "skip"] = "fail",
    **options: Any,
) -> MiddlewareAdapter:
    """A stage of code that was written for something else.

        async def shout(context, call_next):
            context.text = context.text.strip()
            result = await call_next(context)
            return result.text.upper()

        stage = wrap_middleware("shout", shout, around=ProviderStage("llm", provider="local"))

    It takes middlewares in the onion style, `async def middleware(context, call_next)`: with `await call_next()` they
    get the whole result, as generators they treat each element with `async for element in call_next()`. Plain
    functions and generators run on a thread. An object with a method `process` of that form is one, too. It also takes
    a LangChain Runnable, a Processor of genai-processors, and an async generator function of one argument.

    Args:
        name: name in the graph.
        middleware, around, streaming, turns, max_elements, context_type, make_input, on_error: see `MiddlewareAdapter`.
        **options: `accepts`, `emits` and `type` of the stage.

    Raises:
        TypeError: it is none of these.
        GraphError: what is wrong with the stages in `around`.
    """
    return MiddlewareAdapter(
        name,
        middleware,
        around=around,
        streaming=streaming,
        turns=turns,
        max_elements=max_elements,
        context_type=context_type,
        make_input=make_input,
        on_error=on_error,
        **options,
    )
