"""Stages inside of an adapter: each call is an execution of its own, which knows the conversations of the outer one."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any

import reactivex as rx
from msgspec.structs import replace

from rxstage.conversation import Conversations, conversations
from rxstage.element import StreamElement
from rxstage.errors import StageError
from rxstage.events import Event, PipelineStarted
from rxstage.stage import Stage, StageContext
from rxstage.stages.middleware.layers import Flow
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["stage_flow"]


def stage_flow(stage: Stage) -> Flow:
    """What a stage, stages in series or a pipeline makes of a turn.

    Raises:
        GraphError: what is wrong with them.
    """
    # The pipeline of a stage is made on a floor above this one; the operator form of the stage knows it.
    pipeline = stage(rx.empty())._pipeline  # type: ignore[attr-defined]
    return functools.partial(_flow, pipeline, pipeline is stage)


async def _flow(pipeline: Any, own: bool, context: MiddlewareContext) -> AsyncGenerator[StreamElement, None]:
    sent = context._sent()
    execution = pipeline.execute(sent)
    if not context._running:
        _begin_anew(context)
    context._running += 1

    def opened(event: Event | None = None) -> None:
        if event is None or event.__class__ is PipelineStarted:
            _adopt(execution.run.scope, context.stage, own)

    try:
        async with execution:
            if execution.run is not None:
                opened()
            else:  # it waits for its turn
                execution.events.subscribe(opened)
            async for element in execution:
                yield _restored(element, sent, context)
    except StageError as error:
        if error.__cause__ is None:
            raise
        context._blame = error
        raise error.__cause__ from error.__cause__.__cause__
    finally:
        context._running -= 1


def _begin_anew(context: MiddlewareContext) -> None:
    """Take back what an earlier call in the same turn has put into the history, unless that is stored already."""
    conversation = context.conversation
    if context._begin is None:
        context._begin = len(conversation.entries)
    elif conversation.stored <= context._begin:
        del conversation.entries[context._begin :]


def _adopt(scope: Any, stage: StageContext, own: bool) -> None:
    """Let an execution know what the outer one knows, and tell there what happens in it.

    Args:
        scope: of the execution.
        stage: the adapter.
        own: whether it is one of a user's pipeline, which has listeners of its own.
    """
    outer = stage._scope
    known, view = conversations(stage), Conversations()
    view._held = known._held  # the same conversations; what its stages do to their history holds in there only
    view.policies = list(known.policies)
    scope.shared = {**outer.shared, Conversations: view}
    if outer.listener is None:
        return
    listener = scope.listener if own else None

    def tell(event: Event) -> None:
        if listener is not None:
            listener(event)
        if outer.listener is not None and not event.type.startswith(("pipeline.", "stage.")):
            inner = f"{stage.stage}/{event.stage}"
            outer.listener(replace(event, pipeline=outer.name, execution_id=outer.execution_id, stage=inner))

    scope.listener = tell


def _restored(element: StreamElement, sent: list[StreamElement], context: MiddlewareContext) -> StreamElement:
    """An element as the outer execution knows it: with the number and the time that it had there."""
    if element.is_control:
        return context._one(element)
    origin = sent[element.sequence - 1] if 0 < element.sequence <= len(sent) else context._envelope
    return element.replace(sequence=origin.sequence, timestamp=origin.timestamp)
