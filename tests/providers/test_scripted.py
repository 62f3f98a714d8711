"""The provider that answers by a script."""

from __future__ import annotations

import asyncio

import pytest
from calls import ask, asking, text_of

from rxstage import Message, ToolCall, ToolResult, Usage
from rxstage.ports import Finish, ModelRequest, ProviderError, Thinking
from rxstage.providers import Reply, Rule, ScriptedProvider
from rxstage.testing import run_virtual


def test_answers_come_one_after_the_other() -> None:
    """Each call takes the next answer, word by word, and ends with one `Finish` that counts words as tokens."""
    provider = ScriptedProvider("Hello, you there!", "Bye.")
    assert run_virtual(ask(provider, "one two")) == [
        "Hello,",
        " you",
        " there!",
        Finish("stop", Usage(2, 3), "script"),
    ]
    assert text_of(run_virtual(ask(provider, "x"))) == "Bye."
    assert [request.messages[0].text for request in provider.calls] == ["one two", "x"]


def test_white_space_is_kept() -> None:
    """The words together are the text to the letter."""
    text = "  a\n\n```\n  b\n```\n "
    assert text_of(run_virtual(ask(ScriptedProvider(text), "x"))) == text


def test_rules_come_first() -> None:
    """A rule that matches the newest message answers; a function gets the request and the match; then the answers."""

    async def slow(request: ModelRequest) -> str:
        await asyncio.sleep(5)
        return f"{len(request.messages)} message(s)"

    provider = ScriptedProvider(
        "from the script",
        rules=[
            Rule("weather in (\\w+)", lambda request, found: f"Rain in {found[1]}."),
            Rule(lambda request: len(request.messages) > 1, slow),
        ],
        default=lambda request: "default",
    )
    assert text_of(run_virtual(ask(provider, "The WEATHER in Rome?"))) == "Rain in Rome."
    assert text_of(run_virtual(ask(provider, "a", "b"))) == "2 message(s)"
    assert text_of(run_virtual(ask(provider, "a"))) == "from the script"
    assert text_of(run_virtual(ask(provider, "a"))) == "default"


def test_an_empty_script_says_so() -> None:
    """Without an answer left the call fails, and the error says what to add."""
    with pytest.raises(ProviderError, match="no answer left to 'What\\?'; give it one more answer"):
        run_virtual(ask(ScriptedProvider(), "What?"))


def test_tool_calls_and_thinking() -> None:
    """A `ToolCall`, or several, finish with `tool_calls`; thinking comes first."""
    calls = [ToolCall("add", {"a": 1}, "1"), ToolCall("add", {"a": 2}, "2")]
    provider = ScriptedProvider(calls, Reply(thinking="Hm.", text="So.", usage=Usage(1, 2, 0.5)))
    assert run_virtual(ask(provider, "x")) == [*calls, Finish("tool_calls", Usage(1, 0), "script")]
    assert run_virtual(ask(provider, "x")) == [Thinking("Hm."), "So.", Finish("stop", Usage(1, 2, 0.5), "script")]


def test_a_rule_sees_the_result_of_a_tool() -> None:
    """Where the newest message is a tool's, its values are what rules match."""
    provider = ScriptedProvider(rules=[Rule("42", "found")])
    request = ModelRequest(messages=(Message.user("x"), Message("tool", (ToolResult("1", 42),))))

    async def events() -> list[object]:
        return [event async for event in provider.stream(request)]

    assert run_virtual(events())[0] == "found"


def test_timing() -> None:
    """`delay` before the first token, `token_delay` before each other one."""

    async def times() -> list[float]:
        loop = asyncio.get_running_loop()
        provider = ScriptedProvider("a b c", delay=2.0, token_delay=0.5)
        return [loop.time() async for event in provider.stream(asking("x")) if isinstance(event, str)]

    assert run_virtual(times()) == [2.0, 2.5, 3.0]


def test_faults() -> None:
    """An exception is raised, after some tokens where the reply says so; one that stalls sends nothing more."""
    provider = ScriptedProvider(
        ProviderError("busy", status=429, retryable=True),
        Reply(text="a b c", error=ProviderError("cut"), error_after=2),
        Reply(text="a b", stalls=True),
    )

    async def collect(seen: list[object]) -> None:
        async for event in provider.stream(asking("x")):
            seen.append(event)  # noqa: PERF401 - what came before an error counts

    with pytest.raises(ProviderError, match="busy"):
        run_virtual(collect([]))
    cut: list[object] = []
    with pytest.raises(ProviderError, match="cut"):
        run_virtual(collect(cut))
    assert cut == ["a", " b"]
    stalled: list[object] = []
    with pytest.raises(TimeoutError):
        run_virtual(asyncio.wait_for(collect(stalled), 1000))
    assert stalled == ["a", " b"]


def test_a_wrong_answer_is_refused() -> None:
    """What is no answer is named."""
    with pytest.raises(TypeError, match="must be a str, a Reply, a ToolCall or several, or an exception, got 3"):
        run_virtual(ask(ScriptedProvider(lambda request: 3), "x"))


def test_price() -> None:
    """A price per token makes a cost."""
    events = run_virtual(ask(ScriptedProvider("a b", price=0.5), "x y"))
    assert events[-1] == Finish("stop", Usage(2, 2, 2.0), "script")
