"""Token budgets: what is left out, by each strategy."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from contexts import Told, context_of, conversation_of, texts, tool_turn, turns
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rxstage import Message
from rxstage.conversation import Conversation
from rxstage.ports.store import Summary
from rxstage.prompts import TokenBudget, TokenBudgetExceeded
from rxstage.testing import virtual

SYSTEM = [Message.system("s")]


def ten(message: Message) -> int:
    """Every message is ten tokens."""
    return 10


async def apply(
    history: Sequence[Message],
    *,
    told: Told | None = None,
    instructions: Sequence[Message] = (),
    conversation: Conversation | None = None,
    **options: Any,
) -> list[Message]:
    budget = TokenBudget(**{"counter": ten, **options})
    policy = budget.policy(context_of(told or Told()))
    assert (policy.rank, policy.stage) == (30, "stage")
    return list(await policy.apply(history, instructions, conversation or conversation_of(history)))


@virtual
async def test_what_fits_is_sent() -> None:
    """Within the budget everything is sent, by every strategy."""
    history = turns(5)
    for strategy in ("oldest", "relevance", "fail"):
        assert await apply(history, max_tokens=100, strategy=strategy) == history


@virtual
async def test_oldest() -> None:
    """The oldest turns are left out, whole, and that is told."""
    told = Told()
    history = [*turns(2), *tool_turn(2), *turns(2, 3)]
    assert texts(await apply(history, max_tokens=95, told=told)) == [
        "u2", "call", "result", "a2", "u3", "a3", "u4", "a4",
    ]  # fmt: skip
    assert told.events == [("context.trimmed", {"conversation": "", "tokens": 80, "budget": 95, "left_out": 4})]
    assert texts(await apply(history, max_tokens=79)) == ["u3", "a3", "u4", "a4"]


@virtual
async def test_reserve_and_instructions_count() -> None:
    """What is reserved and what instructs take their room from the history."""
    history = turns(5)
    assert len(await apply(history, max_tokens=100, reserve=20)) == 8
    assert len(await apply(history, max_tokens=100, reserve=20, instructions=SYSTEM * 4)) == 4


@virtual
async def test_the_newest_turn_and_system_messages_always_stay() -> None:
    """However small the budget, the newest turn is sent, and so are system messages; that it is too much is told."""
    told = Told()
    history = [Message.system("summary"), *turns(3), *tool_turn(3)]
    for strategy in ("oldest", "relevance"):
        shown = await apply(history, max_tokens=1, strategy=strategy, instructions=SYSTEM, told=told)
        assert texts(shown) == ["summary", "u3", "call", "result", "a3"]
    assert told.events[1] == ("context.over_budget", {"conversation": "", "tokens": 60, "budget": 1})


@virtual
async def test_fail() -> None:
    """The strategy "fail" raises, and says both numbers."""
    with pytest.raises(TokenBudgetExceeded) as caught:
        await apply(turns(5), max_tokens=120, reserve=21, instructions=SYSTEM, strategy="fail")
    assert (caught.value.tokens, caught.value.budget) == (110, 99)
    assert str(caught.value).startswith(
        "a history of 10 messages with its instructions comes to 110 tokens, and the budget has room for 99; raise"
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.tokens, again.budget, str(again)) == (110, 99, str(caught.value))


@virtual
async def test_relevance() -> None:
    """Those turns stay that have to do with the newest one, in their order."""
    history = [
        Message.user("my invoice 4471 is wrong"),
        Message.assistant("I see."),
        *turns(6),
        Message.user("the parcel to Berlin"),
        Message.assistant("Yes?"),
        *turns(2, 6),
        Message.user("what about invoice 4471 for Berlin?"),
    ]
    assert texts(await apply(history, max_tokens=50, strategy="relevance")) == [
        "my invoice 4471 is wrong", "I see.", "the parcel to Berlin", "Yes?", "what about invoice 4471 for Berlin?",
    ]  # fmt: skip


@virtual
async def test_relevance_by_a_function() -> None:
    """An own scorer gets the question and the texts of the older turns; of equal ones the newer stay."""
    asked: list[Any] = []

    async def score(question: str, found: Sequence[str]) -> list[float]:
        asked.append((question, list(found)))
        return [float("u1" in text) for text in found]

    history = turns(5)
    shown = await apply(history, max_tokens=60, strategy="relevance", score=score)
    assert texts(shown) == ["u1", "a1", "u3", "a3", "u4", "a4"]
    assert asked == [("u4 a4", ["u3 a3", "u2 a2", "u1 a1", "u0 a0"])]


@virtual
async def test_relevance_that_fails() -> None:
    """A scorer that raises, hangs or gives too few scores is told of, and the oldest turns are left out."""

    async def broken(_: str, __: Sequence[str]) -> list[float]:
        raise ValueError("no")

    async def hanging(_: str, __: Sequence[str]) -> list[float]:
        await asyncio.sleep(1000)
        return []

    async def few(_: str, __: Sequence[str]) -> list[float]:
        return [1.0]

    for score, error in (
        (broken, "ValueError: no"),
        (hanging, "TimeoutError: "),
        (few, "ValueError: it gave 1 scores for 4 texts"),
    ):
        told = Told()
        shown = await apply(turns(5), max_tokens=40, strategy="relevance", score=score, timeout=3.0, told=told)
        assert texts(shown) == ["u3", "a3", "u4", "a4"]
        assert told.events[0] == ("context.relevance.failed", {"error": error})


@virtual
async def test_summarize() -> None:
    """A summary takes the place of the oldest turns, is kept in the conversation, and is not made again."""
    asked: list[list[str]] = []

    async def summarize(messages: Sequence[Message], previous: str) -> str:
        asked.append(texts(messages))
        return f"{previous}+{len(messages)}"

    history = turns(10)
    conversation = conversation_of(history)
    policy = TokenBudget(max_tokens=150, strategy="summarize", counter=ten, summarize=summarize).policy(
        context_of(Told())
    )
    for _ in range(3):
        shown = await policy.apply(conversation.messages, SYSTEM, conversation)
    assert texts(shown)[1:] == ["u7", "a7", "u8", "a8", "u9", "a9"]
    assert conversation.summary == Summary("+14", 14)
    assert asked == [texts(history[:14])]


@virtual
async def test_summarize_that_fails() -> None:
    """Where no summary can be had, the oldest turns are left out; the budget holds all the same."""

    async def broken(_: Sequence[Message], __: str) -> str:
        raise ValueError("no")

    told = Told()
    shown = await apply(turns(10), max_tokens=50, strategy="summarize", summarize=broken, told=told)
    assert texts(shown) == ["u8", "a8", "u9", "a9"]
    assert [event for event, _ in told.events] == ["context.compaction.failed", "context.trimmed"]


@virtual
async def test_a_summary_that_is_too_long() -> None:
    """A summary that takes too much room costs further turns, not the budget."""

    async def long(_: Sequence[Message], __: str) -> str:
        return "x" * 1000

    def count(message: Message) -> int:
        return 30 if message.role == "system" else 10

    shown = await apply(turns(10), max_tokens=60, strategy="summarize", summarize=long, counter=count)
    assert texts(shown)[1:] == ["u9", "a9"]
    assert sum(map(count, shown)) <= 60


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_tokens": 0}, "greater than 0"),
        ({"max_tokens": 10, "reserve": 10}, "reserve=10 leaves nothing of max_tokens=10"),
        ({"max_tokens": 10, "strategy": "summarize"}, "belong together"),
        ({"max_tokens": 10, "summarize": ten}, "belong together"),
        ({"max_tokens": 10, "strategy": "summarize", "summarize": "gpt"}, "summarize= takes a Provider"),
        ({"max_tokens": 10, "score": ten}, "score= is for strategy='relevance'"),
        ({"max_tokens": 10, "counter": 5}, "counter is a function"),
        ({"max_tokens": 10, "strategy": "newest"}, "'oldest', 'summarize', 'relevance' or 'fail'"),
        ({"max_tokens": 10, "max_token": 10}, "Extra inputs are not permitted"),
    ],
)
def test_bad_options(options: dict[str, Any], problem: str) -> None:
    """What does not fit together is an error where the budget is made."""
    with pytest.raises(ValidationError, match=problem):
        TokenBudget(**options)


PIECES = st.one_of(
    st.just([Message.user("u"), Message.assistant("a")]),
    st.just(tool_turn(1)),
    st.just([Message.user("u")]),
    st.just([Message.system("s")]),
    st.just([Message.assistant("a")]),
)


@given(st.lists(PIECES, max_size=12), st.integers(1, 300), st.sampled_from(["oldest", "relevance"]))
def test_any_history(groups: list[list[Message]], max_tokens: int, strategy: str) -> None:
    """Whatever the history, what is shown keeps its order, its system messages, its newest turn and its calls whole."""
    history = [message for group in groups for message in group]
    history = [Message(m.role, m.parts, str(number), m.tool_calls) for number, m in enumerate(history)]
    shown = asyncio.run(apply(history, max_tokens=max_tokens, strategy=strategy))
    numbers = [int(message.name or "") for message in shown]
    assert numbers == sorted(set(numbers))
    begin = max((number for number, message in enumerate(history) if message.role == "user"), default=0)
    assert set(range(begin, len(history))) <= set(numbers)
    assert {number for number, message in enumerate(history) if message.role == "system"} <= set(numbers)
    for number, message in enumerate(history):
        if message.role == "tool":
            assert (number in numbers) == (number - 1 in numbers)
    droppable = [number for number in numbers if number < begin and history[number].role == "user"]
    if droppable:
        assert len(shown) * 10 <= max_tokens
