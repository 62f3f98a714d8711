"""A partner for conversations without a network, a key or a model: a script that knows what was said."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any, Final

from rxstage.content import ToolCall, ToolResult
from rxstage.ports.provider import ModelRequest
from rxstage.ports.stt import UNINTELLIGIBLE
from rxstage.providers.scripted import Answer, Rule, ScriptedProvider, newest_text

__all__ = ["LocalProvider"]

_NAME: Final = re.compile(r"\b(?:my name is|call me)\s+([^\W\d_][\w'-]*)", re.IGNORECASE)
_SUM: Final = re.compile(r"[-+(]*\d[\d.\s()]*[-+*/%][-+*/%\d.\s()]*[\d)]")
_NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WORDS: Final = {word: str(number) for number, word in enumerate(_NUMBERS)} | {
    "plus": "+",
    "minus": "-",
    "times": "*",
    "over": "/",
}
_SPOKEN: Final = re.compile(
    rf"\b(?:{'|'.join(_WORDS)})\b(?:\s+(?:(?:divided\s+)?by|{'|'.join(_WORDS)}))+", re.IGNORECASE
)
_HELP: Final = """\
I am a **script**, not a model: I answer without a network or a key, so that you can try the rest. I can

- remember: tell me `my name is …`, and ask `what is my name?` later, even after a restart
- recall: `what did I say?`, `how many messages?`
- calculate: `what is 6 * 7?`
- show what a streamed answer looks like: `show markdown`

For a real model, give one: `--model openai:gpt-5.2`, `--model ollama:llama3.2`, `--base-url http://localhost:8080/v1`.
"""
_NOT_UNDERSTOOD: Final = (
    "I did not understand that. I am a script and know few sentences: ask me what six times seven is, tell me your "
    "name, or say: what can you do?"
)
_MARKDOWN: Final = """\
# A heading

Some *emphasis*, some **strength**, and `code`:

```python
print("streamed")
```

| stage | what it does |
| --- | --- |
| prompt | instructs |
| provider | answers |

1. first
2. second
"""


class LocalProvider(ScriptedProvider):
    """Answers by rules, from what was said in the conversation. The default where no model is given.

    Args:
        delay: seconds before the first word.
        token_delay: seconds before each further word.
    """

    name = "local"

    def __init__(self, *, delay: float = 0.0, token_delay: float = 0.0) -> None:
        super().__init__(
            rules=[
                Rule(_after_tool, _tell_result),
                Rule(re.escape(UNINTELLIGIBLE), _NOT_UNDERSTOOD),
                Rule(r"^\s*(help|what can you do|who are you|\?)\b", _HELP),
                Rule(r"\bmarkdown\b", _MARKDOWN),
                Rule(_NAME.pattern, lambda request, found: f"Nice to meet you, {found[1]}. I will remember that."),
                Rule(r"\b(what is|what's|do you (know|remember)) my name\b|\bwho am i\b", _tell_name),
                Rule(r"\bwhat did (i|we) (say|talk|tell|ask)|\brecall\b", _recall),
                Rule(r"\bhow many messages\b", _count),
                Rule(_SUM.pattern, _calculate),
                Rule(_spoken_sum, _calculate),
                Rule(r"^\s*(hi|hello|hey|good (morning|evening|day))\b", _greet),
                Rule(r"\b(thanks|thank you)\b", "You are welcome."),
                Rule(r"\b(bye|goodbye)\b", "Goodbye. What was said here is kept where you asked me to keep it."),
            ],
            default=_reflect,
            delay=delay,
            token_delay=token_delay,
            model="script",
        )


def _said(request: ModelRequest) -> list[str]:
    """What the user said before the newest message."""
    return [message.text for message in request.messages if message.role == "user"][:-1]


def _name(request: ModelRequest) -> str | None:
    for text in reversed(_said(request)):
        if found := _NAME.search(text):
            return found[1]
    return None


def _greet(request: ModelRequest) -> str:
    name = _name(request)
    return f"Hello{f', {name}' if name else ''}. I am the local default, a script without a model; say `help`."


def _tell_name(request: ModelRequest) -> str:
    name = _name(request)
    return f"Your name is {name}." if name else "You have not told me yet. Say `my name is …`."


def _recall(request: ModelRequest) -> str:
    said = _said(request)
    if not said:
        return "Nothing yet: this is the beginning of our conversation."
    return "You said:\n\n" + "\n".join(f"- {' '.join(text.split())}" for text in said[-10:])


def _count(request: ModelRequest) -> str:
    count = sum(message.role in ("user", "assistant") for message in request.messages)
    return f"This is message {count} of our conversation."


def _reflect(request: ModelRequest) -> str:
    text = " ".join(newest_text(request.messages).split())
    short = text if len(text) <= 200 else f"{text[:199]}…"
    return f"You said: {short}\n\nI am a script without a model and understand little; say `help` for what I can do."


# ------------------------------------------------------------------------------------------ tools and sums


def _after_tool(request: ModelRequest) -> bool:
    return bool(request.messages) and request.messages[-1].role == "tool"


def _tell_result(request: ModelRequest) -> str:
    results = [part for part in request.messages[-1].parts if isinstance(part, ToolResult)]
    return "\n".join(f"{result.name or 'the tool'}: {result.value}" for result in results)


def _spoken_sum(request: ModelRequest) -> re.Match[str] | None:
    """A sum in words, as speech recognition gives it: `six times seven`."""
    found = _SPOKEN.search(newest_text(request.messages))
    if found is None:
        return None
    words = re.sub(r"divided\s+by", "over", found[0].lower()).split()
    return _SUM.fullmatch(" ".join(_WORDS.get(word, word) for word in words))


def _calculate(request: ModelRequest, found: re.Match[str]) -> Answer:
    term = found[0].strip()
    if any(tool.name == "calculate" for tool in request.tools):
        return ToolCall("calculate", {"expression": term})
    try:
        return f"{term} = {_value(term)}"
    except (SyntaxError, ValueError, ZeroDivisionError) as error:
        return f"I cannot calculate {term}: {error}."


_OPERATORS: Final[dict[type, Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _value(term: str) -> float | int:
    """The value of a sum; nothing but numbers and the four kinds of arithmetic is evaluated."""
    if len(term) > 200:
        raise ValueError("it is too long")
    result: float | int = _evaluate(ast.parse(term, mode="eval").body)
    return int(result) if isinstance(result, float) and result.is_integer() else result


def _evaluate(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left), _evaluate(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(operand))
    raise ValueError("it has more in it than numbers, + - * / and %")
