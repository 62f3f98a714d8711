"""From a graph to one operator.

Once per pipeline, `Plan` takes nested pipelines apart, cuts the graph into runs of synchronous callbacks and
decides where a buffer stands. Once per execution, `Plan.open` wires the nodes from the output to the input:
each is given the port behind it and gives its own, so nothing is pushed before everything is there, and no
depth of the graph is a depth of the call stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rxstage.element import StreamElement
from rxstage.errors import StageError
from rxstage.events import StageCompleted, StageStarted
from rxstage.flow.buffer import Buffer
from rxstage.flow.callback import CAUGHT, Callback, Kind, bind
from rxstage.flow.fan import Branch, FanIn, fan_out
from rxstage.flow.fuse import FusedRun
from rxstage.flow.operator import open_operator
from rxstage.flow.port import Port
from rxstage.flow.producer import open_generator
from rxstage.flow.pump import Trampoline, open_pump
from rxstage.flow.scope import Scope
from rxstage.flow.streamer import open_streamer
from rxstage.flow.valve import Valve
from rxstage.flow.worker import open_worker
from rxstage.graph.flatten import Link, Node, flatten, test_of
from rxstage.graph.model import Graph
from rxstage.stage import Shape

__all__ = ["Plan"]

_DEEPEST: Final = 150  # frames of the call stack that one push may take before it is broken up
_FLATS: Final = 32  # 1:N callbacks in one fused run
_FRAMES: Final = {Shape.OPERATOR: 12}  # what a node takes of the call stack; others take few


class Plan:
    """What is known of a graph before it runs.

    Attributes:
        nodes: in topological order, the entry first, the exit last.
        runs: the fused runs, by the index of their first node.
        asynchronous: whether it needs a loop.
        has_operators: whether something in it may emit by itself, from a timer for instance.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = flatten(graph)
        self.entry, self.exit = self.nodes[0], self.nodes[-1]
        self.asynchronous = any(node.asynchronous for node in self.nodes) or any(
            link.edge is not None and link.edge.has_options for node in self.nodes for link in node.outward
        )
        self.has_operators = any(node.shape is Shape.OPERATOR for node in self.nodes)
        self.runs: dict[int, FusedRun] = {}
        self.last: dict[int, Node] = {}  # the last node of each run
        self.inside: set[int] = set()  # nodes that are part of a run that begins before them
        self.broken: set[Link] = set()  # links at which a push is broken up
        self._reaches: dict[int, dict[int, frozenset[int]]] = {}
        self.leaves = self._leaves()
        self.names = [node.name for node in self.nodes if node.callback is not None]
        self.links = tuple((n.name, link.target.name) for n in self.nodes for link in n.outward if not link.mute)
        self._cut_runs()
        self._break_depth()
        self._find_pumps()

    # ------------------------------------------------------------------ once per pipeline

    def _leaves(self) -> tuple[str, ...]:
        """Names of the stages whose content leaves the graph."""
        found: list[str] = []
        pending = [self.exit]
        while pending:
            for link in pending.pop().inward:
                if link.mute:
                    continue
                if link.source.callback is None:
                    pending.append(link.source)
                else:
                    found.append(link.source.name)
        return tuple(dict.fromkeys(found))

    def _cut_runs(self) -> None:
        for node in self.nodes:
            if not node.fused or node.index in self.inside:
                continue
            run = [node]
            flats = 0
            while len(run[-1].outward) == 1:
                link = run[-1].outward[0]
                after = link.target
                if not (link.plain and after.fused and len(after.inward) == 1):
                    break
                assert after.callback is not None
                flats += after.callback.kind is Kind.FLAT
                if flats > _FLATS:
                    break
                run.append(after)
                self.inside.add(after.index)
            self.runs[node.index] = FusedRun([_callback(each) for each in run], self.graph.config.metrics)
            self.last[node.index] = run[-1]

    def _find_pumps(self) -> None:
        for node in self.nodes:
            pumps = self._pumps_before(node)
            if node is self.entry or node.asynchronous or node.shape is Shape.OPERATOR or len(pumps) != 1:
                pumps = frozenset((node.index,))  # from here on it is one pump: what it lets out is in one order
            node.pumps = pumps

    def _pumps_before(self, node: Node) -> frozenset[int]:
        """Who pushes into a node; -1 stands for the pump of a buffered edge."""
        pumps: set[int] = set()
        for link in node.inward:
            if _buffered(link) or link in self.broken:
                pumps.update((-1, -2))
            else:
                pumps |= link.source.pumps
        return frozenset(pumps)

    def _break_depth(self) -> None:
        frames: dict[int, int] = {}
        for node in self.nodes:
            depth = 0
            for link in node.inward:
                above = 0 if link.source.asynchronous or _buffered(link) else frames[link.source.index]
                if above > _DEEPEST:
                    self.broken.add(link)
                else:
                    depth = max(depth, above)
            if node.index not in self.inside:
                depth += _FRAMES.get(node.shape, 2) + (len(node.inward) > 1) * 2  # type: ignore[arg-type]
            if node.callback is not None and node.callback.kind is Kind.FLAT:
                depth += 2
            frames[node.index] = depth + (len(node.outward) > 1) * 2

    def fed_by_one(self, node: Node) -> bool:
        """Whether all inputs of a node are pushed by one pump, so that copies of a control arrive together."""
        return len(self._pumps_before(node)) == 1 and not any(
            link.source.asynchronous or link.source.shape is Shape.OPERATOR for link in node.inward
        )

    def reaches(self, node: Node, origin: int) -> frozenset[int]:
        """The inputs of a node that a control made by the node `origin` comes in on."""
        known = self._reaches.setdefault(node.index, {})
        if origin not in known:
            known[origin] = self._reach(node, origin)
        return known[origin]

    def _reach(self, node: Node, origin: int) -> frozenset[int]:
        if origin == 0:
            return frozenset(range(len(node.inward)))
        behind = {origin}
        for index in range(origin, node.index):
            if index in behind:
                behind.update(link.target.index for link in self.nodes[index].outward)
        return frozenset(i for i, link in enumerate(node.inward) if link.source.index in behind)

    # ------------------------------------------------------------------ once per execution

    def open(self, scope: Scope, out: Port) -> Port:
        """Wire an execution in front of `out`; gives the port of its entry."""
        return _Wiring(self, scope).wire(out)


