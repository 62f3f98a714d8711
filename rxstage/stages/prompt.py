"""The stage that instructs a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, PrivateAttr

from rxstage.content import Data, Failure, Interrupt, Message, ToolCall, ToolResult
from rxstage.conversation import HISTORY, PROMPT, TurnEnd, conversations, ends_turn
from rxstage.element import StreamElement
from rxstage.prompts.budget import TokenBudget
from rxstage.prompts.calls import asked, name_of, until_interrupted
from rxstage.prompts.errors import PromptError
from rxstage.prompts.meter import LIMITS, RenderLimits
from rxstage.prompts.prompt import Example, Prompt
from rxstage.prompts.registry import PromptRegistry
from rxstage.prompts.turns import Incoming, Turns
from rxstage.stage import Stage, StageContext, StageType

__all__ = ["VARIABLES", "PromptAssemblyStage"]

VARIABLES: Final = "variables"
"""Key of the metadata: a mapping of variables for the prompt of this turn."""

_HELD: Final = 10_000  # elements of one turn
_PASSING: Final = (Data, ToolCall, ToolResult)  # may be waited for by what is under way


class PromptAssemblyStage(Stage):
    """Renders a prompt, once for each turn, and puts its messages in front of what ends the turn.

    Variables come from the prompt itself, from `variables`, from the metadata of the turn's elements (by their own
    names, then those of the mapping under `"variables"`) and from `providers`; the later wins.

    Args:
        name: name in the graph.
        template: a system prompt, in the language of jinja2.
        examples: with `template`: pairs of what the user asks and the assistant answers, templates too.
        fragments: with `template`: texts that it includes, by name.
        prompt: a `Prompt` instead, or the id of one in `registry`: `"support"`, `"support@2"`.
        registry: a `PromptRegistry`, or its folder. One that reloads is asked anew in every turn.
        variables: what the templates read.
        from_metadata: the variables that metadata may set; by default any.
        providers: functions of the turn's text and metadata that give variables; async or plain, asked side by side.
        budget: what is left out where the model would get to see too much.
        limits: how much text and work rendering may come to.
        turns: what ends a turn: `"message"` (a user `Message` or an `EndOfTurn`) or `"control"` (an `EndOfTurn` alone).
        timeout: seconds for all providers together.
        on_error: `"fail"` ends the execution. With `"emit"` a `Failure` takes the place of the turn, which is held
            until its prompt is there: nothing is ever answered without its instructions.

    Raises:
        ValueError: not just one of `template` and `prompt` is given, or an id without a registry.
        PromptError: the template is none, or the registry has no such prompt.

    Emits: everything as it comes; before the element that ends a turn (or at the end of the input) a system `Message`
        and the examples, marked `"prompt"` in their metadata. A turn in which nothing came gets none.
    Holds: the text and the metadata of a turn; with `on_error="emit"` up to 10,000 elements of it.
    Completes: with its input.
    Fails: with `StageError` where a variable is missing, a provider fails or takes too long, or a template goes wrong.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    template: str | None = None
    examples: tuple[Example, ...] = ()
    fragments: Mapping[str, str] = Field(default_factory=dict)
    prompt: Prompt | str | None = None
    registry: Any = None
    variables: Mapping[str, Any] = Field(default_factory=dict)
    from_metadata: tuple[str, ...] | None = None
    providers: tuple[Any, ...] = ()
    budget: TokenBudget | None = None
    limits: RenderLimits = LIMITS
    turns: TurnEnd = "message"
    timeout: float | None = 10.0
    on_error: Literal["fail", "emit"] = "fail"

    _registry: PromptRegistry | None = PrivateAttr(None)
    _own: Prompt | None = PrivateAttr(None)

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        options["examples"] = tuple(map(_example, options.get("examples", ())))
        super().__init__(name, **options)
        if (self.template is None) == (self.prompt is None):
            raise ValueError(f"stage {self.name!r}: give it either a template or a prompt")
        if self.template is None and (self.examples or self.fragments):
            raise ValueError(f"stage {self.name!r}: examples and fragments go with a template; a prompt has its own")
        for provider in self.providers:
            if not callable(provider):
                raise TypeError(f"stage {self.name!r}: providers are functions that give variables, got {provider!r}")
        if isinstance(self.prompt, str):
            if self.registry is None:
                raise ValueError(f"stage {self.name!r}: prompt={self.prompt!r} is an id; give it a registry")
            registry = self.registry
            self._registry = registry if isinstance(registry, PromptRegistry) else PromptRegistry(registry)
            self._registry.get(self.prompt)
        elif self.registry is not None:
            raise ValueError(f"stage {self.name!r}: a registry is asked for the id in prompt=, which is none")
        else:
            template = self.template or ""
            self._own = self.prompt or Prompt(system=template, examples=self.examples, fragments=self.fragments)
            self._own.templates  # noqa: B018 - compiles them, so that what is wrong is said here

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        if self.budget is not None:
            conversations(context).add_policy(self.budget.policy(context))
        source = _Source(self, context)
        turns = Turns()
        while True:
            element = await anext(elements, None)
            if element is not None:
                if element.content.__class__ is Interrupt:
                    turns.clear()
                elif not element.is_control:
                    turns.of(element).add(element)
                if not ends_turn(element, self.turns):
                    if not element.is_control and self._holds(element, turns.of(element).held):
                        turns.of(element).held.append(element)
                    else:
                        if element.content.__class__ is Data:
                            turns.of(element).passed = True
                        yield element
                    continue
            failed = False
            for turn in turns.ended(element):
                made: list[StreamElement] = []
                if not turn.empty and turn.last is not None:
                    made = await self._made(source, turn, turn.last, context, safe=not turn.passed)
                failed = bool(made) and made[0].is_control
                for each in (*(() if failed else turn.held), *made):
                    yield each
            if element is None:
                return
            if element.is_control or not failed:
                yield element

    def _holds(self, element: StreamElement, held: list[StreamElement]) -> bool:
        """Whether an element waits for the prompt of its turn."""
        if self.on_error != "emit" or element.is_control or HISTORY in element.metadata:
            return False
        if element.content.__class__ in _PASSING:
            return False
        if len(held) >= _HELD:
            raise PromptError(
                f"a turn has more than {_HELD} elements, and on_error='emit' holds them till its prompt is there; end "
                f"turns sooner, or use on_error='fail'"
            )
        return True

    async def _made(
        self, source: _Source, turn: Incoming, last: StreamElement, context: StageContext, *, safe: bool
    ) -> list[StreamElement]:
        """The messages of a turn, or the `Failure` that takes its place."""

        begin = context.now()
        try:
            if source.waits:
                rendered = await until_interrupted(context, lambda: source.render(turn))
            else:
                rendered = await source.render(turn)
        except PromptError as error:
            if self.on_error != "emit" or not safe:
                raise
            context.emit_event("prompt.failed", error=str(error))
            return [StreamElement(Failure(error, context.stage), turn.metadata, source=context.stage)]
        if rendered is None:
            return []
        prompt, messages = rendered
        mark = prompt.reference or context.stage
        context.emit_event("prompt.rendered", prompt=mark, messages=len(messages), duration=context.now() - begin)
        envelope = StreamElement(
            "",
            metadata={**turn.metadata, PROMPT: mark},
            sequence=last.sequence,
            timestamp=last.timestamp,
            source=context.stage,
        )
        return [envelope.replace(content=message) for message in messages]


