"""A built pipeline: an immutable, validated DAG of stages that is itself a stage and an Rx operator."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from reactivex import Observable

from rxstage.config import PipelineConfig
from rxstage.element import StreamElement
from rxstage.errors import PipelineClosed, ShutdownTimeout
from rxstage.events import Event
from rxstage.execution import Execution
from rxstage.flow.turnstile import Turnstile
from rxstage.graph.compile import Plan
from rxstage.graph.model import Graph
from rxstage.observe.log import log_event, logging_on
from rxstage.observe.stream import EventStream
from rxstage.operator_form import PipelineObservable
from rxstage.result import Result
from rxstage.stage import Shape, Stage, use_operator_form
from rxstage.synchronous import run_synchronously

if TYPE_CHECKING:
    from rxstage.observe.bus import EventBus

__all__ = ["Pipeline"]

_MOMENT: Final = 0.2  # seconds that a finished execution waits for slow handlers of its events, at most


class _State:
    """What changes while a pipeline is used; the pipeline itself never does."""

    __slots__ = ("bus", "closed", "events", "live", "plan", "turnstile")

    def __init__(self, bus: EventBus | None, turnstile: Turnstile | None) -> None:
        self.bus = bus
        self.turnstile = turnstile
        self.plan: Plan | None = None
        self.events: EventStream | None = None
        self.live: dict[str, Execution] = {}
        self.closed = False


class Pipeline(Stage):
    """A graph of stages, ready to run.

    It is an operator (`source.pipe(pipeline)`), a stage of other pipelines, and runs by itself with `execute`,
    `run` and `execute_sync`. It holds no state of a stream; every execution is independent of the others.

    Args:
        graph: the checked graph, as a builder makes it.
        events: a bus that gets the events of all its executions.
    """

    shape: ClassVar[Shape | None] = Shape.GRAPH

    graph: Any
    if TYPE_CHECKING:
        _state: _State

    def __init__(self, graph: Graph, *, events: EventBus | None = None) -> None:
        accepts = _union([graph.stages[name].accepts for name in graph.roots])
        emits = _union([graph.stages[name].emits for name in graph.leaves])
        super().__init__(graph.name, graph=graph, accepts=accepts, emits=emits)
        limit = graph.config.max_concurrent_executions
        turnstile = Turnstile(limit) if limit is not None else None
        object.__setattr__(self, "_state", _State(events, turnstile))

    @classmethod
    def of(cls, *stages: Any, config: PipelineConfig | None = None, name: str = "pipeline") -> Pipeline:
        """A pipeline of stages in a chain.

        Raises:
            GraphError: what is wrong with it, all at once.
        """
        from rxstage.builder import PipelineBuilder

        return PipelineBuilder(config, name=name).chain(*stages).build()

    # ---------------------------------------------------------------- what it is

    @property
    def config(self) -> PipelineConfig:
        """How its executions behave."""
        config: PipelineConfig = self.graph.config
        return config

    @property
    def plan(self) -> Plan:
        """The compiled graph; compiled at the first use."""
        state = self._state
        if state.plan is None:
            state.plan = Plan(self.graph)
        return state.plan

    def to_mermaid(self) -> str:
        """The graph in Mermaid's language."""
        from rxstage.graph.diagram import to_mermaid

        return to_mermaid(self.graph)

    def to_svg(self) -> str:
        """The graph as an SVG picture."""
        from rxstage.graph.diagram import to_svg

        return to_svg(self.graph)

    def to_spec(self) -> Any:
        """The graph as a `PipelineSpec`, for JSON or YAML.

        Raises:
            GraphError: something in it has no name that it could be found by.
        """
        from rxstage.graph.spec import to_spec

        return to_spec(self.graph)

    @classmethod
    def from_spec(cls, spec: Any, *, events: EventBus | None = None, **options: Any) -> Pipeline:
        """The pipeline that a spec describes: a `PipelineSpec`, a dict, JSON or YAML; see `rxstage.graph.spec`.

        Raises:
            GraphError: what is wrong with it, all at once.
        """
        from rxstage.graph.spec import from_spec

        return cls(from_spec(spec, **options), events=events)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/plain": repr(self),
            "image/svg+xml": self.to_svg(),
            "text/vnd.mermaid": self.to_mermaid(),
        }

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {len(self.graph.stages)} stages)"

    # ---------------------------------------------------------------- running it

    def __call__(self, source: Observable[Any]) -> Observable[StreamElement]:
        """The pipeline as an Rx operator: `source.pipe(pipeline)`; each subscription is an execution."""
        return PipelineObservable(self, source)

    def execute(self, source: Any = None, *, raise_on_error: bool = True, subscribe_on: str = "loop") -> Execution:
        """An execution over a source, not opened yet.

        Args:
            source: an Observable, iterable, async iterable or open file of elements or raw values; a bare string,
                bytes, element or message is one element; None for graphs that generate.
            raise_on_error: whether a failed execution raises where its output is taken.
            subscribe_on: `"loop"`, or `"thread"` for a cold source that blocks or cannot be pulled.

        Raises:
            PipelineClosed: the pipeline is shut down.
            ValueError: an unknown `subscribe_on`.
        """
        if subscribe_on not in ("loop", "thread"):
            raise ValueError(f"subscribe_on must be 'loop' or 'thread', got {subscribe_on!r}")
        self._refuse_if_closed()
        return Execution(self, source, raise_on_error=raise_on_error, subscribe_on=subscribe_on)

    def run(self, source: Any = None, *, timeout: float | None = None, raise_on_error: bool = True) -> Result:
        """Run to the end on the calling thread, which may have a running loop; gives the `Result`.

        A graph of plain functions runs on this thread; any other on a loop of its own on another thread.

        Args:
            source: as for `execute`.
            timeout: seconds.
            raise_on_error: raise what it failed with; else it is in the result.

        Raises:
            StageError: a stage failed.
            ExecutionTimeout: the time was up.
            PipelineClosed: the pipeline is shut down.
        """
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout must be above 0 s, got {timeout!r}")
        self._refuse_if_closed()
        return run_synchronously(Execution(self, source, raise_on_error=raise_on_error, timeout=timeout))

    def execute_sync(self, *elements: Any, timeout: float | None = None, raise_on_error: bool = True) -> Result:
        """`run` over the given elements or raw values."""
        return self.run(elements, timeout=timeout, raise_on_error=raise_on_error)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Refuse new executions, let the live ones drain, then cancel what is left.

        Args:
            timeout: seconds for all of it; by default the configured `shutdown_timeout`.

        Raises:
            ShutdownTimeout: names what did not drain in time.
        """
        import asyncio

        self._state.closed = True
        seconds = self.config.shutdown_timeout if timeout is None else timeout
        live = self.executions
        results = await asyncio.gather(*(each.drain(seconds) for each in live), return_exceptions=True)
        left = [
            f"execution {each.id}: {'; '.join(result.left) or 'not drained'}"
            for each, result in zip(live, results, strict=True)
            if isinstance(result, ShutdownTimeout)
        ]
        if self._state.events is not None:
            self._state.events.complete()
        if left:
            raise ShutdownTimeout(f"pipeline {self.name!r} did not shut down within {seconds} s", left)

    # ---------------------------------------------------------------- watching it

    @property
    def executions(self) -> tuple[Execution, ...]:
        """The live executions that this pipeline object started."""
        return tuple(self._state.live.values())

    @property
    def events(self) -> EventStream:
        """The events of all its executions, as a hot Observable."""
        if self._state.events is None:
            self._state.events = EventStream(on_first_observer=self._listen)
        return self._state.events

    def _listen(self) -> None:
        for execution in self.executions:
            execution._listen()

    def _listener(self, execution: Execution) -> Callable[[Event], object] | None:
        told: list[Callable[[Event], object]] = []
        if execution._events is not None and execution._events.observed:
            told.append(execution._events.on_event)
        if self._state.events is not None and self._state.events.observed:
            told.append(self._state.events.on_event)
        if self._state.bus is not None:
            told.append(self._state.bus.publish)
        if logging_on():
            told.append(log_event)
        if len(told) < 2:
            return told[0] if told else None

        def tell(event: Event) -> None:
            for each in told:
                each(event)

        return tell

    def _flush(self) -> None:
        """Give the handlers of events a moment: who waited for an execution expects to have heard of its end."""
        if self._state.bus is not None:
            self._state.bus.flush(_MOMENT)

    async def _flush_async(self) -> None:
        if self._state.bus is not None:
            await self._state.bus.flush_async(_MOMENT)

    # ---------------------------------------------------------------- its executions

    def _refuse_if_closed(self) -> None:
        if self._state.closed:
            raise PipelineClosed(f"pipeline {self.name!r} is shut down and starts no more executions; build a new one")

    def _admit(self, execution: Execution) -> None:
        self._refuse_if_closed()
        self._state.live[execution.id] = execution
        if self._state.bus is not None:
            self._state.bus.acquire()

    def _enter(self, start: Callable[[], object]) -> Callable[[], None] | None:
        if self._state.turnstile is None:
            start()
            return None
        return self._state.turnstile.enter(start)

    def _forget(self, execution: Execution) -> None:
        if self._state.live.pop(execution.id, None) is not None and self._state.bus is not None:
            self._state.bus.release()


def _union(kinds: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """All of several declarations; nothing in particular where one of them says nothing."""
    if any(not each for each in kinds):
        return ()
    return tuple(dict.fromkeys(kind for each in kinds for kind in each))


_forms: weakref.WeakKeyDictionary[Stage, Pipeline] = weakref.WeakKeyDictionary()


def _operator_form(stage: Stage, source: Observable[Any]) -> Observable[StreamElement]:
    """`source.pipe(stage)`: the pipeline of this one stage; elements keep the numbers that they have."""
    pipeline = _forms.get(stage)
    if pipeline is None:
        pipeline = _forms[stage] = Pipeline.of(stage, name=stage.name)
    return PipelineObservable(pipeline, source, keeps=True)


use_operator_form(_operator_form)
