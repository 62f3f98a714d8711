"""Fan-out, routes and fan-in, with controls aligned where branches meet again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from rxstage.content import EndOfStream, EndOfTurn, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import StallError
from rxstage.flow.buffer import survives
from rxstage.flow.port import Port, Push
from rxstage.flow.scope import Scope
from rxstage.flow.valve import Valve

__all__ = ["Branch", "FanIn", "fan_out"]

_END: Final = StreamElement(EndOfStream())  # stands for the end of an input that is held
Test = Callable[[StreamElement], Any]
_REMEMBERED = 256  # copies of interrupted controls that a fan-in still recognises


class Branch:
    """One way out of a node.

    Args:
        port: where it leads.
        test: what it lets through; None is everything.
        route: whether it belongs to the node's routing table, where the first match takes the element.
        otherwise: whether it takes what no route matched.
    """

    __slots__ = ("otherwise", "port", "route", "test")

    def __init__(self, port: Port, test: Test | None = None, route: bool = False, otherwise: bool = False) -> None:
        self.port = port
        self.test = test
        self.route = route
        self.otherwise = otherwise


def fan_out(branches: Sequence[Branch], unrouted: Callable[[StreamElement], object]) -> Port:
    """One port in front of several: each branch gets what it lets through, in order, one after the other.

    Args:
        branches: the ways out.
        unrouted: told of what matched no route, where there are routes and no `otherwise`.
    """
    pushes = [_filtered(branch) for branch in branches if not branch.route and not branch.otherwise]
    routes = [branch for branch in branches if branch.route]
    rest = [branch.port.push for branch in branches if branch.otherwise]
    if routes or rest:
        pushes.append(_router(routes, rest[0] if rest else unrouted))
    controls = [branch.port.control for branch in branches]
    dones = [branch.port.done for branch in branches]

    def control(element: StreamElement) -> None:
        for each in controls:
            each(element)

    def done() -> None:
        for each in dones:
            each()

    return Port(_all(pushes), control, done, _valve([branch.port.valve for branch in branches]))


def _filtered(branch: Branch) -> Push:
    push, test = branch.port.push, branch.test
    if test is None:
        return push

    def filtered(element: StreamElement) -> None:
        if test(element):
            push(element)

    return filtered


def _router(routes: Sequence[Branch], rest: Push) -> Push:
    table = tuple((branch.test, branch.port.push) for branch in routes)

    def route(element: StreamElement) -> None:
        for test, push in table:
            if test is None or test(element):
                push(element)
                return
        rest(element)

    return route


def _all(pushes: Sequence[Push]) -> Push:
    if len(pushes) == 1:
        return pushes[0]
    if len(pushes) == 2:
        first, second = pushes

        def push(element: StreamElement) -> None:
            first(element)
            second(element)

    elif len(pushes) == 3:
        first, second, third = pushes

        def push(element: StreamElement) -> None:
            first(element)
            second(element)
            third(element)

    else:
        every = tuple(pushes)

        def push(element: StreamElement) -> None:
            for each in every:
                each(element)

    return push


def _valve(valves: Sequence[Valve]) -> Valve:
    distinct = list(dict.fromkeys(valves))
    if len(distinct) == 1:
        return distinct[0]
    valve = Valve()
    for branch in distinct:
        branch.link(valve)
    return valve


class _Copies:
    """A control that comes in several copies."""

    __slots__ = ("arrived", "element", "expected", "left")

    def __init__(self, element: StreamElement, expected: frozenset[int], left: bool) -> None:
        self.element = element
        self.expected = expected
        self.arrived: set[int] = set()
        self.left = left  # whether it has left already, with its first copy


class FanIn:
    """Several inputs, one output, in the order of arrival.

    A control that was copied on its way leaves once: `Interrupt` and `Failure` with their first copy,
    `EndOfTurn` after its last; what an input brings behind its copy is held till then. An input that has
    ended counts as having delivered. An input that delivers a later control has passed the earlier ones.

    Args:
        scope: the execution.
        name: of the stage behind it.
        inputs: names of the stages before it.
        down: where the output goes.
        reaches: the inputs that a control made by a node comes in on; node 0 is the entry.
        aligned: whether all inputs are fed by one synchronous region, so that copies arrive together and
            content never has to be held.
        mute: inputs that only have to end (sinks).
    """

    def __init__(
        self,
        scope: Scope,
        name: str,
        inputs: Sequence[str],
        down: Port,
        reaches: Callable[[int], frozenset[int]],
        aligned: bool,
        mute: frozenset[int] = frozenset(),
    ) -> None:
        self.scope = scope
        self.name = name
        self.inputs = tuple(inputs)
        self.down = down
        self.reaches = reaches
        self.aligned = aligned
        self.mute = mute
        self.ended: set[int] = set()
        self.waiting: OrderedDict[tuple[int, int], _Copies] = OrderedDict()
        self.gone: OrderedDict[tuple[int, int], Any] = OrderedDict()  # interrupted: copies to be ignored
        self.brought: dict[int, int] = {}  # by input, the number of the last control from outside
        self.held: dict[int, deque[StreamElement]] = {}
        self.holds: dict[int, _Copies] = {}  # what an input waits for
        self.valves: dict[int, Valve] = {}
        self.finished = False
        scope.holders.append(self.holding)

    def port(self, index: int) -> Port:
        """The input with this number."""
        if index in self.mute:
            return Port(_ignore, _ignore, lambda: self._done(index), Valve())

        def control(element: StreamElement) -> None:
            self._control(index, element)

        def done() -> None:
            self._done(index)

        if self.aligned:
            return Port(self.down.push, control, done, self.down.valve)
        valve = self.valves[index] = Valve()
        self.down.valve.link(valve)
        held, emit = self.held, self.down.push

        def push(element: StreamElement) -> None:
            if index in held:
                self._hold(index, element)
            else:
                emit(element)

        return Port(push, control, done, valve)

    def holding(self) -> str | None:
        """What it holds, in words."""
        for copies in self.waiting.values():
            if not copies.left:
                missing = [self.inputs[i] for i in sorted(copies.expected - copies.arrived - self.ended)]
                count = sum(map(len, self.held.values()))
                return (
                    f"fan-in before {self.name!r}: {count} held, waiting for "
                    f"{type(copies.element.content).__name__} #{copies.element.sequence} from {', '.join(missing)}"
                )
        return None

    def _hold(self, index: int, element: StreamElement) -> None:
        held = self.held[index]
        held.append(element)
        limit = self.scope.config.buffer_size
        if len(held) >= limit:
            if self.scope.loop is None:
                limit = self.scope.config.hot_source_limit
                if len(held) >= limit:
                    raise StallError(f"{limit} elements wait and nothing can free them", self.scope.holding())
            else:
                self.valves[index].close(self)
                self.scope.suspect()

    def _control(self, index: int, element: StreamElement) -> None:
        if index in self.held and element.content.__class__ is not Interrupt:
            self._hold(index, element)
            return
        key = (element.sequence, id(element.content))
        if key in self.gone:
            return
        self._passed_earlier(index, element)
        copies = self.waiting.get(key)
        if copies is None:
            at_once = element.content.__class__ is not EndOfTurn
            expected = self.reaches(getattr(element, "origin", 0)) - self.mute
            copies = _Copies(element, expected, at_once)
            if _numbered(element):
                copies.arrived.update(i for i in expected if self.brought.get(i, 0) > element.sequence)
            if at_once:
                if element.content.__class__ is Interrupt:
                    self._interrupted()
                self.down.control(element)
            if not expected <= {index}:
                self.waiting[key] = copies
        copies.arrived.add(index)
        if copies.expected <= copies.arrived | self.ended:
            self._complete(key, copies)
        elif not copies.left and not self.aligned and index not in self.ended:
            self.held[index] = deque()
            self.holds[index] = copies

    def _passed_earlier(self, index: int, element: StreamElement) -> None:
        """An input that brings a later control has had its copies of the earlier ones, whatever became of them."""
        if not _numbered(element) or element.content.__class__ is Interrupt:
            return
        self.brought[index] = element.sequence
        for key, copies in tuple(self.waiting.items()):
            earlier = copies.element
            if (
                index in copies.expected
                and index not in copies.arrived
                and _numbered(earlier)
                and earlier.sequence < element.sequence
            ):
                copies.arrived.add(index)
                if copies.expected <= copies.arrived | self.ended:
                    self._complete(key, copies)

    def _complete(self, key: tuple[int, int], copies: _Copies) -> None:
        self.waiting.pop(key, None)
        if not copies.left:
            copies.left = True
            self.down.control(copies.element)
        self._release([index for index, held_for in self.holds.items() if held_for is copies])

    def _release(self, indices: Sequence[int]) -> None:
        for index in indices:
            self.holds.pop(index, None)
            held = self.held.pop(index, None)
            while held:
                element = held.popleft()
                if element.__class__ is StreamElement:
                    self.down.push(element)
                elif element is _END:
                    self._done(index)
                else:
                    self._control(index, element)
                    if index in self.held:  # it waits for the next one already
                        self.held[index].extend(held)
                        break
            if index in self.valves and len(self.held.get(index, ())) < self.scope.config.buffer_size:
                self.valves[index].open(self)

    def _interrupted(self) -> None:
        """Drop the content and the turn ends that are held."""
        for key, copies in tuple(self.waiting.items()):
            if not copies.left:
                del self.waiting[key]
                self.gone[key] = copies.element.content
        while len(self.gone) > _REMEMBERED:
            self.gone.popitem(last=False)
        for held in self.held.values():
            survivors = [element for element in held if element is _END or survives(element)]
            held.clear()
            held.extend(survivors)
        self._release(tuple(self.holds))

    def _done(self, index: int) -> None:
        if index in self.held:  # its end waits behind what it has brought
            self.held[index].append(_END)
            return
        self.ended.add(index)
        for key, copies in tuple(self.waiting.items()):
            if copies.expected <= copies.arrived | self.ended:
                self._complete(key, copies)
        if len(self.ended) == len(self.inputs) and not self.held and not self.finished:
            self.finished = True
            self.down.done()


def _numbered(element: StreamElement) -> bool:
    """Whether a control came in from outside: those are numbered in their order, which no stage changes."""
    return element.sequence > 0 and not getattr(element, "origin", 0)


def _ignore(element: StreamElement) -> None:
    """A sink's controls end with it."""
