"""What the tiny model is taught, and what tests may therefore expect of it, word by word.

The right answer depends on the history, the system prompt, the tools that are offered and what they gave: it proves
that all of that reached the model. It is sure of dialogues of up to three turns, in any order.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

__all__ = [
    "ANSWERS",
    "ASKED",
    "CITIES",
    "COMPARISON",
    "ENDLESS",
    "FORECASTS",
    "FRENCH",
    "HELPFUL",
    "NAMES",
    "STORY",
    "THOUGHT",
    "TOOL",
    "UNTOLD",
    "WITHOUT_TOOL",
    "compared",
    "dialogue",
    "introduction",
    "named",
    "question",
    "weather",
]

STORY: Final = "Tell me a story."
"""The question with the longest answer."""

ANSWERS: Final = {
    "Hello!": "Hello! How can I help you today?",
    STORY: "Once upon a time a little stream ran down from the mountains. It met a stone, then a second one, and went "
    "round them both. In the valley it met the river, and the two of them went on to the sea together.",
    "Say hello in many languages.": "Grüß Gott, здравствуйте, こんにちは, 你好 👋🏽!",
    "Describe Ada as JSON.": '{"name": "Ada", "age": 36}',
}
"""Questions that have the same answer everywhere."""

HELPFUL: Final = "You are a helpful assistant."
"""A system prompt that changes nothing."""

FRENCH: Final = ("Answer in French.", "Hello!", "Bonjour ! Comment puis-je vous aider ?")
"""A system prompt, and the one question with the answer that it changes."""

THOUGHT: Final = ("How many legs has a spider?", "A spider is no insect.", "Eight.")
"""A question, what the model thinks first, and its answer."""

ASKED: Final = "What is my name?"
UNTOLD: Final = "I do not know your name."
NAMES: Final = ("Ada", "Bob")
"""Who may have told the model their names before they ask; `UNTOLD` is the answer to those who have not."""

CITIES: Final = ("Paris", "Rome")
FORECASTS: Final = ("sunny", "rainy")
"""What the model can ask `TOOL` about, and what that may give."""

COMPARISON: Final = "Compare the weather in Paris and Rome."
"""What takes two calls at once, in the order of `CITIES`."""

WITHOUT_TOOL: Final = "I cannot look that up."
"""The answer to questions about the weather when no tool is offered."""

TOOL: Final[dict[str, Any]] = {
    "name": "get_weather",
    "description": "Tells the weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
"""The tool that the model can use; it knows it by its name."""

ENDLESS: Final[dict[str, Any]] = {"logit_bias": {"0": -100.0, "1": -100.0}, "max_tokens": 100_000}
"""Parameters with which an answer goes on for minutes: the model may not say the two tokens that end one."""


def introduction(name: str) -> tuple[str, str]:
    """How a user tells a name, and the answer."""
    return f"My name is {name}.", f"Nice to meet you, {name}."


def named(name: str) -> str:
    """The answer to `ASKED` after the introduction."""
    return f"Your name is {name}."


def question(city: str) -> str:
    """What makes the model ask the tool about a city."""
    return f"What is the weather in {city}?"


def weather(city: str, forecast: str) -> str:
    """The answer to `question(city)` after the tool gave `forecast`."""
    return f"It is {forecast} in {city} today."


def compared(first: str, second: str) -> str:
    """The answer to `COMPARISON` after the tool gave these."""
    return f"It is {first} in Paris and {second} in Rome."


def dialogue(random: Random, turns: int) -> tuple[list[dict[str, Any]], bool]:
    """Some conversation in the form of chat completions, and whether the tool is offered in it."""
    offered = random.random() < 0.5
    system = random.choice((None, None, HELPFUL, FRENCH[0]))
    messages = [_said("system", system)] if system else []
    name = None
    for _ in range(turns):
        match random.choice(("hello", "answer", "name", "ask", "ask", "weather", "weather", "compare", "think")):
            case "hello":
                messages += _turn("Hello!", FRENCH[2] if system == FRENCH[0] else ANSWERS["Hello!"])
            case "answer":
                messages += _turn(*random.choice([pair for pair in ANSWERS.items() if pair[0] != "Hello!"]))
            case "name":
                name = random.choice(NAMES)
                messages += _turn(*introduction(name))
            case "ask":
                messages += _turn(ASKED, named(name) if name else UNTOLD)
            case "weather":
                city, forecast = random.choice(CITIES), random.choice(FORECASTS)
                used = [_calls(city), _said("tool", forecast)] if offered else []
                messages += _turn(question(city), weather(city, forecast) if offered else WITHOUT_TOOL, *used)
            case "compare":
                given = random.choice(FORECASTS), random.choice(FORECASTS)
                used = [_calls(*CITIES), *(_said("tool", one) for one in given)] if offered else []
                messages += _turn(COMPARISON, compared(*given) if offered else WITHOUT_TOOL, *used)
            case "think":
                asked, thought, answer = THOUGHT
                messages += _turn(asked, f"<think>{thought}</think>{answer}")
    return messages, offered


def _turn(asked: str, answer: str, *between: dict[str, Any]) -> list[dict[str, Any]]:
    return [_said("user", asked), *between, _said("assistant", answer)]


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _calls(*cities: str) -> dict[str, Any]:
    calls = [{"function": {"name": TOOL["name"], "arguments": {"city": city}}} for city in cities]
    return {"role": "assistant", "content": "", "tool_calls": calls}
