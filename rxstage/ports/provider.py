"""The port to models: what is asked, what streams back, what goes wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct, field

from rxstage import wire
from rxstage.content import Message, ToolCall, Usage
from rxstage.errors import RxStageError

__all__ = [
    "Finish",
    "ModelEvent",
    "ModelRequest",
    "OutputSpec",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "Thinking",
    "ToolSpec",
    "Withdrawn",
]


class ToolSpec(Struct, frozen=True):
    """A tool as it is offered to a model: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


class OutputSpec(Struct, frozen=True):
    """The form that an answer has to have: a name and a JSON schema of an object."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One call of a model.

    Attributes:
        messages: the conversation, system messages first, the newest last.
        model: which model; "" is the provider's own choice.
        tools: what it may call, in an order that never changes (prompt caches depend on it).
        tool_choice: `"auto"`, `"none"`, `"required"` or the name of a tool.
        output: form of the answer where it has to be structured.
        parameters: the rest, by the names that the field has for them: `temperature`, `max_tokens`, `top_p`, `stop`,
            `seed` …; a provider hands on what it does not know.
    """

    messages: tuple[Message, ...]
    model: str = ""
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    output: OutputSpec | None = None
    parameters: Mapping[str, Any] = {}


class Thinking(Struct, frozen=True):
    """A piece of the reasoning that a model shows; no part of its answer."""

    text: str


wire.register(Thinking, "rxstage.Thinking")


class Finish(Struct, frozen=True):
    """The last event of a call.

    Attributes:
        reason: `"stop"`, `"length"`, `"tool_calls"`, `"content_filter"`, or what the provider calls it.
        usage: tokens, and the cost where it is known.
        model: the model that answered.
    """

    reason: str = "stop"
    usage: Usage | None = None
    model: str = ""


class Withdrawn(Struct, frozen=True):
    """What this call has streamed so far is void, because of `error`: the answer begins again."""

    error: BaseException


ModelEvent: TypeAlias = str | Thinking | ToolCall | Withdrawn | Finish
"""What streams back: `str` for a piece of the answer, a whole `ToolCall`, and one `Finish` at the end."""


class Provider(ABC):
    """What answers: a model behind an API, one on this machine, or a script.

    One object serves any number of calls at once, on any number of event loops. It is a context manager (`async
    with provider:`), which closes its connections on leaving; without one they are closed with their loop.

    Attributes:
        name: what to call it in errors, events and metrics: `"openai"`.
        model: the model that it asks where a request names none.
    """

    name: str = "provider"
    model: str = ""

    @abstractmethod
    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask, and give what comes back as it comes.

        Closing the iterator, or cancelling the task that reads it, cancels the call. An error is a `ProviderError`
        (or a subclass) that says whether another try may help; a stream that breaks off before its `Finish` is one,
        too.
        """

    async def prepare(self) -> None:  # noqa: B027 - nothing is a good default
        """Open a connection for a call that is about to come, where that saves time. Never raises.

        By default nothing.
        """

    async def aclose(self) -> None:  # noqa: B027 - there may be none
        """Close the connections that are open on the running loop; the object can be used again."""

    async def __aenter__(self) -> Provider:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class ProviderError(RxStageError):
    """A call of a model failed.

    Attributes:
        provider: name of the provider.
        model: the model that was asked.
        status: status code of HTTP, where there is one.
        retryable: whether the same call may succeed later.
        retry_after: seconds that the provider asks to wait before, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after


class ProviderTimeout(ProviderError, TimeoutError):
    """A model did not begin to answer, or stopped in the middle of its answer, for longer than is allowed."""
