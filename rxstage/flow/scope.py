"""The life of one execution: its clock, its loop, its tasks, and the one error that ends it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rxstage.config import PipelineConfig
from rxstage.content import EndOfStream
from rxstage.element import ControlElement, StreamElement
from rxstage.events import EdgeDropped, Event
from rxstage.flow.meter import Meter

if TYPE_CHECKING:
    from reactivex.abc import SchedulerBase

    from rxstage.flow.buffer import Buffer
    from rxstage.flow.guard import Serial
    from rxstage.flow.streamer import Streamer

__all__ = ["DROP", "Scope"]

_T = TypeVar("_T")


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP: Final = _Drop()
"""What stands for an element that does not go on."""


class Scope:
    """Owns what an execution starts, and hears of its first error.

    Args:
        config: the pipeline's configuration.
        clock: seconds, on the scheduler's clock.
        loop: where it lives; None where it runs inline on whatever thread pushes.
        scheduler: handed to every operator that is subscribed in it.
        name: name of the pipeline.
        execution_id: id of the execution.
        on_fail: called once, with the first error.
    """

    __slots__ = (
        "_meters",
        "_on_fail",
        "clock",
        "config",
        "dismissed",
        "drainers",
        "edges",
        "ended",
        "execution_id",
        "holders",
        "late",
        "links",
        "listener",
        "loop",
        "name",
        "names",
        "next_sequence",
        "readers",
        "release",
        "scheduler",
        "serial",
        "shared",
        "stop_input",
        "streamers",
        "suspect",
        "tasks",
        "unrouted",
        "workers",
    )

    def __init__(
        self,
        *,
        config: PipelineConfig,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        scheduler: SchedulerBase | None = None,
        name: str = "",
        execution_id: str = "",
        on_fail: Callable[[BaseException], object],
    ) -> None:
        self.config = config
        self.clock = clock
        self.loop = loop
        self.scheduler = scheduler
        self.name = name
        self.execution_id = execution_id
        self.ended = False
        self.next_sequence: Callable[[], int] = itertools.count(1).__next__
        self.listener: Callable[[Event], object] | None = None
        self.stop_input: Callable[[], object] = _nothing
        self.suspect: Callable[[], object] = _nothing  # something waits for what may never come
        self.serial: Serial | None = None  # inline only: what serialises operators that emit from other threads
        self.tasks: dict[asyncio.Task[Any], str] = {}
        self.dismissed: set[asyncio.Task[Any]] = set()
        self.links: Sequence[tuple[str, str]] = ()  # all edges, in the order of the graph
        self.names: Sequence[str] = ()  # of the stages, in topological order
        self.readers: list[Callable[[], object]] = []  # bring the counters up to date
        self._meters: dict[str, Meter] | None = None
        self.edges: dict[tuple[str, str], Buffer] = {}  # those with a buffer
        self.unrouted: dict[str, int] = {}  # what matched no route, by the stage that it left
        self.workers: list[Any] = []  # pumps with .parked and .holding()
        self.holders: list[Callable[[], str | None]] = []
        self.drainers: list[Callable[[], object]] = []  # end what generates
        self.release: list[Callable[[], object]] = []  # undone when it ends, last first
        self.late: list[BaseException] = []
        self.streamers: dict[str, Streamer] = {}  # the stages over the whole stream
        self.shared: dict[Hashable, Any] = {}  # what stages of the execution have in common
        self._on_fail = on_fail

    def fail(self, error: BaseException) -> None:
        """End the execution with `error`; what comes after the first is kept in `late`."""
        if self.ended:
            self.late.append(error)
        else:
            self._on_fail(error)

    def spawn(self, work: Coroutine[Any, Any, Any], stage: str) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this execution, named after the stage that it serves."""
        assert self.loop is not None
        task = self.loop.create_task(work, name=f"rxstage:{stage}")
        self.tasks[task] = stage
        task.add_done_callback(self._forget)
        return task

    def dismiss(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task whose work nobody needs any more; the execution goes on."""
        if task in self.tasks:
            self.dismissed.add(task)
        task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if task.cancelled():
            if task not in self.dismissed and not self.ended:
                self.fail(asyncio.CancelledError(f"{task.get_name()} was cancelled"))
        elif (error := task.exception()) is not None:
            self.fail(error)
        self.dismissed.discard(task)

    def forget_quietly(self, task: asyncio.Task[Any]) -> None:
        """Done callback of a task whose result somebody else takes, or nobody any more."""
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()

    @property
    def meters(self) -> dict[str, Meter]:
        """The counters of all stages, up to date; made when somebody asks first."""
        meters = self._meters
        if meters is None:
            timed = self.config.metrics
            meters = self._meters = {name: Meter(timed) for name in self.names}
        return meters

    def refresh(self) -> dict[str, Meter]:
        """The counters, with what fused runs and lean loops have counted for them."""
        for read in self.readers:
            read()
        return self.meters

    def born(self, element: StreamElement, node: int) -> Any:
        """A control that a stage made, marked with the node that it comes from.

        An `EndOfStream` ends the input instead, and DROP is given for it.
        """
        if element.content.__class__ is EndOfStream:
            self.stop_input()
            return DROP
        return ControlElement(
            element.content,
            element.metadata,
            element.priority,
            element.sequence,
            element.timestamp or self.clock(),
            element.source,
            node,
        )

    def tell(self, kind: type[Event], **fields: Any) -> None:
        """Tell those who listen; costs nothing where nobody does."""
        if self.listener is not None:
            self.listener(kind(pipeline=self.name, execution_id=self.execution_id, time=self.clock(), **fields))

    def dropped(self, edge: tuple[str, str], count: int) -> None:
        """Announce that an edge has dropped an element."""
        if self.listener is not None:
            self.tell(EdgeDropped, stage=edge[0], target=edge[1], dropped=count)

    def holding(self) -> list[str]:
        """Who holds what, in words."""
        return [words for ask in self.holders if (words := ask()) is not None]


def _nothing() -> None:
    return None