class _Source:
    """Where the prompts of an execution come from."""

    def __init__(self, stage: PromptAssemblyStage, context: StageContext) -> None:
        self._stage, self._context = stage, context
        self._told: tuple[str, ...] = ()
        self.waits = bool(stage.providers) or (stage._registry is not None and stage._registry.reload)

    async def render(self, turn: Incoming) -> tuple[Prompt, tuple[Message, ...]]:
        """The prompt of a turn, and its messages."""
        stage = self._stage
        given = await self._given(turn) if stage.providers else {}
        prompt = await self._prompt()
        variables = {**stage.variables, **self._from_metadata(turn.metadata), **given}
        return prompt, prompt.render(variables, stage.limits)

    async def _prompt(self) -> Prompt:
        registry = self._stage._registry
        if registry is None:
            assert self._stage._own is not None
            return self._stage._own
        reference = str(self._stage.prompt)
        if not registry.reload:
            return registry.get(reference)
        prompt = await asyncio.to_thread(registry.get, reference)  # which looks at files
        problems = tuple(map(str, registry.problems))
        for problem in set(problems) - set(self._told):
            self._context.emit_event("prompt.reload.failed", error=problem)
        self._told = problems
        return prompt

    def _from_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        own = metadata.get(VARIABLES, {})
        if not isinstance(own, Mapping):
            raise PromptError(f"{VARIABLES!r} in the metadata of a turn is a mapping of variables, got {own!r}")
        given = {**{key: value for key, value in metadata.items() if key != VARIABLES}, **own}
        names = self._stage.from_metadata
        return given if names is None else {name: given[name] for name in names if name in given}

    async def _given(self, turn: Incoming) -> dict[str, Any]:
        """What the providers give, the later ones going before."""
        text, metadata = turn.text, turn.metadata
        tasks: list[asyncio.Task[Any]] = []
        try:
            async with asyncio.timeout(self._stage.timeout), asyncio.TaskGroup() as group:
                for provider in self._stage.providers:
                    asking = asked("the variable provider", provider, text, metadata, context=self._context)
                    tasks.append(group.create_task(asking))
        except TimeoutError as error:
            pairs = zip(self._stage.providers, tasks, strict=False)
            late = ", ".join(name_of(provider) for provider, task in pairs if task.cancelled())
            raise PromptError(
                f"the variable providers took more than {self._stage.timeout:g} s: {late}; make them faster, or raise "
                f"timeout="
            ) from error
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        given: dict[str, Any] = {}
        for provider, task in zip(self._stage.providers, tasks, strict=True):
            variables = task.result()
            if not isinstance(variables, Mapping):
                raise PromptError(
                    f"the variable provider {name_of(provider)!r} has to give a mapping of variables, got {variables!r}"
                )
            given.update(variables)
        return given


def _example(value: Any) -> Any:
    """An example may be written as a pair."""
    return Example(user=value[0], assistant=value[1]) if isinstance(value, (tuple, list)) and len(value) == 2 else value
