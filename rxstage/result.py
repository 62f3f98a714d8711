"""What a finished execution gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from rxstage.content import Failure, Message, Usage
from rxstage.element import StreamElement
from rxstage.observe.metrics import Metrics

__all__ = ["Result"]


class Result(Struct, frozen=True, eq=False):
    """All that an execution emitted, and how it went.

    Attributes:
        elements: what left the pipeline, controls too, in order.
        error: what the execution failed with, or None.
        duration: seconds from its opening to its end, on its own clock.
    """

    elements: tuple[StreamElement, ...]
    error: BaseException | None = None
    duration: float = 0.0
    measure: Callable[[], Metrics] = Metrics

    @property
    def metrics(self) -> Metrics:
        """Counters and times per stage."""
        return self.measure()

    @property
    def ok(self) -> bool:
        """Whether it came to its end without an error."""
        return self.error is None

    @property
    def contents(self) -> list[Any]:
        """The contents of the elements, without controls."""
        return [element.content for element in self.elements if not element.is_control]

    @property
    def text(self) -> str:
        """The text elements, joined."""
        return "".join(element.text for element in self.elements if element.text is not None)

    @property
    def messages(self) -> list[Message]:
        """The messages."""
        return [element.content for element in self.elements if element.content.__class__ is Message]

    @property
    def failures(self) -> list[Failure]:
        """The failures of single elements that a stage passed on."""
        return [element.content for element in self.elements if element.content.__class__ is Failure]

    @property
    def usage(self) -> Usage:
        """What the models behind the messages used, in all."""
        total = Usage()
        for message in self.messages:
            if message.usage is not None:
                total += message.usage
        return total

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.elements, self.error, self.duration, self.metrics)

    def __repr__(self) -> str:
        state = "ok" if self.error is None else f"error={self.error!r}"
        return f"Result({len(self.elements)} elements, {state}, duration={self.duration:.6f})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from rxstage.observe.table import elements_html

        return elements_html(self.elements, self.error)


def _restore(
    elements: tuple[StreamElement, ...], error: BaseException | None, duration: float, metrics: Metrics
) -> Result:
    return Result(elements, error, duration, lambda: metrics)
