"""One user function that treats one element at a time: what it gets, what it may return, what its errors mean."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from enum import Enum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace as _replace

from rxstage.config import ErrorPolicy, Fallback, Retry
from rxstage.content import CONTENT_KINDS, CONTROL_KINDS, Data, Failure, Text, content_of, payload_of
from rxstage.element import ControlElement, StreamElement
from rxstage.errors import RxStageError, StageError
from rxstage.flow.context import StageContext
from rxstage.flow.meter import Meter
from rxstage.flow.scope import DROP, Scope

__all__ = [
    "CAUGHT",
    "DROP",
    "Abandoned",
    "Callback",
    "Kind",
    "Select",
    "bind",
    "calls_again",
    "fallbacks",
    "final",
    "gather",
    "guarded",
    "kinds_of",
    "resolve",
    "settle",
]

CAUGHT: Final = (Exception, asyncio.CancelledError)
"""What a callback may raise that fails its stage; KeyboardInterrupt and its like go through."""


class Kind(Enum):
    """What the result of a callback means."""

    MAP = "map"  # it is the element that goes on
    FILTER = "filter"  # its truth decides whether the element goes on
    FLAT = "flat"  # it is an iterable of elements that go on
    SINK = "sink"  # nothing
    PASS = "pass"  # there is none: the element goes on as it is


class Select(Struct, frozen=True):
    """Which content a callback sees, and as what; the rest passes by it.

    Args:
        kinds: content kinds; empty is all of them.
        values: types of `Data` values, for classes that are no content kinds.
        form: what is handed over: the `element`, the bare `payload` of its content, or its `content`, of which a
            value that was selected by its own type comes bare.
    """

    kinds: frozenset[type] = frozenset()
    values: tuple[type, ...] = ()
    form: str = "element"

    @property
    def everything(self) -> bool:
        """Whether all content is seen."""
        return not self.kinds and not self.values

    def takes(self, element: StreamElement) -> bool:
        """Whether the callback sees this content element."""
        content = element.content
        kind = content.__class__
        return (
            self.everything
            or kind in self.kinds
            or (kind is Data and bool(self.values) and isinstance(content.value, self.values))
        )

    def argument(self, element: StreamElement) -> Any:
        """What the callback is called with."""
        if self.form == "element":
            return element
        content = element.content
        if self.form == "payload":
            return payload_of(content)
        return content.value if content.__class__ is Data and self.kinds and Data not in self.kinds else content


def kinds_of(declared: tuple[type, ...]) -> tuple[frozenset[type], tuple[type, ...]]:
    """Split declared types into content kinds and types of `Data` values; `str` stands for `Text`."""
    kinds: set[type] = set()
    values: list[type] = []
    for declared_type in declared:
        if declared_type is str:
            kinds.add(Text)
        elif declared_type in CONTENT_KINDS or declared_type in CONTROL_KINDS:
            kinds.add(declared_type)
        elif declared_type is not StreamElement:
            values.append(declared_type)
    return frozenset(kinds), tuple(values)


class Callback(Struct, frozen=True, eq=False):
    """A stage's function with all that was declared about it, under the stage's name in this graph."""

    name: str
    stage_type: Any
    kind: Kind
    function: Callable[..., Any]
    select: Select = Select()
    policy: ErrorPolicy = "fail"
    context: bool = False
    asynchronous: bool = False
    generator: bool = False
    concurrency: int = 1
    ordered: bool = True
    interruptible: bool = False
    blocking: bool = False
    executor: Executor | None = None
    timeout: float | None = None
    node: int = 0

    @property
    def fusible(self) -> bool:
        """Whether it can run inside a synchronous region."""
        policy = self.policy
        return not (
            self.asynchronous
            or self.concurrency > 1
            or self.blocking
            or self.executor is not None
            or self.timeout is not None
            or self.interruptible
            or (isinstance(policy, Retry) and policy.waits)
            or any(not stage.callback(self.name).fusible for stage in fallbacks(policy))
        )

    @property
    def threaded(self) -> bool:
        """Whether its plain function has to run outside the loop's thread."""
        return not self.asynchronous and (
            self.blocking or self.executor is not None or self.concurrency > 1 or self.timeout is not None
        )

    def failed(self, error: BaseException, element: StreamElement | None) -> StageError:
        """The error that ends the execution."""
        return StageError(self.name, self.stage_type, element, error)


