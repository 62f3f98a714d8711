"""One execution on the command line: elements are shown as they come, and Ctrl-C ends it with its report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rxstage.cli.command import INTERRUPTED, PipeClosed, explain, say
from rxstage.cli.report import Report
from rxstage.cli.source import Input
from rxstage.element import StreamElement
from rxstage.execution import Execution
from rxstage.pipeline import Pipeline

__all__ = ["stream"]


def stream(
    pipeline: Pipeline,
    source: Input | None,
    show: Callable[[StreamElement], object] | None,
    *,
    controls: bool = False,
    slow: float = 0.0,
    timeout: float | None = None,
) -> tuple[Report, int]:
    """Execute a pipeline and show what it emits; what it fails with is said on standard error.

    Args:
        pipeline: what to execute.
        source: what it reads; None for nothing.
        show: called with each element, if given.
        controls: whether controls are shown too; a failure is else said on standard error.
        slow: seconds to wait after each element.
        timeout: seconds for all of it.

    Returns:
        The report, and the exit code.

    Raises:
        PipeClosed: whoever read the output has gone.
    """
    return asyncio.run(_stream(pipeline, source, show, controls, slow, timeout))


async def _stream(
    pipeline: Pipeline,
    source: Input | None,
    show: Callable[[StreamElement], object] | None,
    controls: bool,
    slow: float,
    timeout: float | None,
) -> tuple[Report, int]:
    execution = Execution(
        pipeline,
        () if source is None else source.source,
        subscribe_on="loop" if source is None else source.subscribe_on,
        timeout=timeout,
    )
    clock = asyncio.get_running_loop().time
    begin = clock()
    emitted = code = 0
    failed: BaseException | None = None
    try:
        async with execution:
            async for element in execution:
                if element.is_control and not controls:
                    if element.failure is not None:
                        say(f"stage {element.failure.stage!r} passed on a failure: {explain(element.failure.error)}")
                    continue
                emitted += not element.is_control
                if show is not None:
                    show(element)
                if slow:
                    await asyncio.sleep(slow)
    except asyncio.CancelledError:  # Ctrl-C: asyncio cancels the main task
        code = INTERRUPTED
    except (PipeClosed, BrokenPipeError):
        raise
    except Exception as error:
        failed, code = error, 1
        say(explain(error))
    name = "nowhere" if source is None else source.name
    return Report.of(execution, name, emitted, clock() - begin, failed), code
