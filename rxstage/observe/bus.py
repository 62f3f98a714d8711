"""The event bus: who asks for a kind of event is called with it, on a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, overload

from rxstage.errors import PipelineClosed
from rxstage.events import Event
from rxstage.observe.log import warn

__all__ = ["EventBus"]

_E = TypeVar("_E", bound=Event)

_KINDS: Final = 1024  # answers that are remembered; event types can be made up without end
_AT_EXIT: Final = 2.0  # seconds that the interpreter's exit waits for events on their way


class EventBus:
    """Hands events to handlers on one daemon thread, so that no handler can hurt the data path.

    The thread starts with the first event that has a handler, and ends once it has nothing to do and
    nobody holds the bus (see `acquire`). Each handler gets its events in the order of their publication.
    When the interpreter exits, events on their way are waited for, for at most two seconds.

    Args:
        limit: events that wait for their handlers; past that the oldest is dropped and counted.

    Attributes:
        dropped: events that were dropped because the handlers could not keep up.
        failures: calls of handlers that raised.
    """

    def __init__(self, limit: int = 1024) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit!r}")
        self.limit = limit
        self.dropped = 0
        self.failures = 0
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._cache: dict[Any, tuple[_Subscription, ...]] = {}
        # Both are safe to enter again on the same thread: a finalizer may publish while publish is at work.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._overrun: list[threading.Event] = []  # flush marks that a full queue pushed out
        self._turn = threading.Lock()  # held by the thread that calls handlers
        self._thread: threading.Thread | None = None
        self._holders = 0
        self._closed = False

    @overload
    def subscribe(self, kind: type[_E], handler: Callable[[_E], object]) -> Callable[[], None]: ...
    @overload
    def subscribe(self, kind: str, handler: Callable[[Any], object]) -> Callable[[], None]: ...
    def subscribe(self, kind: str | type[Event], handler: Callable[[Any], object]) -> Callable[[], None]:
        """Call `handler` with each event of a kind, on the bus's thread.

        Args:
            kind: a dotted type (`"stage.failed"`), a prefix (`"stage.*"`), `"*"`, or an `Event` class, which
                its subclasses match too.
            handler: a plain function of the event; one that raises is counted, logged and called again.

        Returns:
            A function that ends the subscription; no event reaches the handler after it, not even one on its way.

        Raises:
            TypeError: `handler` is not callable or is async; `kind` is neither a string nor an `Event` class.
            ValueError: `kind` is no dotted type and no pattern.
            PipelineClosed: the bus is closed.
        """
        _check(kind, handler)
        subscription = _Subscription(kind, handler)
        with self._lock:
            if self._closed:
                raise PipelineClosed(f"the event bus is closed; subscribe to {kind!r} before close()")
            self._set((*self._subscriptions, subscription))

        def unsubscribe() -> None:
            subscription.live = False
            with self._lock:
                self._set(tuple(each for each in self._subscriptions if each is not subscription))

        return unsubscribe

    @property
    def active(self) -> bool:
        """Whether there is any handler."""
        return bool(self._subscriptions)

    def wants(self, kind: str | type[Event]) -> bool:
        """Whether there is a handler for events of a class or dotted type, as the class declares it."""
        if not self._subscriptions:
            return False
        found = self._cache.get(kind)
        return bool(self._resolve(kind) if found is None else found)

    def publish(self, event: Event) -> None:
        """Hand an event to its handlers, later and elsewhere; returns at once, never raises.

        Args:
            event: what happened; where it has no handler, this costs a dict look-up.
        """
        if not self._subscriptions:
            return
        key = (event.__class__, event.type)
        subscriptions = self._cache.get(key)
        if subscriptions is None:
            subscriptions = self._resolve(key)
        if subscriptions:
            with self._lock:
                if not self._closed:
                    self._put((subscriptions, event))

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait till everything published so far has been handled (or dropped).

        Args:
            timeout: longest wait [s], in real time.

        Returns:
            Whether it has; False at once in a handler, whose own event cannot be done before it returns.
        """
        if threading.current_thread() is self._thread:
            return False
        mark = self._mark()
        return mark is None or mark.wait(max(0.0, timeout))

    async def flush_async(self, timeout: float = 5.0) -> bool:
        """`flush` for a running loop, which goes on meanwhile.

        Args:
            timeout: longest wait [s], in real time: the handlers live on a thread that knows no other.

        Returns:
            Whether everything has been handled.
        """
        mark = self._mark()
        end = time.monotonic() + timeout
        while mark is not None and not mark.is_set():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.001)
        return True

    def _mark(self) -> threading.Event | None:
        """Something that is set once all before it is handled; None where there is nothing."""
        with self._lock:
            if self._thread is None:
                return None
            mark = threading.Event()
            self._queue.put(mark)  # past the limit: asking must not cost an event
            return mark

    def acquire(self) -> None:
        """Hold the thread, once it has started, till `release`; each execution does so from begin to end."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Take back one `acquire`; after the last, the thread ends as soon as it has nothing to do."""
        with self._lock:
            if self._holders:
                self._holders -= 1
                if not self._holders:
                    self._wake()

    def close(self) -> None:
        """Take no more events; what is on its way is still handled, then the thread ends. Does not wait."""
        with self._lock:
            self._closed = True
            self._wake()

    def _set(self, subscriptions: tuple[_Subscription, ...]) -> None:
        self._subscriptions = subscriptions
        self._cache = {}

    def _resolve(self, key: Any) -> tuple[_Subscription, ...]:
        with self._lock:
            cache = self._cache
            if len(cache) >= _KINDS:
                cache.clear()
            found = tuple(each for each in self._subscriptions if _matches(each.kind, key))
            cache[key] = found
            return found

    def _wake(self) -> None:
        if self._thread is not None:
            self._queue.put(None)

    def _put(self, item: tuple[tuple[_Subscription, ...], Event]) -> None:
        self._queue.put(item)
        if self._queue.qsize() > self.limit:
            self._drop()
        if self._thread is None:
            thread = self._thread = threading.Thread(target=self._run, name="rxstage:events", daemon=True)
            try:
                thread.start()
                _running.add(self)
            except RuntimeError:  # no thread can start while the interpreter exits
                self._thread = None
                self._drop()

    def _drop(self) -> None:
        try:
            oldest = self._queue.get_nowait()
        except Empty:
            return
        if isinstance(oldest, threading.Event):
            self._overrun.append(oldest)  # what came before it is gone, but for the one that is being handled
        elif oldest is not None:
            self.dropped += 1

    def _run(self) -> None:
        with self._turn:
            self._dispatch()

    def _dispatch(self) -> None:
        queue = self._queue
        while True:
            while self._overrun:
                self._overrun.pop().set()
            try:
                item = queue.get_nowait()
            except Empty:
                with self._lock:
                    if not queue.empty() or self._overrun:
                        continue
                    if self._closed or not self._holders:
                        self._thread = None
                        _running.discard(self)
                        return
                item = queue.get()
            if isinstance(item, threading.Event):
                item.set()
            elif item is not None:
                self._handle(*item)
            del item  # an idle thread must not keep an event, and the error in it, alive

    def _handle(self, subscriptions: tuple[_Subscription, ...], event: Event) -> None:
        for subscription in subscriptions:
            if not subscription.live:
                continue
            try:
                result = subscription.handler(event)
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError(f"it returned a coroutine, which nobody awaits; {_REMEDY}")
            except BaseException as error:  # SystemExit too: the other handlers go on
                self.failures += 1
                warn(
                    f"the handler {_named(subscription.handler)} of {event.type!r} events raised "
                    f"{type(error).__name__}: {error}",
                    error=error,
                    pipeline=event.pipeline,
                    execution=event.execution_id,
                    stage=event.stage,
                )