def fallbacks(policy: ErrorPolicy) -> Iterator[Any]:
    """The stages that a policy may fall back to."""
    if isinstance(policy, Retry):
        policy = policy.then
    if isinstance(policy, Fallback):
        yield policy.stage


def bind(callback: Callback, scope: Scope) -> Callable[[Any], Any]:
    """The function of one execution: with its context, where it asks for one."""
    if callback.context:
        return functools.partial(callback.function, context=StageContext(scope, callback.name, callback.stage_type))
    return callback.function


def settle(callback: Callback, scope: Scope, element: StreamElement, result: Any) -> Any:
    """What a result means: an element, a control element, or DROP.

    Raises:
        TypeError: the result is None.
    """
    kind = result.__class__
    if kind is StreamElement or result is DROP:
        return result
    if result is None:
        raise TypeError(
            f"the function of stage {callback.name!r} returned None; return the element or a payload, "
            f"or use a FilterStage to drop elements"
        )
    if kind is ControlElement:
        return scope.born(result, callback.node)
    if hasattr(result, "__await__"):
        if hasattr(result, "close"):
            result.close()
        raise TypeError(
            f"the plain function of stage {callback.name!r} returned an awaitable; make it an `async def` function"
        )
    content = content_of(result)
    if content.__class__ in CONTROL_KINDS:
        if content.__class__ is Failure and not content.stage:
            content = Failure(content.error, callback.name)
        return scope.born(element.replace(content=content, source=callback.name), callback.node)
    return _replace(element, content=content, source=callback.name)


def resolve(callback: Callback, policy: ErrorPolicy, error: BaseException, element: StreamElement) -> Any:
    """What `fail`, `emit` and `skip` make of an error: a `Failure` content or DROP.

    Raises:
        StageError: the policy is `fail`, or the error is a cancellation, which is no element error.
    """
    if isinstance(error, asyncio.CancelledError) or policy == "fail":
        raise callback.failed(error, element) from error
    return DROP if policy == "skip" else Failure(error, callback.name)


def calls_again(policy: ErrorPolicy, error: BaseException, tries: int) -> bool:
    """Whether `Retry` gives the callback another try."""
    return (
        isinstance(policy, Retry)
        and not isinstance(error, asyncio.CancelledError)
        and tries < policy.attempts
        and policy.applies(error)
    )


def final(policy: ErrorPolicy) -> ErrorPolicy:
    """The policy once retries are used up."""
    return policy.then if isinstance(policy, Retry) else policy


def guarded(callback: Callback, scope: Scope, meter: Meter) -> Callable[[StreamElement], Any]:
    """A synchronous callback with its error policy, as a function of the element.

    It gives an element, a control element or DROP; of a flat one, a list of such (its errors must be known
    before anything goes on); a filter gives its element or DROP.
    """
    function = bind(callback, scope)
    select, policy, kind = callback.select, callback.policy, callback.kind
    spares = [guarded(stage.callback(callback.name), scope, meter) for stage in fallbacks(policy)]

    def once(element: StreamElement) -> Any:
        result = function(select.argument(element))
        if kind is Kind.FILTER:
            return element if result else DROP
        if kind is Kind.SINK:
            return DROP
        if kind is Kind.FLAT:
            return [settle(callback, scope, element, item) for item in result]
        return settle(callback, scope, element, result)

    def attempt(element: StreamElement) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                return once(element)
            except CAUGHT as error:
                meter.errors += 1
                if calls_again(policy, error, tries):
                    continue
                last = final(policy)
                if isinstance(last, Fallback) and not isinstance(error, asyncio.CancelledError):
                    return spares[0](element)
                resolved = resolve(callback, "fail" if isinstance(last, Fallback) else last, error, element)
                return settle(callback, scope, element, resolved)

    def call(element: StreamElement) -> Any:
        if select.takes(element):
            return attempt(element)
        return DROP if kind is Kind.SINK else element

    return call


async def gather(result: Any) -> AsyncIterator[Any]:
    """The items of what a flat callback gave: an async iterator, or a plain iterable."""
    if hasattr(result, "__aiter__"):
        async for item in result:
            yield item
    else:
        for item in result:
            yield item


class Abandoned(RxStageError, TimeoutError):
    """A call did not end within the stage's `timeout`; it was left running where it could not be cancelled."""
