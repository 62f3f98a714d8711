"""Making tools of functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from rxstage.content import ToolCall
from rxstage.ports.provider import ToolSpec
from rxstage.tools import Tool, ToolContext, tool
from rxstage.tools.schema import ArgumentsError


@tool
def weather(city: str, days: int = 1) -> str:
    """Tells the weather.

    For the next days.

    Args:
        city: where.
    """
    return f"{city}: sun for {days} days"


def test_the_decorator() -> None:
    """A decorated function has a name, a description, a schema and all defaults, and can be called as before."""
    assert weather("Bonn", days=2) == "Bonn: sun for 2 days"
    assert weather.spec == ToolSpec(
        "weather",
        "Tells the weather.\n\nFor the next days.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where."},
                "days": {"type": "integer", "default": 1},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    assert (weather.timeout, weather.schedule, weather.approval, weather.interruptible, weather.external) == (
        None,
        "turn",
        False,
        True,
        False,
    )
    assert repr(weather) == "Tool('weather')"


def test_options() -> None:
    """The decorator takes a name, a description and the options of a tool."""

    @tool(name="other", description="Another one.", timeout=3, schedule="silent", approval=True, interruptible=False)
    async def mine() -> int:
        """Not this."""
        return 1

    assert (mine.name, mine.description) == ("other", "Another one.")
    assert (mine.timeout, mine.schedule, mine.approval, mine.interruptible) == (3, "silent", True, False)
    assert asyncio.run(mine()) == 1


def test_methods_and_other_callables() -> None:
    """Bound methods, partial functions and callable objects are tools, too."""

    class Shop:
        def __init__(self, sold: list[str]) -> None:
            self.sold = sold

        def buy(self, what: str) -> str:
            """Buys."""
            self.sold.append(what)
            return what

        def __call__(self, what: int) -> int:
            return what

    shop = Shop([])
    buy = tool(shop.buy)
    assert buy.name == "buy"
    assert list(buy.parameters["properties"]) == ["what"]
    assert buy("bread") == "bread"
    assert shop.sold == ["bread"]
    assert tool(shop, name="shop").parameters["properties"] == {"what": {"type": "integer"}}
    rain = tool(partial(weather.function or str, "Rom"), name="rain")
    assert list(rain.parameters["properties"]) == ["days"]
    with pytest.raises(TypeError, match="has no name of its own"):
        tool(shop)
    with pytest.raises(TypeError, match="'buy' is a method without its object; take the bound method"):
        tool(Shop.buy)
    with pytest.raises(TypeError, match="takes a function, got 3"):
        tool(3)  # type: ignore[call-overload]


def test_external() -> None:
    """An external tool has no function; it says so, and takes the options of any tool."""
    pay = Tool.external("pay", "Pays.", {"type": "object", "properties": {"sum": {"type": "number"}}}, approval=True)
    assert pay.external
    assert pay.approval is True
    assert pay.spec.description == "Pays."
    with pytest.raises(TypeError, match="'pay' is external: the application answers its calls"):
        pay()


def test_from_schema() -> None:
    """A tool with a schema of its own gets the arguments as they are; of the schema the names are checked."""
    parameters = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"], "additionalProperties": False}
    raw = Tool.from_schema(lambda arguments, context: arguments, name="raw", parameters=parameters)
    assert raw.fit({"a": [1]}) == {"a": [1]}
    with pytest.raises(ArgumentsError, match=r"^a: is missing; c: there is no such argument. Its arguments are: a, b."):
        raw.fit({"b": 1, "c": 2})
    lenient = Tool.from_schema(print, name="lenient")
    assert lenient.fit({"c": 2}) == {"c": 2}


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "ü", "<lambda>", "a\n", "a.b"])
def test_names(name: str) -> None:
    """A name that the APIs of models do not take is refused."""
    with pytest.raises(ValueError, match="a tool's name has 1 to 64 letters"):
        Tool(name=name)


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"timeout": 0}, ValueError, "'x': timeout must be above 0 s, got 0"),
        ({"schedule": "later"}, ValueError, "'x': schedule must be one of turn, interrupt, when_idle, silent, got"),
        ({"function": 3}, TypeError, "'x' needs a function, got 3"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], error: type[Exception], why: str) -> None:
    """Options that mean nothing are refused."""
    with pytest.raises(error, match=why):
        Tool(name="x", **options)


def test_it_is_frozen_and_itself() -> None:
    """A tool does not change, and is equal to itself alone."""
    with pytest.raises(AttributeError):
        weather.name = "other"  # type: ignore[misc]
    assert weather != tool(weather.function or str)
    assert len({weather, weather}) == 1


def test_needs_approval() -> None:
    """Approval is asked for always, never, or as a function says; one that raises is taken for a yes."""

    def expensive(call: ToolCall) -> bool:
        return bool(call.arguments["sum"] > 10)

    async def slow(call: ToolCall) -> bool:
        return expensive(call)

    def asked(approval: Any, amount: Any) -> bool:
        call = ToolCall("pay", {"sum": amount}, "1")
        return asyncio.run(Tool(name="pay", approval=approval).needs_approval(call))

    assert [asked(True, 1), asked(False, 1)] == [True, False]
    assert [asked(each, amount) for each in (expensive, slow) for amount in (1, 11)] == [False, True, False, True]
    assert asked(expensive, "much") is True


def test_the_context_is_no_argument() -> None:
    """A parameter of the type `ToolContext`, or a bare `context`, is not the model's; another `context` is."""

    @tool
    def one(x: int, ctx: ToolContext) -> None: ...

    @tool
    def two(context, x: int) -> None:  # type: ignore[no-untyped-def]
        ...

    @tool
    def three(context: str, other: ToolContext | None = None) -> None: ...

    assert [list(each.parameters["properties"]) for each in (one, two, three)] == [["x"], ["x"], ["context"]]


def test_types_are_kept() -> None:
    """What a type checker knows of a function, it knows of the tool."""

    @tool
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)

    total: int = sum(numbers(n=4))
    assert total == 6
