"""One conversation that goes on: a pipeline that is executed once, and answers turn after turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

from rxstage.cli.chat_model import Model
from rxstage.content import Failure, Interrupt, Message, Usage
from rxstage.conversation import CONVERSATION
from rxstage.dialogue.errors import AnswerWithdrawn
from rxstage.element import StreamElement
from rxstage.events import Event
from rxstage.execution import Execution
from rxstage.pipeline import Pipeline
from rxstage.ports.store import Entry, StateStore
from rxstage.stages.provider import ProviderStage
from rxstage.stages.state import StateStoreLoadStage, StateStoreSaveStage

__all__ = ["Session"]

_PATIENCE: Final = 10.0  # seconds that what is in flight has at the end


class Session:
    """Asks a model, and keeps what was said in a store.

    Args:
        model: who answers.
        store: keeps the conversation.
        conversation: its id.
        system: instructs the model.
        tools: what the model may call.
        parameters: `temperature` and so on.
        timeout: seconds to the first token.

    Attributes:
        used: tokens and cost of all answers.
        answers: how many there were.
        interrupted: whether the newest one was stopped.
        unsaved: why not all of the conversation is stored, if it is not.
    """

    def __init__(
        self,
        model: Model,
        store: StateStore,
        conversation: str,
        *,
        system: str | None = None,
        tools: tuple[Any, ...] = (),
        parameters: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.model, self.store, self.conversation = model, store, conversation
        self.system, self.tools = system, tools
        self.used, self.answers, self.interrupted = Usage(), 0, False
        self.unsaved: str | None = None
        self._parameters, self._timeout = parameters or {}, timeout
        self._execution: Execution | None = None
        self._elements: AsyncIterator[StreamElement] | None = None
        self._over = asyncio.Event()
        self._asking = False
        self._pipeline = self._build()

    @property
    def pipeline(self) -> Pipeline:
        """What answers."""
        return self._pipeline

    @property
    def execution(self) -> Execution | None:
        """The execution that is open, if one is."""
        return self._execution

    async def ask(self, text: str) -> AsyncGenerator[StreamElement]:
        """Say something, and give what comes back up to the end of the answer: its message, or a `Failure`.

        Raises:
            RxStageError: the execution ended with an error; the next question opens another one.
        """
        execution = self._open()
        assert self._elements is not None
        self.interrupted, self._asking = False, True
        execution.send(StreamElement.of(Message.user(text), metadata={CONVERSATION: self.conversation}))
        try:
            while True:
                element = await anext(self._elements)
                if element.content.__class__ is Interrupt:
                    return
                yield element
                if self._ends(element) and not self.interrupted:
                    return
        except Exception:
            self._execution = self._elements = None
            raise
        finally:
            self._asking = False

    def interrupt(self) -> None:
        """Stop the answer that is under way."""
        if self._execution is not None and self._asking and not self.interrupted:
            self.interrupted = True
            self._execution.interrupt("the user")

    async def entries(self) -> tuple[Entry, ...]:
        """What was said so far."""
        return (await self.store.load(self.conversation)).entries

    async def change(self, *, model: Model | None = None, system: str | None = None) -> None:
        """Go on with another model, or with other instructions."""
        await self.close()
        if model is not None:
            self.model = model
        if system is not None:
            self.system = system or None
        self._pipeline = self._build()

    async def forget(self) -> None:
        """Forget what was said."""
        await self.close()
        await self.store.delete(self.conversation)

    async def close(self) -> None:
        """Let what is in flight come to its end, and be stored."""
        elements = self._elements
        self._over.set()
        try:
            if elements is not None:
                async with asyncio.timeout(_PATIENCE):
                    async for _ in elements:
                        pass
        except TimeoutError:
            self.unsaved = self.unsaved or f"the store did not answer within {_PATIENCE:g} s"
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop at once; what was said is still stored."""
        execution, self._execution, self._elements = self._execution, None, None
        if execution is not None:
            execution.cancel()
            await execution.closed()

    def _ends(self, element: StreamElement) -> bool:
        content = element.content
        if content.__class__ is Failure:
            return not isinstance(content.error, AnswerWithdrawn)
        if content.__class__ is not Message or content.role != "assistant":
            return False
        self.answers += 1
        self.used += content.usage or Usage()
        return True

    def _open(self) -> Execution:
        if self._execution is None:
            over = self._over = asyncio.Event()

            async def nothing() -> AsyncIterator[StreamElement]:
                await over.wait()  # the input stays open: what is said is sent in
                return
                yield

            self._execution = self._pipeline.execute(nothing())
            self._execution.events.subscribe(self._hear)
            self._elements = aiter(self._execution)
        return self._execution

    def _hear(self, event: Event) -> None:
        if event.type == "state.failed":
            self.unsaved = str(event.data.get("error", event.error))
        elif event.type == "state.saved":
            self.unsaved = None

    def _build(self) -> Pipeline:
        state = {"store": self.store, "conversation": self.conversation}
        answer = ProviderStage(
            "assistant",
            provider=self.model.provider,
            system=self.system,
            tools=self.tools,
            parameters=self._parameters,
            first_token_timeout=self._timeout,
            on_error="emit",
        )
        save = StateStoreSaveStage("save", **state, on_error="skip")  # it is told of at the end
        return Pipeline.of(StateStoreLoadStage("load", **state) >> answer >> save, name="chat")