class _Subscription:
    __slots__ = ("handler", "kind", "live")

    def __init__(self, kind: str | type[Event], handler: Callable[[Any], object]) -> None:
        self.kind = kind
        self.handler = handler
        self.live = True


# An event with those who get it, a mark of `flush`, or None, which only wakes the thread.
_Item = tuple[tuple[_Subscription, ...], Event] | threading.Event | None

_REMEDY: Final = (
    "subscribe a plain function that hands the event to its loop: "
    "loop.call_soon_threadsafe(queue.put_nowait, event), or read execution.events"
)

_running: set[EventBus] = set()


@atexit.register
def _finish() -> None:
    """The last events of a script are published just before its end: let them reach their handlers."""
    deadline = time.monotonic() + _AT_EXIT
    for bus in tuple(_running):
        bus.flush(deadline - time.monotonic())


def _check(kind: str | type[Event], handler: Callable[[Any], object]) -> None:
    if not callable(handler):
        raise TypeError(f"an event handler must be callable, got {handler!r}")
    call = getattr(handler, "__call__", None)  # noqa: B004 - of an object whose class makes it async
    if any(test(each) for test in _ASYNC for each in (handler, call)):
        raise TypeError(f"the event handler {_named(handler)} is async; {_REMEDY}")
    if isinstance(kind, type):
        if not issubclass(kind, Event):
            raise TypeError(f"an event kind is a dotted type, a pattern or an Event class, got {kind!r}")
    elif not isinstance(kind, str):
        raise TypeError(f"an event kind is a dotted type, a pattern or an Event class, got {kind!r}")
    elif kind != "*" and not all(part and "*" not in part for part in kind.removesuffix(".*").split(".")):
        raise ValueError(f"{kind!r} is no event kind: use a dotted type, 'prefix.*' or '*'")


_ASYNC: Final = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def _matches(kind: str | type[Event], key: Any) -> bool:
    """Whether a subscription to `kind` concerns `key`: a class with a type, a class, or a type."""
    if isinstance(key, tuple):
        event_class, name = key
    elif isinstance(key, str):
        event_class, name = None, key
    else:
        event_class, name = key, _declared(key)
    if isinstance(kind, str):
        return kind in (name, "*") or (kind.endswith(".*") and name.startswith(kind[:-1]))
    if event_class is not None:
        return issubclass(event_class, kind)
    return kind is Event or any(_declared(each) == name for each in _family(kind))


def _declared(event_class: type[Event]) -> str:
    """The dotted type that a class gives its events."""
    defaults = dict(
        zip(reversed(event_class.__struct_fields__), reversed(event_class.__struct_defaults__), strict=False)
    )
    return str(defaults.get("type", ""))


def _family(event_class: type[Event]) -> list[type[Event]]:
    return [event_class, *(each for child in event_class.__subclasses__() for each in _family(child))]


def _named(handler: object) -> str:
    return str(getattr(handler, "__qualname__", None) or repr(handler))
