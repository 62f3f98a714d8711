"""The stage that instructs a model: once for each turn, before it is answered, or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rxstage import (
    Audio,
    Data,
    Event,
    Message,
    MissingExtra,
    Pipeline,
    Stage,
    StageContext,
    StageError,
    StreamElement,
)
from rxstage.conversation import HISTORY, PROMPT
from rxstage.prompts import Example, MissingVariable, Prompt, PromptError, PromptRegistry, RenderLimits, TokenBudget
from rxstage.providers.scripted import ScriptedProvider
from rxstage.stages.prompt import PromptAssemblyStage
from rxstage.stages.provider import ProviderStage
from rxstage.testing import check_stage, run_virtual, virtual

END = StreamElement.end_of_turn


async def execute(source: Any, *stages: Stage) -> tuple[list[StreamElement], list[Event], BaseException | None]:
    """What comes out, the events, and the error."""
    execution = Pipeline.of(*stages).execute(source, raise_on_error=False)
    events: list[Event] = []
    execution.events.subscribe(events.append)
    result = await execution
    return list(result.elements), events, result.error


def run(source: Any, *stages: Stage) -> list[StreamElement]:
    elements, _, error = run_virtual(execute(source, *stages))
    assert error is None, error
    return elements


def failure(source: Any, *stages: Stage) -> StageError:
    error = run_virtual(execute(source, *stages))[2]
    assert isinstance(error, StageError)
    return error


def shown(elements: list[StreamElement]) -> list[str]:
    """Role and text of what instructs, the text of the rest, or the kind."""
    return [
        f"{e.message.role}: {e.message.text}"
        if e.message is not None and PROMPT in e.metadata
        else e.text or (e.message.text if e.message is not None else type(e.content).__name__)
        for e in elements
    ]


async def count(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A variable provider."""
    await asyncio.sleep(0.1)
    return {"count": len(text)}


# ------------------------------------------------------------------------------------------ where and when


def test_before_the_end_of_a_turn() -> None:
    """Content goes on as it comes, and the messages stand right before what ends the turn."""
    stage = PromptAssemblyStage(template="You are {{ name }}.", examples=[("Hi", "Ho")], variables={"name": "Bob"})
    assert shown(run(["one ", "two", END(), Message.user("three"), "four"], stage)) == [
        "one ", "two", "system: You are Bob.", "user: Hi", "assistant: Ho", "EndOfTurn",
        "system: You are Bob.", "user: Hi", "assistant: Ho", "three",
        "four", "system: You are Bob.", "user: Hi", "assistant: Ho",
    ]  # fmt: skip


def test_the_envelope() -> None:
    """A message of the prompt has the metadata of its turn, its mark, and the stage as its source."""
    stage = PromptAssemblyStage("system", template="x")
    elements = run([StreamElement.of("a", metadata={"k": 1}), StreamElement.of("b", metadata={"k": 2, "l": 3})], stage)
    message = elements[-1]
    assert message.metadata == {"k": 2, "l": 3, PROMPT: "system"}
    assert message.source == "system"
    assert message.sequence == elements[1].sequence


def test_nothing_for_an_empty_turn() -> None:
    """An end of a turn in which nothing came, what is only shown, and the end of the input get no prompt."""
    stage = PromptAssemblyStage(template="x")
    history = StreamElement.of(Message.user("old"), metadata={HISTORY: True})
    told = StreamElement.of(Message.system("y"), metadata={PROMPT: "other"})
    assert shown(run([END(), Message.user("a"), END(), history, told, END()], stage)) == [
        "EndOfTurn", "system: x", "a", "EndOfTurn", "old", "system: y", "EndOfTurn",
    ]  # fmt: skip
    assert run([], stage) == []


def test_turns_that_a_control_ends() -> None:
    """With `turns="control"` a user's message is content like any other."""
    stage = PromptAssemblyStage(template="x", turns="control")
    assert shown(run([Message.user("a"), Audio(b"", 8000), END()], stage)) == ["a", "Audio", "system: x", "EndOfTurn"]


