"""Counting tokens, cutting a history into turns, and what of a turn a prompt knows."""

from __future__ import annotations

from typing import Any

import pytest
from contexts import texts, tool_turn, turns

from rxstage import Audio, Data, Image, Message, Parts, StreamElement, Text, ToolCall, ToolResult, Video
from rxstage.conversation import HISTORY, PROMPT
from rxstage.prompts import estimate_tokens
from rxstage.prompts.counting import TokenCounts
from rxstage.prompts.turns import Incoming, newest_turn, pieces, text_of


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (Message.user(""), 4),
        (Message.user("a" * 45), 14),
        (Message.user("1" * 10), 10),
        (Message.user("ä" * 9), 8),
        (Message.user("字" * 3), 6),
        (Message.user("\ud800"), 4),
        (Message.user(Image(b"x")), 804),
        (Message.user(Audio(bytes(32_000), 16_000)), 4 + 33),
        (Message.user(Video(b"x", duration=2.0)), 4 + 800 + 520),
        (Message.assistant(tool_calls=(ToolCall("look", {}, "1"),)), 4 + 4 + 1 + 1),
        (Message("tool", (ToolResult("1", "a" * 45),)), 4 + 4 + 10),
        (Message("tool", (ToolResult("1", Image(b"x")),)), 4 + 4 + 800),
        (Message.user(Data({"a": 1})), 4 + 4),
    ],
)
def test_estimates(message: Message, tokens: int) -> None:
    """An estimate looks at bytes and signs, and takes media by their length."""
    assert estimate_tokens(message) == tokens


# Tokens by the vocabulary of GPT-4o (o200k) and by that of Mistral (tekken).
MEASURED = [
    (
        "hi there, can you help me? my order hasn't arrived yet and I'm getting worried. it was supposed to be here on "
        "Tuesday. The number is 4471-992. Sure, I'd be happy to help! Let me look that up for you. It seems your "
        "parcel left the depot on Monday morning and should reach you tomorrow before noon. Thanks a lot, that's "
        "great news. "
        "Could you also change the delivery address to 12 High Street? Of course. I've updated the address; you will "
        "get a confirmation by e-mail in a few minutes.",
        112,
        122,
    ),
    (
        "Guten Tag, ich habe eine Frage zu meiner Bestellung. Die Lieferung sollte eigentlich gestern ankommen, aber "
        "bis jetzt ist nichts da. Können Sie bitte nachsehen, wo sich das Paket befindet? Selbstverständlich, ich "
        "schaue "
        "gerne für Sie nach. Das Paket hat am Montag das Verteilzentrum verlassen und wird voraussichtlich morgen "
        "Vormittag zugestellt. Außerdem möchte ich die Lieferadresse ändern: Hauptstraße 12, Straßenbahnhaltestelle "
        "Universitätsklinikum.",
        96,
        111,
    ),
    (
        "您好,我想咨询一下我的订单。包裹本来应该昨天送到,但是到现在还没有收到。请问您能帮我查一下包裹在哪里吗?"
        "当然可以,我马上为您查询。您的包裹星期一已经离开分拣中心,预计明天上午送达。",
        70,
        84,
    ),
    (
        "こんにちは、注文について質問があります。昨日届く予定だったのですが、まだ届いていません。荷物がどこにあるか確認し"
        "ていただけますか。もちろんです、すぐにお調べします。お荷物は月曜日に仕分けセンターを出発し、明日の午前中に届く予定"
        "です。",
        75,
        76,
    ),
]


@pytest.mark.parametrize(("text", "gpt", "mistral"), MEASURED, ids=["english", "german", "chinese", "japanese"])
def test_how_good_the_estimate_is(text: str, gpt: int, mistral: int) -> None:
    """The estimate is within 25 % of what two vocabularies make of ordinary text."""
    estimate = estimate_tokens(Message.user(text)) - 4
    assert 0.75 * gpt < estimate < 1.25 * gpt
    assert 0.7 * mistral < estimate < 1.25 * mistral


def test_each_message_is_counted_once() -> None:
    """The counter is called once for each message, and no other message takes its place."""
    counted: list[str] = []

    def count(message: Message) -> int:
        counted.append(message.text)
        return len(message.text)

    counts = TokenCounts(count)
    history = turns(1000)
    for _ in range(3):
        assert sum(map(counts.of, history)) == sum(len(message.text) for message in history)
    assert len(counted) == 2000
    for number in range(50_000):  # none of which is kept alive
        assert counts.of(Message.user("x" * (number % 7))) == number % 7
    assert len(counts._known) <= 20_000


def test_pieces() -> None:
    """A piece is a turn with its tools; a system message begins one; what stands before the first turn is one."""
    history = [Message.assistant("a"), *tool_turn(1), Message.system("s"), *turns(1, 2)]
    assert pieces(history) == [(0, 1), (1, 5), (5, 6), (6, 8)]
    assert pieces([]) == []
    assert pieces([Message.user("a")]) == [(0, 1)]
    assert newest_turn(history) == 6
    assert newest_turn([Message.assistant("a")]) == 0
    assert newest_turn([]) == 0
    assert texts(tool_turn(1)) == ["u1", "call", "result", "a1"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (Text("a"), "a"),
        (Message.user("a", Image(b""), "b"), "ab"),
        (Parts(("a", Data(1), "b")), "ab"),
        (Image(b"x"), ""),
        (Data("a"), ""),
    ],
)
def test_text_of(content: Any, text: str) -> None:
    """The text in a content is that of its parts."""
    assert text_of(content) == text


def test_what_of_a_turn_is_known() -> None:
    """Text and metadata are collected; instructions, what is only shown, answers and results do not count."""
    turn = Incoming()
    for value, metadata in (
        (Message.system("s"), {PROMPT: "p", "a": 0}),
        (Message.user("old"), {HISTORY: True, "a": 0}),
        (Message.assistant("seed"), {}),
        (ToolResult("1"), {}),
        (StreamElement.end_of_turn(), {}),
    ):
        turn.add(StreamElement.of(value, metadata=metadata))
    assert turn.empty
    assert (turn.text, turn.metadata) == ("", {})
    turn.add(StreamElement.of(Image(b"x"), metadata={"a": 1, "b": 1}))
    assert not turn.empty
    turn.add(StreamElement.of("one ", metadata={"a": 2}))
    turn.add(StreamElement.of(Message.user("two")))
    assert (turn.text, turn.metadata) == ("one two", {"a": 2, "b": 1})


def test_of_a_very_long_turn_the_beginning_is_kept() -> None:
    """Of the text of a turn at most 100,000 characters are held."""
    turn = Incoming()
    for _ in range(50):
        turn.add(StreamElement.of("x" * 3000))
    assert len(turn.text) == 100_000
