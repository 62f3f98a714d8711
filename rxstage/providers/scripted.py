"""A provider that answers by a script: for tests, demos and virtual time."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from rxstage.content import Message, ToolCall, ToolResult, Usage
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Thinking

__all__ = ["Reply", "Rule", "ScriptedProvider", "newest_text"]

_TOKENS: Final = re.compile(r"\s*\S+|\s+\Z")
_REMEMBERED: Final = 1000  # requests that `calls` keeps


class Reply(Struct, frozen=True, kw_only=True):
    """One answer of a `ScriptedProvider`, with its timing and its faults.

    Attributes:
        text: streamed word by word.
        tool_calls: come after the text.
        thinking: comes before it.
        delay: seconds before the first token.
        token_delay: seconds before each further one.
        error: raised after `error_after` tokens.
        error_after: tokens that come before the error.
        stalls: after the text nothing comes any more, for ever.
        reason: why it finished; by default `"stop"`, or `"tool_calls"` where there are some.
        usage: by default words are counted as tokens.
    """

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    thinking: str = ""
    delay: float = 0.0
    token_delay: float = 0.0
    error: BaseException | None = None
    error_after: int = 0
    stalls: bool = False
    reason: str = ""
    usage: Usage | None = None


Answer: TypeAlias = str | ToolCall | Reply | BaseException | Sequence[ToolCall]
"""What a script says: a text, one or several tool calls, a `Reply`, or an exception to raise."""


class Rule(Struct, frozen=True):
    """Answers what matches.

    Attributes:
        pattern: a regular expression that is searched in the newest message, without regard to case; or a predicate
            of the request.
        answer: what is answered; or a function of the request, which may be async, and which gets the match as a
            second argument if it takes two.
    """

    pattern: str | Callable[[ModelRequest], Any]
    answer: Answer | Callable[..., Any]


class ScriptedProvider(Provider):
    """Answers by a script.

        ScriptedProvider("Hello!", "And goodbye.")                                # one after the other
        ScriptedProvider(rules=[Rule("weather in (.*)", lambda request, found: f"Rain in {found[1]}.")])
        ScriptedProvider(ProviderError("busy", status=429, retryable=True), "Here I am.")

    Args:
        *answers: what it says, one for each call that no rule matches, in the order of the calls; or functions of the
            request that make it.
        rules: tried first, in their order, on the text of the newest message.
        default: what it says when nothing else is left; by default that is a `ProviderError`.
        delay: seconds before the first token, where the answer says nothing of it.
        token_delay: seconds before each further token, likewise.
        model: name of the model that it plays.
        price: US dollars per token, in and out.

    Attributes:
        calls: the newest 1,000 requests that it got.
    """

    name = "scripted"

    def __init__(
        self,
        *answers: Answer | Callable[..., Any],
        rules: Iterable[Rule] = (),
        default: Answer | Callable[..., Any] | None = None,
        delay: float = 0.0,
        token_delay: float = 0.0,
        model: str = "script",
        price: float = 0.0,
    ) -> None:
        self.model = model
        self.calls: deque[ModelRequest] = deque(maxlen=_REMEMBERED)
        self._answers = deque(answers)
        self._rules = tuple(rules)
        self._default = default
        self._delay, self._token_delay, self._price = delay, token_delay, price
        self._lock = threading.Lock()  # executions on several loops may share it

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The scripted answer, token by token."""
        self.calls.append(request)
        reply = await self._reply(request)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        sent = 0
        if reply.thinking:
            yield Thinking(reply.thinking)
        for token in _TOKENS.findall(reply.text):
            if reply.error is not None and sent >= reply.error_after:
                raise reply.error
            if sent and reply.token_delay:
                await asyncio.sleep(reply.token_delay)
            yield token
            sent += 1
        if reply.error is not None:
            raise reply.error
        if reply.stalls:
            await asyncio.get_running_loop().create_future()
        for call in reply.tool_calls:
            yield call
        reason = reply.reason or ("tool_calls" if reply.tool_calls else "stop")
        yield Finish(reason, reply.usage or self._usage(request, sent), request.model or self.model)

    async def _reply(self, request: ModelRequest) -> Reply:
        answer, found = self._chosen(request)
        if callable(answer):
            takes = len(inspect.signature(answer).parameters)
            answer = answer(request, found) if takes > 1 else answer(request)
            if isinstance(answer, Awaitable):
                answer = await answer
        return self._timed(answer)

    def _chosen(self, request: ModelRequest) -> tuple[Any, Any]:
        text = newest_text(request.messages)
        for rule in self._rules:
            found = rule.pattern(request) if callable(rule.pattern) else re.search(rule.pattern, text, re.IGNORECASE)
            if found:
                return rule.answer, found
        with self._lock:
            if self._answers:
                return self._answers.popleft(), None
        if self._default is not None:
            return self._default, None
        raise ProviderError(
            f"the script of provider {self.name!r} has no answer left to {text[:80]!r}; give it one more answer, a "
            f"rule or a default",
            provider=self.name,
            model=self.model,
        )

    def _timed(self, answer: Any) -> Reply:
        if isinstance(answer, Reply):
            return answer
        if isinstance(answer, BaseException):
            return Reply(error=answer, delay=self._delay)
        if isinstance(answer, str):
            return Reply(text=answer, delay=self._delay, token_delay=self._token_delay)
        calls = (answer,) if isinstance(answer, ToolCall) else tuple(answer) if isinstance(answer, Sequence) else ()
        if not calls or not all(isinstance(call, ToolCall) for call in calls):
            raise TypeError(
                f"an answer of provider {self.name!r} must be a str, a Reply, a ToolCall or several, or an exception, "
                f"got {answer!r}"
            )
        return Reply(tool_calls=calls, delay=self._delay)

    def _usage(self, request: ModelRequest, sent: int) -> Usage:
        asked = sum(len(message.text.split()) for message in request.messages)
        return Usage(asked, sent, (asked + sent) * self._price)


def newest_text(messages: Sequence[Message]) -> str:
    """The text of the newest message; of a tool's message, the values of its results."""
    if not messages:
        return ""
    newest = messages[-1]
    if newest.role == "tool":
        return "".join(str(part.value) for part in newest.parts if part.__class__ is ToolResult)
    return newest.text