def test_an_interrupt_forgets_the_turn() -> None:
    """What came before an interrupt makes no prompt after it."""
    stage = PromptAssemblyStage(template="{{ count }}", providers=(count,))

    async def source() -> Any:
        yield "lost"
        await asyncio.sleep(1)
        yield StreamElement.interrupt()
        yield END()
        yield "ab"
        yield END()

    assert shown(run(source(), stage)) == ["lost", "Interrupt", "EndOfTurn", "ab", "system: 2", "EndOfTurn"]


def test_an_interrupt_while_a_provider_works() -> None:
    """An interrupt cancels the providers of its turn at once, and the next turn is instructed."""
    cancelled: list[float] = []

    async def slow(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time())
            raise
        return {"text": text}

    async def source() -> Any:
        yield "lost"
        yield END()
        await asyncio.sleep(2)
        yield StreamElement.interrupt()
        yield "kept"
        yield END()

    stage = PromptAssemblyStage(template="{{ text }}", providers=(slow,))
    assert shown(run(source(), stage)) == ["lost", "Interrupt", "EndOfTurn", "kept", "system: kept", "EndOfTurn"]
    assert cancelled == [2.0]


def test_33_once_for_each_turn() -> None:
    """CASE 33: with a history of 2000 messages the prompt is rendered once per turn, and not per element."""
    asked: list[str] = []

    def note(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(text)
        return {"n": len(asked)}

    provider = ScriptedProvider(default="yes")
    source = [value for turn in range(1000) for value in (*"word" * 2, END())]

    async def main() -> tuple[list[StreamElement], list[Event], BaseException | None]:
        return await execute(
            source, PromptAssemblyStage(template="Turn {{ n }}.", providers=(note,)), ProviderStage(provider=provider)
        )

    _, events, error = run_virtual(main)
    assert error is None
    assert len(asked) == 1000
    assert set(asked) == {"wordword"}
    assert sum(event.type == "prompt.rendered" for event in events) == 1000
    newest = provider.calls[-1].messages
    assert len(newest) == 1 + 1999
    assert [message.text for message in newest if message.role == "system"] == ["Turn 1000."]


def test_what_a_model_gets() -> None:
    """The model gets the prompt with every turn, and the history does not keep it."""
    provider = ScriptedProvider("one", "two")
    stage = PromptAssemblyStage(template="You are {{ name }}.", examples=[("Hi", "Ho")])
    run(
        [StreamElement.of(Message.user(text), metadata={"name": name}) for text, name in (("a", "A"), ("b", "B"))],
        stage,
        ProviderStage(provider=provider),
    )
    assert [[message.text for message in call.messages] for call in provider.calls] == [
        ["You are A.", "Hi", "Ho", "a"],
        ["You are B.", "Hi", "Ho", "a", "one", "b"],
    ]


# ------------------------------------------------------------------------------------------ variables


def test_the_later_wins() -> None:
    """The prompt's own variables, those of the stage, the metadata, its mapping, and the providers: the later wins."""
    prompt = Prompt(system="{{ a }}{{ b }}{{ c }}{{ d }}{{ e }}{{ f }}", variables=dict.fromkeys("abcdef", 1))

    async def one(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {"e": 5, "f": 5}

    def two(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {"f": 6}

    stage = PromptAssemblyStage(prompt=prompt, variables=dict.fromkeys("bcdef", 2), providers=(one, two))
    metadata = {**dict.fromkeys("cdef", 3), "variables": dict.fromkeys("def", 4)}
    assert shown(run([StreamElement.of("x", metadata=metadata)], stage))[1] == "system: 123456"


def test_metadata_that_may_not_say_everything() -> None:
    """With `from_metadata` only those variables are taken from the metadata."""
    stage = PromptAssemblyStage(
        template="{{ role }} {{ name }}", variables={"role": "clerk", "name": "?"}, from_metadata=("name", "other")
    )
    element = StreamElement.of("x", metadata={"role": "admin", "variables": {"name": "Ann", "role": "admin"}})
    assert shown(run([element], stage))[1] == "system: clerk Ann"


def test_providers_work_side_by_side() -> None:
    """Providers are asked at the same time, with the turn's text and metadata, and may ask for the context."""
    begun: list[tuple[str, float, Any]] = []

    async def one(text: str, metadata: Mapping[str, Any], *, context: StageContext) -> dict[str, Any]:
        begun.append((text, context.now(), dict(metadata)))
        await context.sleep(3)
        return {"a": context.stage}

    async def two(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        begun.append((text, asyncio.get_running_loop().time(), dict(metadata)))
        await asyncio.sleep(3)
        return {"b": 2}

    async def main() -> float:
        stage = PromptAssemblyStage("p", template="{{ a }}{{ b }}", providers=(one, two))
        elements, _, error = await execute([StreamElement.of("x", metadata={"k": 1})], stage)
        assert error is None
        assert shown(elements)[1] == "system: p2"
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 3.0
    assert begun == [("x", 0.0, {"k": 1}), ("x", 0.0, {"k": 1})]


def test_a_missing_variable() -> None:
    """A variable that nobody sets ends the execution with an error that says which, where, and what to do."""
    stage = PromptAssemblyStage("assemble", prompt=Prompt(id="shop", version="3", system="Hi\n{{ nam }}"))
    error = failure([StreamElement.of("x", metadata={"name": "Ann"})], stage)
    assert error.stage == "assemble"
    assert isinstance(error.__cause__, MissingVariable)
    assert error.__cause__.variable == "nam"
    for words in (
        "stage 'assemble'",
        "prompt 'shop@3' (system, line 2)",
        "the variable 'nam' is not set (did you mean 'name'?)",
        "give it in variables=, in the metadata of the turn, by one of providers=",
    ):
        assert words in str(error)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raising", "the variable provider 'raising' failed: ValueError: no profile"),
        ("hanging", "the variable providers took more than 10 s: hanging; make them faster, or raise timeout="),
        ("cancelling", "the variable provider 'cancelling' was cancelled from inside"),
        ("listing", r"the variable provider 'listing' has to give a mapping of variables, got \['a'\]"),
    ],
)
def test_providers_that_fail(name: str, problem: str) -> None:
    """A provider that raises, hangs, cancels itself or gives no mapping is named, and the others are stopped."""
    stopped: list[bool] = []

    async def other(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            stopped.append(True)
            raise
        return {}

    async def raising(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError("no profile")

    async def hanging(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def cancelling(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        raise asyncio.CancelledError

    async def listing(text: str, metadata: Mapping[str, Any]) -> Any:
        return ["a"]

    provider = {"raising": raising, "hanging": hanging, "cancelling": cancelling, "listing": listing}[name]
    error = failure(["x"], PromptAssemblyStage(template="x", providers=(other, provider)))
    with pytest.raises(PromptError, match=problem):
        raise error.__cause__ or error
    assert stopped == ([True] if name in ("raising", "cancelling") else [])


def test_variables_in_the_metadata_that_are_none() -> None:
    """What stands under `variables` in the metadata has to be a mapping."""
    error = failure([StreamElement.of("x", metadata={"variables": "name"})], PromptAssemblyStage(template="x"))
    assert "'variables' in the metadata of a turn is a mapping of variables, got 'name'" in str(error)


def test_limits() -> None:
    """Rendering is bounded by the limits of the stage."""
    stage = PromptAssemblyStage(template="{{ a }}", limits=RenderLimits(characters=10))
    error = failure([StreamElement.of("x", metadata={"a": "x" * 11})], stage)
    assert "of 11 characters, and may make 10" in str(error)


# ------------------------------------------------------------------------------------------ a turn that fails


def test_a_turn_whose_prompt_fails_is_not_answered() -> None:
    """With `on_error="emit"` a `Failure` takes the place of the turn; the session lives, the next one is answered."""
    provider = ScriptedProvider(default="yes")
    stage = PromptAssemblyStage("p", template="You are {{ name }}.", on_error="emit")
    good = {"name": "Bob"}
    elements, events, error = run_virtual(
        execute(
            [
                Message.user("lost"),
                "lost ", "too", END(),
                StreamElement.of(Message.user("kept"), metadata=good),
                StreamElement.of("and ", metadata=good), "this", END(),
                "lost at the end",
            ],
            stage,
            ProviderStage(provider=provider),
        )
    )  # fmt: skip
    assert error is None
    failures = [element.failure for element in elements if element.failure is not None]
    assert [(failed.stage, type(failed.error)) for failed in failures] == [("p", MissingVariable)] * 3
    assert [[message.text for message in call.messages] for call in provider.calls] == [
        ["You are Bob.", "kept"],
        ["You are Bob.", "kept", "yes", "and this"],
    ]
    assert sum(event.type == "prompt.failed" for event in events) == 3


def test_with_emit_a_turn_is_held() -> None:
    """With `on_error="emit"` nothing of a turn goes on before its prompt is there; what is under way is not held up."""
    stage = PromptAssemblyStage(template="{{ count }}", providers=(count,), on_error="emit")

    async def source() -> Any:
        yield "a"
        yield Data("a decision")
        yield StreamElement.of(ValueError("x"))
        await asyncio.sleep(1)
        yield END()

    elements = run(source(), stage)
    assert shown(elements) == ["Data", "Failure", "a", "system: 1", "EndOfTurn"]


def test_what_was_not_held_fails_for_good() -> None:
    """A turn with `Data`, which is not held, fails the execution: it might be answered without its instructions."""
    error = failure(["a", Data("x"), END()], PromptAssemblyStage(template="{{ no }}", on_error="emit"))
    assert isinstance(error.__cause__, MissingVariable)


def test_an_interrupt_takes_what_is_held() -> None:
    """What is held of an interrupted turn goes nowhere."""
    stage = PromptAssemblyStage(template="x", on_error="emit")
    assert shown(run(["lost", StreamElement.interrupt(), "kept", END()], stage)) == [
        "Interrupt", "kept", "system: x", "EndOfTurn",
    ]  # fmt: skip


def test_a_turn_that_is_too_long_to_hold() -> None:
    """More than 10,000 elements of one turn are not held; the error says what to do."""
    error = failure(["x"] * 10_001, PromptAssemblyStage(template="x", on_error="emit"))
    assert "more than 10000 elements" in str(error)


# ------------------------------------------------------------------------------------------ registries


def test_a_prompt_of_a_registry(tmp_path: Path) -> None:
    """A prompt is named by id and version, in a registry or its folder, and marks its messages so."""
    (tmp_path / "help@1.md").write_text("One.")
    (tmp_path / "help@2.md").write_text("Two.")
    newest = PromptAssemblyStage(prompt="help", registry=PromptRegistry(tmp_path))
    first = PromptAssemblyStage(prompt="help@1", registry=tmp_path)
    for stage, text, mark in ((newest, "Two.", "help@2"), (first, "One.", "help@1")):
        message = run(["x"], stage)[1]
        assert (message.message, message.metadata[PROMPT]) == (Message.system(text), mark)


def test_a_registry_that_reloads(tmp_path: Path) -> None:
    """An edit is seen by the next turn; a broken one is told of once, and the last good version goes on."""
    path = tmp_path / "help.md"
    path.write_text("One.")
    stage = PromptAssemblyStage(prompt="help", registry=PromptRegistry(tmp_path, reload=True))
    texts = iter(["Two.", "{{ broken", "{{ broken", "Three."])

    async def source() -> Any:
        yield Message.user("0")
        for number, text in enumerate(texts, start=1):
            await asyncio.sleep(1)
            path.write_text(text)
            os.utime(path, ns=(number, number + 10**9))
            yield Message.user(str(number))

    elements, events, error = run_virtual(execute(source(), stage))
    assert error is None
    assert [e.message.text for e in elements if e.message is not None and PROMPT in e.metadata] == [
        "One.", "Two.", "Two.", "Two.", "Three.",
    ]  # fmt: skip
    told = [event.data["error"] for event in events if event.type == "prompt.reload.failed"]
    assert told == ["help.md:1: unexpected end of template, expected 'end of print statement'."]


# ------------------------------------------------------------------------------------------ the rest


def test_a_budget_is_applied() -> None:
    """With a budget, the model gets what fits: the instructions, the newest turn, and of the rest what is newest."""
    provider = ScriptedProvider(default="yes")
    stage = PromptAssemblyStage(template="s", budget=TokenBudget(max_tokens=40, counter=lambda _: 10))
    run([Message.user(str(number)) for number in range(5)], stage, ProviderStage(provider=provider))
    assert [message.text for message in provider.calls[-1].messages] == ["s", "3", "yes", "4"]


def test_a_budget_that_fails() -> None:
    """A budget that raises fails the stage that would have answered, with both numbers."""
    stage = PromptAssemblyStage(template="s", budget=TokenBudget(max_tokens=30, counter=lambda _: 10, strategy="fail"))
    error = failure([Message.user("a"), Message.user("b")], stage, ProviderStage("ask", provider=ScriptedProvider("y")))
    assert error.stage == "ask"
    assert "comes to 40 tokens, and the budget has room for 30" in str(error)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "either a template or a prompt"),
        ({"template": "x", "prompt": Prompt(system="x")}, "either a template or a prompt"),
        ({"prompt": "help"}, "prompt='help' is an id; give it a registry"),
        ({"template": "x", "registry": "."}, "a registry is asked for the id"),
        ({"prompt": Prompt(system="x"), "examples": [("a", "b")]}, "examples and fragments go with a template"),
        ({"template": "x", "providers": ("a",)}, "providers are functions"),
        ({"template": "{{ x"}, "unexpected end of template"),
        ({"template": "{% include 'x' %}"}, "there is no fragment 'x'"),
        ({"template": "x", "on_error": "skip"}, "'fail' or 'emit'"),
        ({"template": "x", "examples": ["a"]}, "examples"),
        ({"template": "x", "turns": "never"}, "'message' or 'control'"),
    ],
)
def test_bad_options(options: dict[str, Any], problem: str) -> None:
    """What cannot work is an error where the stage is made."""
    with pytest.raises((ValueError, TypeError, PromptError), match=problem):
        PromptAssemblyStage(**options)


def test_an_id_that_is_not_there(tmp_path: Path) -> None:
    """A prompt that the registry has not got is an error where the stage is made."""
    with pytest.raises(PromptError, match="there is no prompt 'help'"):
        PromptAssemblyStage(prompt="help", registry=tmp_path)


def test_examples_in_both_forms() -> None:
    """Examples are pairs or `Example` objects."""
    stage = PromptAssemblyStage(template="", examples=[("a", "b"), Example(user="c", assistant="d")])
    assert shown(run(["x"], stage))[1:] == ["user: a", "assistant: b", "user: c", "assistant: d"]


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        ({}, None),
        ({"on_error": "emit"}, [Message.user("a"), "b", END(), Message.user("c")]),
        ({"turns": "control"}, None),
    ],
    ids=["fail", "emit", "control"],
)
def test_laws(options: dict[str, Any], inputs: Any) -> None:
    """It keeps the laws of a stage."""
    report = check_stage(lambda: PromptAssemblyStage(template="{{ count }}", providers=(count,), **options), inputs)
    assert {"controls", "interrupt", "metadata", "independent", "capacity_one"} <= set(report.kept)


@virtual
async def test_conversations_do_not_mix() -> None:
    """Executions of one stage at the same time have turns of their own."""
    pipeline = Pipeline.of(PromptAssemblyStage(template="{{ name }}", providers=(count,)))
    results = await asyncio.gather(
        *(pipeline.execute([StreamElement.of("x", metadata={"name": str(number)})]) for number in range(8))
    )
    assert [shown(list(result.elements))[1] for result in results] == [f"system: {number}" for number in range(8)]


def test_as_a_spec() -> None:
    """A stage with a template, examples and a budget goes into a spec and comes out of it."""
    stage = PromptAssemblyStage(
        "p", template="{{ a }}", examples=[("b", "c")], variables={"a": 1}, budget=TokenBudget(max_tokens=100)
    )
    again = Pipeline.from_spec(Pipeline.of(stage).to_spec().to_json(), allow_imports=("rxstage",))
    assert shown(list(again.run(["x"], timeout=20).elements)) == ["x", "system: 1", "user: b", "assistant: c"]


@pytest.mark.parametrize("module", ["jinja2", "yaml"])
def test_without_the_extra(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library is missing, the error names the extra that brings it."""
    (tmp_path / "a.yaml").write_text("system: x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'rxstage\[prompts\]'"):
        PromptAssemblyStage(prompt="a", registry=tmp_path)


def test_nothing_is_imported_before_it_is_needed() -> None:
    """The stages import neither jinja2 nor YAML until a prompt is made."""
    modules = "rxstage.stages.prompt", "rxstage.stages.retrieval", "rxstage.stages.compaction", "rxstage.stages.media"
    program = f"import sys, {', '.join(modules)}; print(sorted({{'jinja2', 'yaml'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
