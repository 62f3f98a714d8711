"""The server's end of a session, and the pipeline that answers in it."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from typing import Any

from loguru import logger

from rxstage.element import StreamElement
from rxstage.errors import PipelineClosed, StageError
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.protocol import Bye, CloseCode, Sound
from rxstage.websocket.session import Session

__all__ = ["ServerSession"]


class ServerSession(Session):
    """The server's end of a session.

    Attributes:
        execution: of the pipeline, once it has begun.
        client: what the client calls itself.
        user: which of the server's tokens it has shown, by its place; None where there are none.
        failure: what the pipeline has failed with, in words that a client may see.
    """

    def __init__(self, options: ServerOptions, hears: Sound, speaks: Sound, client: str, user: int | None) -> None:
        super().__init__(
            options.session, hears=hears, speaks=speaks, trusted=options.trusted, id=secrets.token_urlsafe(18)
        )
        self.execution: Any = None
        self.client, self.user = client, user
        self.failure = ""
        self.owner: Any = None  # the connection that it has been given to
        self.expiry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, answer: Any) -> None:
        """Begin to answer: with a pipeline, a function that gives one, or one that does everything itself."""
        self._task = asyncio.create_task(self._run(answer), name=f"rxstage websocket session {self.id[:8]}")

    async def stop(self) -> None:
        """Cut off what answers, if it still does, and wait for its end."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        self.incoming.end()
        self.outgoing.end()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait((task,))

    def _into_execution(self, interrupt: StreamElement) -> bool:
        """An `Interrupt` does not wait behind what the pipeline has no room for."""
        try:
            self.execution.send(interrupt)
        except PipelineClosed:
            return False
        self.incoming.hold()  # it enters at the loop's next turn, and what comes after it must not enter before it
        asyncio.get_running_loop().call_soon_threadsafe(self.incoming.let_go)
        return True

    @property
    def outcome(self) -> tuple[CloseCode, str]:
        """What the connection is to be closed with, once everything is sent."""
        return (CloseCode.FAILED, self.failure) if self.failure else (CloseCode.NORMAL, "")

    async def _run(self, answer: Any) -> None:
        try:
            target = answer if hasattr(answer, "execute") else answer(self)
            if inspect.isawaitable(target):
                target = await target
            if hasattr(target, "execute"):
                async with target.execute(self) as execution:
                    self.execution, self.overtake = execution, self._into_execution
                    async for element in execution:
                        await self.send(element)
            await self.send_rest()
        except Exception as error:
            # A stranger learns which stage failed, and nothing of what it worked on.
            self.failure = f"stage {error.stage!r} failed" if isinstance(error, StageError) else "the pipeline failed"
            logger.opt(exception=error).error("session {} of a WebSocket has failed", self.id[:8])
        else:
            self.farewell = Bye()
        self.incoming.end()
        self.outgoing.end()
