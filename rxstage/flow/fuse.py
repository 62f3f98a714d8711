"""Neighbouring synchronous callbacks as one function that costs little more than calling them.

A long run is cut into segments, each a generated function (see `codegen`); between segments with a 1:N step
stands a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final, NoReturn

from rxstage.content import Data, Text
from rxstage.element import StreamElement
from rxstage.flow.callback import CAUGHT, DROP, Callback, Kind, Select, bind, guarded, settle
from rxstage.flow.codegen import factory_of
from rxstage.flow.meter import Histogram, Meter
from rxstage.flow.port import Drain, Port, Push
from rxstage.flow.scope import Scope

__all__ = ["FusedRun"]

_SEGMENT: Final = 64  # steps of one generated function


class FusedRun:
    """A run of fusible callbacks: what is known of it once per pipeline, and its node, once per execution."""

    def __init__(self, callbacks: Sequence[Callback], metered: bool) -> None:
        self.callbacks = tuple(callbacks)
        segments: list[Sequence[Callback]] = []
        start = 0
        for index, callback in enumerate(callbacks):
            if callback.kind is Kind.FLAT:
                if start < index:
                    segments.append(callbacks[start:index])
                segments.append(callbacks[index : index + 1])
                start = index + 1
            elif index - start + 1 == _SEGMENT:
                segments.append(callbacks[start : index + 1])
                start = index + 1
        if start < len(callbacks):
            segments.append(callbacks[start:])
        self._parts: list[_Segment | Callback] = []
        for position, segment in enumerate(segments):
            if segment[0].kind is Kind.FLAT:
                self._parts.append(segment[0])
                continue
            before = position == 0 or segments[position - 1][0].kind is Kind.FLAT
            after = position + 1 == len(segments) or segments[position + 1][0].kind is Kind.FLAT
            self._parts.append(_Segment(segment, before and after, metered))

    def open(self, scope: Scope, down: Port) -> Port:
        """One node in front of `down`."""
        emit = down.push
        drain: Drain | None = None
        straight: list[Push] = []  # segments, last first, that wait to be put into one loop
        for part in reversed(self._parts):
            if isinstance(part, Callback):
                emit = _flat(part, scope, down.control, _loop(straight, emit))
                straight = []
            elif part.emits:
                emit, drain = part.open(scope, down.control, emit)
            else:
                straight.append(part.open(scope, down.control, None)[0])
        first = self._parts[0]
        if isinstance(first, Callback) or not first.emits:
            drain = None
        return Port(_loop(straight, emit), down.control, down.done, down.valve, drain=drain)


def _loop(backwards: list[Push], emit: Push) -> Push:
    if not backwards:
        return emit
    segments = tuple(reversed(backwards))

    def push(element: StreamElement) -> None:
        moving: Any = element
        for segment in segments:
            moving = segment(moving)
            if moving is None:
                return
        emit(moving)

    return push


# ------------------------------------------------------------------------------------------ straight segments


class _Segment:
    """Callbacks without a 1:N among them, as one generated function."""

    def __init__(self, callbacks: Sequence[Callback], emits: bool, metered: bool) -> None:
        self.callbacks = tuple(callbacks)
        self.emits = emits
        self.shape = tuple(_step(callback) for callback in callbacks)
        self.factory, self.lines = factory_of(self.shape, emits, metered)
        self.sampled = factory_of(self.shape, emits, False) if metered else None
        self.names = tuple(callback.name for callback in callbacks)
        self.kinds = tuple(_content_kinds(callback.select) for callback in callbacks)
        own = any(callback.context or kind == "call" for callback, (kind, _) in zip(callbacks, self.shape, strict=True))
        self.functions = None if own else tuple(callback.function for callback in callbacks)

    def open(self, scope: Scope, control: Push, emit: Push | None) -> tuple[Push, Drain]:
        callbacks, names = self.callbacks, self.names
        lost = [0] * len(callbacks)

        def fix(index: int, element: StreamElement, result: Any) -> Any:
            return settle(callbacks[index], scope, element, result)

        def leave(index: int, result: Any) -> None:
            lost[index] += 1
            if result is not DROP:
                control(result)

        def failed(index: int, element: StreamElement, error: BaseException) -> NoReturn:
            callback = callbacks[index]
            lost[index] += 1
            if callback.policy == "fail":
                scope.meters[callback.name].errors += 1
                raise callback.failed(error, element) from error
            raise error  # its policy has spoken

        functions: Sequence[Callable[[Any], Any]]
        if self.functions is not None:
            functions = self.functions
        else:
            meters = scope.meters
            functions = [
                _function(callback, step, scope, meters[callback.name])
                for callback, step in zip(callbacks, self.shape, strict=True)
            ]
        sampled = None
        if self.sampled is not None:
            meters = scope.meters
            timed = [_timed(f, meters[name].times) for f, name in zip(functions, names, strict=True)]
            factory, lines = self.sampled
            sampled = factory(timed, names, self.kinds, lines, fix, leave, failed, emit, None)[0]
        push, drain, count = self.factory(functions, names, self.kinds, self.lines, fix, leave, failed, emit, sampled)

        def read() -> None:
            passing = count()
            meters = scope.meters
            for name, gone in zip(names, lost, strict=True):
                meter = meters[name]
                meter.received = passing
                passing -= gone
                meter.emitted = passing

        scope.readers.append(read)
        return push, drain


def _step(callback: Callback) -> tuple[str, str]:
    """The kind of a step and the form of its argument."""
    if callback.policy != "fail":
        return "call", "any"
    if callback.kind is Kind.PASS:
        return "pass", "any"
    form = _form(callback.select)
    return ("call", "any") if form == "general" else (callback.kind.value, form)


def _function(callback: Callback, step: tuple[str, str], scope: Scope, meter: Meter) -> Callable[[Any], Any]:
    """The function of a step in one execution."""
    if step[0] != "call":
        return bind(callback, scope)
    return guarded(callback, scope, meter) if callback.policy != "fail" else _general(callback, scope)


def _form(select: Select) -> str:
    if select.values or (select.everything and select.form != "element"):
        return "general"
    if select.everything:
        return "any"
    test = "one" if len(select.kinds) == 1 else "some"
    if select.form == "element":
        return test
    if test == "some":
        return "general"
    if select.form == "content":
        return "content"
    (kind,) = select.kinds
    return "text" if kind is Text else "value" if kind is Data else "content"


def _general(callback: Callback, scope: Scope) -> Callable[[StreamElement], Any]:
    """Any selection, as a function of the element: slower than a form of its own, for the rare ones."""
    function, select, kind = bind(callback, scope), callback.select, callback.kind

    def call(element: StreamElement) -> Any:
        if not select.takes(element):
            return DROP if kind is Kind.SINK else element
        result = function(select.argument(element))
        if kind is Kind.MAP:
            return settle(callback, scope, element, result)
        return element if kind is Kind.FILTER and result else DROP

    return call


def _content_kinds(select: Select) -> Any:
    return next(iter(select.kinds)) if len(select.kinds) == 1 else select.kinds


def _timed(function: Callable[[Any], Any], histogram: Histogram | None) -> Callable[[Any], Any]:
    assert histogram is not None
    add = histogram.add

    def call(argument: Any) -> Any:
        begin = perf_counter()
        result = function(argument)
        add(perf_counter() - begin)
        return result

    return call


# ------------------------------------------------------------------------------------------ one to many


def _flat(callback: Callback, scope: Scope, control: Push, emit: Push) -> Push:
    meter = scope.meters[callback.name]
    expand = _expander(callback, scope, meter)
    times = meter.times

    def push(element: StreamElement) -> None:
        meter.received += 1
        begin = perf_counter() if times is not None else 0.0
        items = expand(element)
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            if item.__class__ is StreamElement:
                meter.emitted += 1
                emit(item)
            elif item is not DROP:
                control(item)
        if times is not None:
            times.add(perf_counter() - begin)

    return push


def _expander(callback: Callback, scope: Scope, meter: Meter) -> Callable[[StreamElement], Any]:
    """What one element becomes, as an iterator whose errors are already those of the stage."""
    if callback.policy != "fail":
        call = guarded(callback, scope, meter)

        def policed(element: StreamElement) -> Any:
            result = call(element)
            return iter(result if isinstance(result, list) else (result,))

        return policed
    function, select = bind(callback, scope), callback.select

    def expand(element: StreamElement) -> Any:
        if not select.takes(element):
            yield element
            return
        try:
            items = iter(function(select.argument(element)))
        except CAUGHT as error:
            meter.errors += 1
            raise callback.failed(error, element) from error
        while True:
            try:
                item = next(items)
                settled = item if item.__class__ is StreamElement else settle(callback, scope, element, item)
            except StopIteration:
                return
            except CAUGHT as error:
                meter.errors += 1
                raise callback.failed(error, element) from error
            yield settled

    return expand