def _buffered(link: Link) -> bool:
    return link.edge is not None and link.edge.has_options


class _Wiring:
    """The wiring of one execution."""

    def __init__(self, plan: Plan, scope: Scope) -> None:
        self.plan = plan
        self.scope = scope
        self.ports: dict[int, Port] = {}
        self.fans: dict[int, FanIn] = {}
        self.trampoline = Trampoline() if plan.broken and scope.loop is None else None

    def wire(self, out: Port) -> Port:
        plan, scope = self.plan, self.scope
        scope.names, scope.links = plan.names, plan.links
        self.ports[plan.exit.index] = out
        for node in reversed(plan.nodes[:-1]):
            if node.index not in plan.inside:
                self._open(node)
        if scope.listener is not None:
            for node in plan.nodes:
                if node.callback is not None:
                    scope.tell(StageStarted, stage=node.name, stage_type=node.callback.stage_type)
        entry = self.ports[plan.entry.index]
        return self.trampoline.outermost(entry) if self.trampoline is not None else entry

    def _open(self, node: Node) -> None:
        scope = self.scope
        run = self.plan.runs.get(node.index)
        if run is not None:
            down = self._behind(self.plan.last[node.index])
            self.ports[node.index] = run.open(scope, self._told(down, run.callbacks))
            return
        down = self._behind(node)
        if node.callback is None:
            self.ports[node.index] = down
            return
        callback = node.callback
        down = self._told(down, [callback])
        if node.shape is Shape.OPERATOR:
            sees_controls = bool(getattr(node.stage, "sees_controls", False))
            port = open_operator(callback, scope, down, sees_controls)
        elif node.shape is Shape.PRODUCER:
            port = open_generator(callback, bind(callback, scope), scope, down)
        elif node.shape is Shape.STREAM:
            port = open_streamer(callback, bind(callback, scope), scope, self._buffer_before(node), down)
        else:
            port = open_worker(callback, scope, self._buffer_before(node), down)
        self.ports[node.index] = port

    def _told(self, down: Port, callbacks: Sequence[Callback]) -> Port:
        """The same port, but the end of the stages before it is announced."""
        scope = self.scope
        begin = scope.clock()

        def done() -> None:
            meters = scope.refresh() if scope.listener is not None else {}  # whoever listens may have come late
            for callback in callbacks if meters else ():
                meter = meters[callback.name]
                scope.tell(
                    StageCompleted,
                    stage=callback.name,
                    stage_type=callback.stage_type,
                    duration=scope.clock() - begin,
                    received=meter.received,
                    emitted=meter.emitted,
                    errors=meter.errors,
                )
            down.done()

        return Port(down.push, down.control, done, down.valve, down.buffer)

    # ---- edges

    def _behind(self, node: Node) -> Port:
        """What a node emits into: the port of its one target, or a fan-out in front of several."""
        links = node.outward
        if len(links) == 1 and links[0].plain:
            return self._into(links[0])
        branches = []
        for link in links:
            edge = link.edge
            test = None if link.mute else self._tested(node, test_of(edge))
            route = edge is not None and edge.route is not None and not edge.otherwise
            branches.append(Branch(self._into(link), test, route, edge is not None and edge.otherwise))
        if len(branches) == 1 and branches[0].test is None and not branches[0].route and not branches[0].otherwise:
            return branches[0].port
        branches.sort(key=lambda branch: not branch.route)  # stable: routes keep the order of their table
        name = node.name

        def unrouted(element: StreamElement) -> None:
            self.scope.unrouted[name] = count = self.scope.unrouted.get(name, 0) + 1
            self.scope.dropped((name, ""), count)

        return fan_out(branches, unrouted)

    def _tested(self, node: Node, test: Callable[[StreamElement], Any] | None) -> Callable[[StreamElement], Any] | None:
        if test is None or node.callback is None or (getattr(test, "__module__", None) or "").startswith("rxstage."):
            return test
        callback = node.callback

        def tested(element: StreamElement) -> Any:
            try:
                return test(element)
            except CAUGHT as error:
                raise StageError(callback.name, callback.stage_type, element, error) from error

        return tested

    def _into(self, link: Link) -> Port:
        """The port at the end of a link: the target's own, or one of its fan-in, behind the link's own buffer."""
        target, scope = link.target, self.scope
        if len(target.inward) == 1:
            port = self.ports[target.index]
            if link.mute:
                port = Port(_ignore, _ignore, port.done, Valve())
            own = _buffered(link) and not _has_buffer(target)
        else:
            fan = self.fans.get(target.index)
            if fan is None:
                fan = self.fans[target.index] = FanIn(
                    scope,
                    target.name,
                    [each.source.name for each in target.inward],
                    self.ports[target.index],
                    lambda origin: self.plan.reaches(target, origin),
                    self.plan.fed_by_one(target),
                    frozenset(i for i, each in enumerate(target.inward) if each.mute),
                )
            port = fan.port(target.inward.index(link))
            own = _buffered(link)
        if own:
            buffer = self._buffer(link)
            port = open_pump(scope, buffer, port)
        elif link in self.plan.broken:
            if self.trampoline is not None:
                port = self.trampoline.port(port)
            else:
                buffer = self._buffer(link)
                port = open_pump(scope, buffer, port)
        return port

    def _buffer_before(self, node: Node) -> Buffer:
        """The input buffer of a node: with the options of its edge, where there is one."""
        buffer = self._buffer(node.inward[0], options=len(node.inward) == 1)
        for link in node.inward:
            if len(node.inward) == 1 or not _buffered(link):
                self._edge(link.source.name, node.name, buffer)
        return buffer

    def _buffer(self, link: Link, options: bool = True) -> Buffer:
        scope, config, edge = self.scope, link.config, link.edge
        capacity, overflow = config.buffer_size, config.overflow
        if options and edge is not None:
            capacity = capacity if edge.buffer_size is None else edge.buffer_size
            overflow = overflow if edge.overflow is None else edge.overflow
        buffer = Buffer(
            capacity,
            overflow,
            priority_queue=config.priority_queue,
            edge=(link.source.name, link.target.name),
            on_drop=scope.dropped,
            on_overflow=scope.fail,
        )
        self._edge(link.source.name, link.target.name, buffer)
        return buffer

    def _edge(self, source: str, target: str, buffer: Buffer) -> None:
        self.scope.edges[source, target] = buffer


def _ignore(element: StreamElement) -> None:
    """What a sink at the end of a graph lets through ends there."""


def _has_buffer(node: Node) -> bool:
    return node.shape is Shape.STREAM or (node.shape is Shape.ELEMENT and not node.fused)


def _callback(node: Node) -> Callback:
    assert node.callback is not None
    return node.callback
