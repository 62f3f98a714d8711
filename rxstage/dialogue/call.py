"""One call of a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from rxstage.content import ToolCall, Usage
from rxstage.ports.provider import Finish, ModelRequest, Provider, Thinking, Withdrawn
from rxstage.providers.called import called
from rxstage.stage import StageContext

__all__ = ["ModelCall"]


class ModelCall:
    """One call of a model, as far as it has come.

    Attributes:
        pieces: the pieces of the text that were taken in.
        calls: of tools that the model asks for.
        finish: how it ended, None before.
        looked: characters of the text that were looked at for a partial object.
    """

    __slots__ = ("calls", "finish", "looked", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.calls: list[ToolCall] = []
        self.finish: Finish | None = None
        self.looked = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def usage(self) -> Usage | None:
        """What it has used, where that was told."""
        return None if self.finish is None else self.finish.usage

    async def events(
        self,
        provider: Provider,
        request: ModelRequest,
        context: StageContext,
        named: Callable[[ToolCall], ToolCall],
    ) -> AsyncIterator[Any]:
        """Call the model, and tell of it: gives text, `Thinking` and `Withdrawn`; the rest is kept here.

        Args:
            provider: asked.
            request: what it is asked.
            context: of the stage, which tells of the call.
            named: gives a call of a tool with an id that no other one has.
        """
        begin = context.now()
        model = request.model or provider.model
        told = {"provider": provider.name, "model": model}
        context.emit_event("provider.call.started", **told, messages=len(request.messages), tools=len(request.tools))
        first = True
        try:
            async with called(provider, request) as events:
                async for event in events:
                    if first:
                        first = False
                        context.emit_event("provider.call.first_token", **told, duration=context.now() - begin)
                    if event.__class__ is ToolCall:
                        self.calls.append(named(event))
                    elif event.__class__ is Finish:
                        self.finish = event
                        break
                    elif event.__class__ in (str, Withdrawn, Thinking):
                        yield event
                    elif isinstance(event, str):
                        yield str(event)
                    else:
                        raise TypeError(
                            f"provider {provider.name!r} streamed {event!r:.80}; it streams str, Thinking, ToolCall, "
                            f"and one Finish at the end"
                        )
        except Exception as error:
            context.emit_event("provider.call.failed", **told, duration=context.now() - begin, error=str(error))
            raise
        except BaseException:  # an interrupt or the end of the execution; what it has used nobody told
            characters = sum(map(len, self.pieces))
            context.emit_event("provider.call.cancelled", **told, duration=context.now() - begin, characters=characters)
            raise
        finish = self.finish or Finish()
        used = finish.usage or Usage()
        context.emit_event(
            "provider.call.completed",
            **{**told, "model": finish.model or model},
            duration=context.now() - begin,
            reason=finish.reason,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cost=used.cost,
        )
