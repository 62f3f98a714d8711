"""Validation: what leaves, what does not, and what is told; CASE 41 with every policy, whole and streaming."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from forms import FORMS, Form, Observer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from reactivex.subject import Subject

from rxstage import (
    Data,
    EndOfTurn,
    Event,
    Execution,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Pipeline,
    Retry,
    StageError,
    StreamElement,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from rxstage.conversation import HISTORY, PROMPT
from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider, ProviderError
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.validation import ValidationStage
from rxstage.testing import assert_no_leaks, check_stage, run_virtual, virtual
from rxstage.validation import (
    PII,
    BannedWords,
    Function,
    JSONSchema,
    Judge,
    Length,
    Match,
    Model,
    Pattern,
    StreamingValidator,
    ValidationFailed,
    Validator,
    ValidatorError,
    Verdict,
)

pytestmark = pytest.mark.needs("module:regex", "module:phonenumbers", "module:stdnum", "module:jsonschema_rs")

TURN = EndOfTurn()
MAIL = "anna@example.org"


forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


class Person(BaseModel):
    """A structured answer."""

    name: str
    age: int = 0


class Out:
    """What came out of a stage: contents, the error it ended with, the events of validation."""

    def __init__(self, elements: Sequence[StreamElement], error: BaseException | None, events: list[Event]) -> None:
        self.elements, self.error, self.events = elements, error, events

    @property
    def contents(self) -> list[Any]:
        """Payloads; of a failure what it says, of other controls their kind."""
        return [self._shown(element) for element in self.elements]

    def _shown(self, element: StreamElement) -> Any:
        if element.failure is not None:
            error = element.failure.error
            return f"! {error.validator}" if isinstance(error, ValidationFailed) else f"! {error}"
        return type(element.content).__name__ if element.is_control else element.payload

    @property
    def text(self) -> str:
        """The pieces of text, joined."""
        return "".join(element.text or "" for element in self.elements)

    @property
    def told(self) -> list[str]:
        """The events in short: validator, `+` or `-`, score."""
        return [
            f"{event.data['validator']}{'+' if event.type == 'validation.passed' else '-'}{event.data['score']:g}"
            for event in self.events
        ]


def run(stage: ValidationStage, *values: Any) -> Out:
    """Run a stage in virtual time."""

    async def main() -> Out:
        pipeline = Pipeline.of(stage)
        events: list[Event] = []
        pipeline.events.subscribe(lambda event: events.append(event) if event.type.startswith("valid") else None)
        result = await pipeline.execute(list(values), raise_on_error=False)
        return Out(result.elements, result.error, events)

    return run_virtual(main)


def stage(*validators: Any, **options: Any) -> ValidationStage:
    return ValidationStage("v", validators=validators, **options)


def said(*pieces: str, usage: Usage | None = None) -> list[Any]:
    """An answer as a model gives it: pieces, then the message that repeats them."""
    return [*pieces, Message.assistant("".join(pieces), usage=usage)]


def watched(checked: ValidationStage, source: Subject[Any]) -> tuple[Execution, Observer]:
    """An execution that is open, and who takes its output."""
    execution, observer = Pipeline.of(checked).execute(source), Observer()
    execution.output.subscribe(observer.on_next, observer.on_error, observer.on_completed)
    return execution, observer


def of(conversation: str, value: Any) -> StreamElement:
    return StreamElement.of(value, metadata={"conversation": conversation})


def cause(out: Out) -> BaseException:
    assert isinstance(out.error, StageError)
    assert out.error.__cause__ is not None
    return out.error.__cause__


# ------------------------------------------------------------------------------------------ the laws

LAWFUL: dict[str, Callable[[], ValidationStage]] = {
    "streaming": lambda: stage(BannedWords("zzz"), PII(), Length(100_000)),
    "redacting": lambda: stage(BannedWords("alpha"), policy="redact"),
    "emitting": lambda: stage(BannedWords("alpha"), policy="emit"),
    "whole": lambda: stage(lambda text: True),
    "repairing": lambda: stage(lambda text: "x" in text, policy="repair", repair=lambda text, problems: text + "x"),
    "input": lambda: stage(BannedWords("zzz"), checks="input"),
}


@pytest.mark.parametrize("which", LAWFUL)
def test_laws(which: str) -> None:
    """It keeps the laws of a stage, with whatever validators."""
    report = check_stage(LAWFUL[which], ["alpha", "bravo", TURN, "charlie", TURN])
    assert {"terminal", "endless", "interrupt", "independent", "capacity_one", "forms"} <= set(report.kept)


# ------------------------------------------------------------------------------------------ CASE 41, streaming


@forms
def test_41_fail(form: Form) -> None:
    """CASE 41: under `fail` the execution ends, by any way to run it; what is wrong does not leave."""
    elements, error = form(Pipeline.of(stage(BannedWords("darn"))), ["Oh ", "da", "rn it", *said("late")])
    assert [element.text for element in elements] == ["Oh "]
    assert isinstance(error, StageError)
    failed = error.__cause__
    assert isinstance(failed, ValidationFailed)
    assert (error.stage, failed.validator, failed.quote) == ("v", "banned_words", "darn")
    assert "policy the stream goes on: 'emit'" in str(error)


def test_41_emit() -> None:
    """CASE 41: under `emit` a failure stands for what would still come of the turn, and the next turn works."""
    out = run(stage(BannedWords("darn"), policy="emit"), *said("Oh ", "da", "rn it", " all"), TURN, *said("Fine"), TURN)
    assert out.contents == [
        *("Oh ", "! banned_words", "EndOfTurn", "Fine", Message.assistant("Fine"), "EndOfTurn"),
    ]
    assert out.elements[1].failure is not None
    assert out.elements[1].failure.stage == "v"
    assert out.told == ["banned_words-0", "banned_words+1"]


def test_41_redact() -> None:
    """CASE 41: under `redact` the pieces and the message say the same, without what was found."""
    usage = Usage(3, 4)
    out = run(stage(PII(), policy="redact"), *said("Mail an", "na@exam", "ple.org, or", " call", usage=usage), TURN)
    assert out.text == "Mail [redacted], or call"
    assert out.elements[-2].message == Message.assistant("Mail [redacted], or call", usage=usage)
    assert out.told == ["pii-0"]


def test_41_repair() -> None:
    """CASE 41: under `repair` nothing leaves before the better text is there, which then passes all validators."""
    asked: list[Any] = []

    async def better(text: str, problems: Sequence[str]) -> str:
        asked.append((text, list(problems)))
        await asyncio.sleep(1.0)
        return text.replace("darn", "nice")

    out = run(
        stage(BannedWords("darn"), repair=better, policy="repair"),
        *said("A da", "rn day", usage=Usage(1, 2)),
        TURN,
        *said("Fine"),
    )
    assert out.contents == [
        "A nice day",
        Message.assistant("A nice day", usage=Usage(1, 2)),
        "EndOfTurn",
        *said("Fine"),
    ]
    assert asked == [("A darn day", ["it has a word in it that is banned"])]
    assert out.told == ["banned_words-0", "banned_words+1", "banned_words+1"]
    assert [event.data.get("attempt") for event in out.events] == [None, 1, None]


@pytest.mark.parametrize("then", ["fail", "emit"])
def test_41_repair_is_bounded(then: Any) -> None:
    """CASE 41: a text that does not get better is given up after so many attempts, and what `then` says is done."""
    asked: list[str] = []

    def worse(text: str, problems: Sequence[str]) -> str:
        asked.append(text)
        return text + "!"

    out = run(
        stage(BannedWords("darn"), repair=worse, policy="repair", attempts=3, then=then), *said("darn"), TURN, "ok"
    )
    assert asked == ["darn", "darn!", "darn!!"]
    assert out.told[:4] == ["banned_words-0"] * 4
    if then == "fail":
        assert out.contents == []
        assert isinstance(cause(out), ValidationFailed)
    else:
        assert out.contents == ["! banned_words", "EndOfTurn", "ok"]


def test_41_each_its_own_policy() -> None:
    """CASE 41: each validator has its own policy; the stage's is for those that have none."""
    guarded = stage(PII(policy="redact"), BannedWords("darn"), Length(31, policy="emit"), policy="fail")
    assert run(guarded, f"to {MAIL}").text == "to [redacted]"
    assert run(guarded, "a " * 14, "b c d").contents == ["a " * 14, "b c", "! length"]
    assert isinstance(cause(run(guarded, "darn")), ValidationFailed)


def test_the_first_of_several_stops_it() -> None:
    """Of two findings in one piece the one that comes first in the text counts."""
    out = run(stage(Pattern("b+!"), BannedWords("a"), policy="emit"), "x a bb! c")
    assert out.contents == ["x ", "! banned_words"]


def test_nothing_is_stopped_too_late() -> None:
    """A text that one validator stops leaves only as far as the others have settled it."""
    out = run(stage(PII(policy="redact"), Length(12, policy="emit")), f"mail {MAIL}")
    assert out.contents == ["mail ", "! length"]


def test_length_stops_the_answer_at_its_limit() -> None:
    """Text up to the limit leaves, and not a character more; the message does not either."""
    out = run(stage(Length(10), policy="emit"), *said("1234", "5678", "90ab", "cdef"), TURN)
    assert out.contents == ["1234", "5678", "90", "! length", "EndOfTurn"]


# ------------------------------------------------------------------------------------------ CASE 41, whole


def test_41_whole_holds_the_answer() -> None:
    """CASE 41: where a validator has to see it all, nothing leaves before its verdict; then the pieces as they came."""
    seen: list[str] = []

    async def note(text: str) -> None:
        seen.append(text)

    async def main() -> list[str]:
        source: Subject[Any] = Subject()
        observer = watched(stage(note), source)[1]
        source.on_next("a")
        source.on_next("b")
        await asyncio.sleep(1.0)
        assert observer.elements == []
        source.on_next(Message.assistant("ab"))
        source.on_completed()
        outcome = await observer.wait()
        return outcome.texts

    assert run_virtual(main) == ["a", "b", "Message"]
    assert seen == ["ab"]


@pytest.mark.parametrize(
    ("validator", "bad", "good"),
    [
        (JSONSchema({"type": "object", "required": ["name"]}), '{"n": 1}', '{"name": 1}'),
        (Model(Person), '{"name": "Ann", "age": "old"}', '{"name": "Ann"}'),
        (Length(minimum=5), "abc", "abcdef"),
        (Pattern("yes|no", required=True), "maybe", "yes!"),
        (Function(str.islower), "Loud", "quiet"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
@pytest.mark.parametrize("pieces", [1, 3, 100])
@pytest.mark.parametrize("message", [True, False])
def test_41_whole(validator: Validator, bad: str, good: str, pieces: int, message: bool) -> None:
    """CASE 41: each kind refuses and passes a whole answer, with or without the message that repeats it."""
    size = max(len(bad) // pieces, 1)

    def answer(text: str) -> list[Any]:
        cut = [text[begin : begin + size] for begin in range(0, len(text), size)]
        return [*(said(*cut) if message else cut), TURN]

    out = run(stage(validator, policy="emit"), *answer(bad), *answer(good))
    assert out.contents == [f"! {validator.name}", "EndOfTurn", *answer(good)[:-1], "EndOfTurn"]
    assert [told.rstrip("0123456789.") for told in out.told] == [f"{validator.name}-", f"{validator.name}+"]
    failed = cause(run(stage(validator), *answer(bad)))
    assert isinstance(failed, ValidationFailed)
    assert failed.quote == bad[:40]


def test_a_message_without_pieces() -> None:
    """An answer that did not stream is validated all the same, whole and by those that look at streams."""
    assert run(stage(BannedWords("darn"), policy="emit"), Message.assistant("darn"), "ok").contents == [
        *("! banned_words", "ok"),
    ]
    assert run(stage(PII(policy="redact"), str.islower), Message.assistant(f"to {MAIL}")).contents == [
        Message.assistant("to [redacted]")
    ]
    call = Message.assistant(tool_calls=(ToolCall("add"),))
    assert run(stage(str.islower), call).contents == [call]


def test_a_message_that_says_something_else() -> None:
    """A message that does not repeat what streamed is validated by itself."""
    out = run(stage(BannedWords("darn"), policy="emit"), "fine", Message.assistant("darn"), TURN, "ok")
    assert out.contents == ["fine", "! banned_words", "EndOfTurn", "ok"]
    out = run(stage(PII(), policy="redact"), f"to {MAIL}", Message.assistant(f"cc {MAIL}, {MAIL}"))
    assert out.contents == ["to ", "[redacted]", Message.assistant("cc [redacted], [redacted]")]
    assert out.told == ["pii-0", "pii-0"]
    out = run(stage(str.islower, policy="emit"), "fine", Message.assistant("LOUD"))
    assert out.contents == ["fine", "! islower"]


def test_all_problems_are_repaired_at_once() -> None:
    """What several validators find goes into one repair; redactions come first."""
    asked: list[Any] = []

    def better(text: str, problems: Sequence[str]) -> str:
        asked.append((text, list(problems)))
        return "all fine now"

    validators = [PII(policy="redact"), BannedWords("darn"), Length(minimum=50, name="long"), str.islower]
    out = run(stage(*validators, policy="repair", repair=better, then="emit"), f"DARN {MAIL}")
    assert asked == [
        (
            "DARN [redacted]",
            ["it has a word in it that is banned", "it is shorter than 50 characters", "it does not pass"],
        ),
        ("all fine now", ["it is shorter than 50 characters"]),
    ]
    assert out.contents == ["! long"]


def test_a_repair_that_raises() -> None:
    """A repair that fails, or takes too long, has not helped: what `then` says is done, with its cause."""

    async def slow(text: str, problems: Sequence[str]) -> str:
        await asyncio.sleep(100.0)
        return text

    def broken(text: str, problems: Sequence[str]) -> str:
        raise LookupError("no words")

    out = run(stage(BannedWords("darn"), policy="repair", repair=broken, then="emit"), "darn", TURN, "ok")
    assert out.contents == ["! banned_words", "EndOfTurn", "ok"]
    assert out.elements[0].failure is not None
    error = out.elements[0].failure.error
    assert isinstance(error.__cause__, LookupError)
    assert "its repair failed: LookupError: no words" in str(error)
    failed = cause(run(stage(BannedWords("darn"), policy="repair", repair=slow, repair_timeout=5.0), "darn"))
    assert isinstance(failed, ValidationFailed)
    assert isinstance(failed.__cause__, TimeoutError)


class Script(Provider):
    """Gives one answer after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.asked.append(request)
        yield self.answers.pop(0)
        yield Finish(usage=Usage(10, 1))


def test_a_model_judges_and_another_repairs() -> None:
    """A judge's score and usage are told; what a repair has used is added to the message."""
    judge = Judge(Script('{"score": 0.2, "reason": "It is rude."}', '{"score": 0.9}'), "It is polite.")
    repair = Script("Please go.")
    out = run(stage(judge, policy="repair", repair=repair), *said("Go", " away!", usage=Usage(1, 2, 0.5)))
    assert out.contents == ["Please go.", Message.assistant("Please go.", usage=Usage(11, 3, 0.5))]
    assert out.told == ["judge-0.2", "judge+0.9"]
    assert [event.data["usage"] for event in out.events] == [Usage(10, 1)] * 2
    assert json.loads(repair.asked[0].messages[1].text) == {"text": "Go away!", "problems": ["It is rude."]}


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("policy", ["fail", "emit", "repair"])
def test_a_validator_that_raises(policy: Any) -> None:
    """It is an error of the stage that names the validator, whatever the policy, and never a pass."""

    async def broken(text: str) -> bool:
        raise LookupError("no table")

    options = {"repair": lambda text, problems: text} if policy == "repair" else {}
    out = run(stage(broken, policy=policy, **options), *said("a", "b"))
    failed = cause(out)
    assert isinstance(failed, ValidatorError)
    assert (out.contents, failed.validator, type(failed.__cause__)) == ([], "broken", LookupError)
    assert "validator 'broken' failed: LookupError: no table" in str(out.error)


def test_a_judge_that_fails() -> None:
    """A judge that cannot be reached is such an error, too."""

    class Down(Script):
        async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
            raise ProviderError("no connection")
            yield ""

    failed = cause(run(stage(Judge(Down(), "It is polite."), policy="emit"), "a"))
    assert isinstance(failed, ValidatorError)
    assert isinstance(failed.__cause__, ProviderError)


def test_a_validator_of_your_own() -> None:
    """A subclass looks at a stream, or at the whole; one that gives no verdict is an error."""

    class Shouts(StreamingValidator):
        def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
            return [Match(n, n + 1, "", ".") for n in range(start, len(text)) if text[n] == "!"], len(text)

        def reason(self, matches: Sequence[Match]) -> str:
            return "it shouts"

    class Lazy(Validator):
        def check(self, text: str) -> Any:
            return None

    assert run(stage(Shouts(policy="redact")), *said("Hi!", " there")).contents == [
        *("Hi.", " there", Message.assistant("Hi. there")),
    ]
    assert "it shouts" in str(run(stage(Shouts()), "Hi!").error)
    assert "check() gives a Verdict, got None" in str(run(stage(Lazy()), "Hi!").error)


@pytest.mark.parametrize(
    ("validators", "options", "says"),
    [
        ((), {}, "it has no validators"),
        ((Length(3),), {"policy": "redact"}, "'length' cannot redact"),
        ((Length(3, policy="redact"),), {}, "'length' cannot redact"),
        ((str.islower,), {"policy": "redact"}, "'islower' cannot redact"),
        ((Model(Person, policy="redact"),), {}, "'model' cannot redact"),
        ((PII(policy="repair"),), {}, "'pii' needs repair="),
        ((PII(),), {"repair": Script()}, "repair= is never used"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(validators: Any, options: Any, says: str) -> None:
    """A policy that a validator cannot keep is an error where the stage is made."""
    with pytest.raises(ValueError, match=f"stage 'v'.*{says}"):
        stage(*validators, **options)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Several such problems are told in one error."""
    with pytest.raises(ValueError, match=r"'length' cannot redact.*'pii' needs repair="):
        stage(Length(3, policy="redact"), PII(policy="repair"))
    with pytest.raises(TypeError, match="a validator is a Validator or a function of a text, got 'darn'"):
        stage("darn")


def test_names_are_told_apart() -> None:
    """Two of a kind get names of their own in events and errors."""
    out = run(stage(Pattern("a"), Pattern("b"), Pattern("c", name="pattern"), policy="redact"), "xbx")
    assert out.told == ["pattern_2-0", "pattern+1", "pattern_3+1"]


def test_it_is_plain_data() -> None:
    """A stage with validators goes to a spec and comes back."""
    pipeline = Pipeline.of(stage(PII("email", policy="redact"), Length(50), BannedWords("darn"), policy="emit"))
    again = Pipeline.from_spec(pipeline.to_spec(), allow_imports=("rxstage",))
    assert again.run([f"to {MAIL}"]).text == "to [redacted]"


# ------------------------------------------------------------------------------------------ what is told


def test_events_keep_secrets() -> None:
    """Neither events nor errors show what a validator of secrets has found, nor what stands near it."""
    card = "4111 1111 1111 1111"
    for policy in ("redact", "emit", "fail"):
        guarded = stage(PII(), Pattern(r"key-\d+"), policy=policy)
        out = run(guarded, f"{MAIL} {card} key-4711")
        words = f"{[event.data for event in out.events]} {out.error} {[e.failure for e in out.elements]}"
        assert out.events
        assert not any(secret in words for secret in (MAIL, "4111", "4711", "anna"))


def test_what_an_event_says() -> None:
    """Validator, policy, score, reason, number of matches, and the conversation; passes are told at the end."""
    out = run(stage(BannedWords("darn", policy="redact"), Length(50)), of("x", "darn darn."), of("x", TURN))
    failed, passed = out.events
    assert (failed.type, failed.stage, dict(failed.data)) == (
        "validation.failed",
        "v",
        {
            "validator": "banned_words",
            "score": 0.0,
            "policy": "redact",
            "reason": "it has a word in it that is banned",
            "matches": 2,
            "conversation": "x",
        },
    )
    assert (passed.type, dict(passed.data)) == (
        "validation.passed",
        {"validator": "length", "score": 1.0, "policy": "fail", "conversation": "x"},
    )


def test_a_finding_is_told_once() -> None:
    """The message that repeats what has streamed adds no event; each finding of a stream has one."""
    out = run(stage(BannedWords("darn"), policy="redact"), *said("a darn", " b darn", " c"))
    assert out.told == ["banned_words-0", "banned_words-0"]


# ------------------------------------------------------------------------------------------ turns and conversations


def test_conversations_interleave() -> None:
    """Texts of two conversations that come in turns are two texts, and only the one that is refused is stopped."""
    values = [
        *(of("a", "da"), of("b", "da"), of("a", "y "), of("b", "rn "), of("a", "one"), of("b", "two")),
        *(of("a", Message.assistant("day one")), of("b", Message.assistant("darn two"))),
        *(of("a", TURN), of("b", TURN), of("b", "three")),
    ]
    out = run(stage(BannedWords("darn"), policy="emit"), *values)
    shown = [
        (element.metadata["conversation"], words) for element, words in zip(out.elements, out.contents, strict=True)
    ]
    assert shown == [
        *(("a", "day "), ("b", "! banned_words"), ("a", "one"), ("a", Message.assistant("day one"))),
        *(("a", "EndOfTurn"), ("b", "EndOfTurn"), ("b", "three")),
    ]


def test_the_end_of_a_turn_lets_the_rest_out() -> None:
    """What is held leaves before the end of its turn, and at the end of the input."""
    held = stage(Pattern("abc"))
    assert run(held, "xa", TURN, "yab", TURN).contents == ["x", "a", "EndOfTurn", "y", "ab", "EndOfTurn"]
    assert run(held, "xa").contents == ["x", "a"]
    assert run(stage(Pattern("ab$"), policy="emit"), "xab", TURN, "ab").contents == [
        *("x", "! pattern", "EndOfTurn", "! pattern"),
    ]
    assert run(stage(str.islower, policy="emit"), "a", "B").contents == ["! islower"]
    assert run(held, of("a", "xa"), of("b", "ya"), TURN, of("a", "bc")).contents == [
        *("x", "y", "a", "a", "EndOfTurn", "bc"),
    ]


def test_a_user_who_speaks_again_ends_an_answer() -> None:
    """A user's message passes unseen and ends the answer before it, a stopped one too."""
    user = Message.user("darn")
    out = run(stage(BannedWords("darn"), policy="emit"), "a da", user, "rn", " darn ", user, "fine")
    assert out.contents == ["a ", "da", user, "rn", " ", "! banned_words", user, "fine"]


def test_the_message_ends_a_stopped_answer() -> None:
    """Where no end of turn comes, the answer's own message is the last that is swallowed."""
    out = run(stage(BannedWords("darn"), policy="emit"), *said("darn", " it"), *said("Fine"))
    assert out.contents == ["! banned_words", *said("Fine")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_failure_voids_the_answer(whole: bool) -> None:
    """What was collected before a failure is void: it is neither held nor looked at any more."""
    validators = [BannedWords("darn"), *([str.isascii] if whole else [])]
    out = run(stage(*validators, policy="emit"), "x da", ValueError("lost"), "rn", Message.assistant("rn"), TURN)
    assert out.contents == [*([] if whole else ["x "]), "! lost", "rn", Message.assistant("rn"), "EndOfTurn"]


class Withdrawal(Exception):
    """As a provider's: knows what is void."""

    def __init__(self, text: str) -> None:
        super().__init__("lost")
        self.text = text


def test_a_withdrawal_voids_a_part() -> None:
    """Of a text before a call of a tool and one after it, only the second is void; lengths count without it."""
    first, call, result = "one ", ToolCall("add"), ToolResult("", 3)
    values = [first, call, result, "tw", Withdrawal("tw"), "two", Message.assistant("one two"), TURN]
    out = run(stage(Length(7), BannedWords("twotwo")), *values)
    assert out.contents == ["one ", call, result, "! lost", "two", Message.assistant("one two"), "EndOfTurn"]
    assert run(stage(Length(7)), *values).contents[3] == "tw"
    seen: list[str] = []
    out = run(stage(lambda text: seen.append(text)), *values)
    assert out.contents == [call, result, "! lost", "one ", "two", Message.assistant("one two"), "EndOfTurn"]
    assert seen == ["one two"]


def test_a_stopped_answer_stays_stopped() -> None:
    """An answer that was stopped is not let through because it begins again; after another failure the next one is."""
    words = stage(BannedWords("darn"), policy="emit")
    assert run(words, "darn ", Withdrawal("darn "), "fine", TURN).contents == ["! banned_words", "! lost", "EndOfTurn"]
    assert run(words, "darn ", ValueError("lost"), "fine").contents == ["! banned_words", "! lost", "fine"]


def test_calls_of_tools_pass() -> None:
    """A call ends the text before it, of which the rest leaves first; while all is held, calls pass nevertheless."""
    call, result = ToolCall("add"), ToolResult("", 3)
    values = ["Let me check", call, result, " it", Message.assistant("Let me check it")]
    assert run(stage(PII()), *values).contents == ["Let me ", "check", call, result, " ", "it", values[-1]]
    assert run(stage(str.isascii), *values).contents == [call, result, "Let me check", " it", values[-1]]
    assert run(stage(BannedWords("darn"), policy="emit"), "darn", call, result, "x", TURN).contents == [
        *("! banned_words", call, result, "EndOfTurn"),
    ]


def test_a_call_does_not_hide_a_word() -> None:
    """A word with a call in the middle of it is found in the message at the latest."""
    out = run(stage(BannedWords("darn"), policy="emit"), "da", ToolCall("add"), "rn", Message.assistant("darn"), TURN)
    assert out.contents == ["da", ToolCall("add"), "rn", "! banned_words", "EndOfTurn"]


def test_what_is_no_text_passes() -> None:
    """Everything else passes at once and unchanged."""
    values = [
        Image(b"i"),
        Data(3),
        Message.system("darn"),
        Message("tool", (ToolResult("", "darn"),)),
        Parts(("darn",)),
    ]
    shown = [of("", Message.assistant("darn")).replace(metadata={key: True}) for key in (HISTORY, PROMPT)]
    out = run(stage(BannedWords("darn"), str.islower), *values, *shown)
    assert [element.content for element in out.elements] == [
        *(value if not isinstance(value, Data) else Data(3) for value in values),
        *(element.content for element in shown),
    ]


# ------------------------------------------------------------------------------------------ interrupts


async def interrupted(checked: ValidationStage, *before: Any) -> list[str]:
    """What comes out where an interrupt arrives while a text is held or judged, and then another turn."""
    source: Subject[Any] = Subject()
    async with assert_no_leaks():
        execution, observer = watched(checked, source)
        for value in before:
            source.on_next(value)
        await asyncio.sleep(1.0)
        execution.interrupt()
        await asyncio.sleep(1.0)
        source.on_next("next")
        source.on_next(TURN)
        source.on_completed()
        outcome = await observer.wait()
        return outcome.texts


@virtual
async def test_an_interrupt_discards_what_is_held() -> None:
    """What was held of the interrupted turn is gone, and the next turn begins afresh."""
    assert await interrupted(stage(Pattern("xnext")), "ax") == ["a", "Interrupt", "next", "EndOfTurn"]
    assert await interrupted(stage(str.isascii), "a", "b") == ["Interrupt", "next", "EndOfTurn"]
    assert await interrupted(stage(BannedWords("darn"), policy="emit"), "darn ") == [
        *("Failure", "Interrupt", "next", "EndOfTurn"),
    ]


@pytest.mark.parametrize("end", [Message.assistant("ab"), TURN])
@virtual
async def test_an_interrupt_cuts_a_verdict_short(end: Any) -> None:
    """A judge that is thinking, or a repair, is cancelled; neither the text nor the end of its turn leaves."""
    cancelled: list[str] = []

    async def slow(text: str) -> None:
        try:
            if text != "next":
                await asyncio.sleep(1000.0)
        except asyncio.CancelledError:
            cancelled.append(text)
            raise

    async def repair(text: str, problems: Any) -> str:
        await slow(text)
        return "better"

    expected = ["Interrupt", "next", "EndOfTurn"]
    assert await interrupted(stage(slow), "a", "b", end) == expected
    repairing = stage(lambda text: text == "next", policy="repair", repair=repair)
    assert await interrupted(repairing, "a", "b", end) == expected
    assert cancelled == ["ab", "ab"]


# ------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("then", ["fail", "emit"])
def test_what_is_held_is_bounded(then: Any) -> None:
    """More than `max_characters` are not held: the text is refused, as the stage's policy says."""
    pieces = ["ab" * 10] * 6
    for checked in (
        stage(str.isascii, policy=then, max_characters=100),
        stage(Pattern("a.*c", policy="redact"), policy=then, max_characters=100),
        stage(str.isascii, checks="input", policy=then, max_characters=100),
    ):
        out = run(checked, *pieces, TURN, "ok", TURN)
        if then == "fail":
            assert "max_characters=" in str(out.error)
            assert out.contents == []
        else:
            assert out.contents == ["! held", "EndOfTurn", "ok", "EndOfTurn"]


def test_a_length_stops_what_is_held() -> None:
    """Also while all of a text is held, one that is to be stopped is stopped at once and no more of it is held."""
    seen: list[str] = []
    checked = stage(lambda text: seen.append(text), Length(10, policy="emit"), max_characters=30)
    assert run(checked, *["abcd"] * 100, TURN, "ok").contents == ["! length", "EndOfTurn", "ok"]
    assert seen == ["ok"]


def test_a_stream_without_turns_is_not_kept() -> None:
    """Where validators only look at what streams, a text without an end is not held."""
    out = run(stage(BannedWords("darn"), PII(), max_characters=100), *["some words "] * 1000)
    assert (out.error, out.text) == (None, "some words " * 1000)


@virtual
async def test_a_long_message_does_not_keep_the_loop() -> None:
    """A long text is looked at piece by piece, and others run in between; one that is stopped, no further than that."""
    seen: list[int] = []

    class Watch(StreamingValidator):
        def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
            seen.append(len(text) - start)
            asyncio.get_running_loop().call_soon(seen.append, -1)
            return (), len(text)

        def reason(self, matches: Sequence[Match]) -> str:
            return ""

    words = f"mail {MAIL}, "
    long, short = Message.assistant(words * 1000), Message.assistant("mail [redacted], " * 1000)
    result = await Pipeline.of(stage(PII(), Watch(), policy="redact")).execute([long])
    assert list(result.messages) == [short]
    assert seen == [4096, -1, 4096, -1, 4096, -1, 4096, -1, 4096, -1, len(words) * 1000 - 5 * 4096, -1]
    seen.clear()
    result = await Pipeline.of(stage(Watch(), Length(10), policy="emit")).execute([long])
    assert (len(result.failures), seen) == (1, [4096, -1])


# ------------------------------------------------------------------------------------------ the user's side


def test_input() -> None:
    """Before a model, a turn's text is held till it is whole; what is refused does not reach the model."""
    checked = stage(BannedWords("darn"), policy="emit", checks="input")
    bad, good = Message.user("darn it"), Message.user("hello")
    assert run(checked, bad, TURN, good, TURN).contents == ["! banned_words", "EndOfTurn", good, "EndOfTurn"]
    assert run(checked, bad, good).contents == ["! banned_words", good]
    assert run(checked, "hello ", "da", "rn", TURN, "hello", TURN).contents == [
        *("! banned_words", "EndOfTurn", "hello", "EndOfTurn"),
    ]
    assert run(checked, "hello ", "you", good).contents == ["hello ", "you", good]
    assert run(checked, "darn", good, good).contents == ["! banned_words", good]
    assert isinstance(cause(run(stage(BannedWords("darn"), checks="input"), bad)), ValidationFailed)


def test_input_by_turns() -> None:
    """Where only an `EndOfTurn` ends a turn, a message does not end one that was stopped."""
    checked = stage(BannedWords("darn"), policy="emit", checks="input", turns="control")
    good = Message.user("hello")
    assert run(checked, "darn", good, TURN, good).contents == ["! banned_words", "EndOfTurn", good]


def test_input_is_redacted_part_by_part() -> None:
    """In a message of several parts each keeps its place; what reaches from one into the next is found."""
    image = Image(b"i")
    message = Message.user(f"mail {MAIL} ", image, "or an", "na@example.org please")
    out = run(stage(PII(), policy="redact", checks="input"), message, Parts((f"mail {MAIL}", image)))
    assert [element.content for element in out.elements] == [
        Message.user("mail [redacted] ", image, "or [redacted]", " please"),
        Parts(("mail [redacted]", image)),
    ]


def test_input_keeps_images_in_their_place() -> None:
    """Images between texts that are held wait with them, and are as much refused; others' messages pass."""
    image, shown = Image(b"i"), StreamElement.of(Message.user("darn"), metadata={HISTORY: True})
    checked = stage(BannedWords("darn"), policy="emit", checks="input")
    assert run(checked, "see ", image, "and", TURN).contents == ["see ", image, "and", "EndOfTurn"]
    assert run(checked, "darn ", image, "and", TURN).contents == ["! banned_words", "EndOfTurn"]
    assert run(checked, image, "a", Message.assistant("darn"), shown, TURN).contents == [
        *(image, Message.assistant("darn"), Message.user("darn"), "a", "EndOfTurn"),
    ]
    assert run(checked, "a", *[image] * 65, TURN).contents == ["! held", "EndOfTurn"]


def test_input_is_repaired() -> None:
    """The user's text can be repaired as well, in one piece."""
    checked = stage(
        BannedWords("darn"), policy="repair", repair=lambda text, problems: text.replace("darn", "nice"), checks="input"
    )
    assert run(checked, "a da", "rn day", TURN, Message.user("darn")).contents == [
        *("a nice day", "EndOfTurn", Message.user("nice")),
    ]


# ------------------------------------------------------------------------------------------ structured answers


def test_structured() -> None:
    """An object is validated as JSON and string by string, and the message that repeats it is not asked about again."""
    seen: list[str] = []
    ann = Person(name="Ann", age=3)
    message = Message.assistant('{"name":"Ann","age":3}')
    out = run(stage(lambda text: seen.append(text), Model(Person), BannedWords("darn")), ann, message, TURN)
    assert out.contents == [ann, message, "EndOfTurn"]
    assert seen == ['{"name": "Ann", "age": 3}']
    out = run(stage(BannedWords("darn"), policy="emit"), Person(name="very\ndarn"), Message.assistant("{}"), TURN)
    assert out.contents == ["! banned_words", "EndOfTurn"]
    out = run(stage(JSONSchema({"required": ["title"]}), policy="emit"), {"name": "x"}, TURN, {"title": "x"})
    assert out.contents == ["! json_schema", "EndOfTurn", {"title": "x"}]


def test_structured_is_redacted() -> None:
    """Strings in it are replaced, and so they are in the message; it stays what it was."""
    out = run(
        stage(PII(), policy="redact"),
        *(Person(name=MAIL), Message.assistant(Person(name=MAIL).model_dump_json(), usage=Usage(1, 1)), TURN),
        *([{"to": [MAIL, 3]}], TURN),
    )
    assert out.contents == [
        Person(name="[redacted]"),
        Message.assistant('{"name": "[redacted]", "age": 0}', usage=Usage(1, 1)),
        "EndOfTurn",
        [{"to": ["[redacted]", 3]}],
        "EndOfTurn",
    ]


def test_structured_that_cannot_be_redacted() -> None:
    """Where its form does not allow a string to be replaced, it is refused."""

    class Mail(BaseModel):
        to: str = ""

        def model_post_init(self, context: Any, /) -> None:
            if "@" not in self.to:
                raise ValueError("no address")

    out = run(stage(PII(), policy="redact", then="emit"), Mail(to=MAIL), TURN)
    assert out.contents == ["! pii", "EndOfTurn"]
    assert "does not allow what was found in it to be redacted" in str(out.elements[0].failure)


def test_structured_is_repaired() -> None:
    """The better text is read as the same kind of object; one that is none is a repair that failed."""
    answers = Script('{"name": "Ann", "age": 30}', "I cannot.")
    young = Message.assistant('{"name":"Ann","age":3}')
    checked = stage(lambda text: '"age": 30' in text, policy="repair", repair=answers, then="emit")
    out = run(checked, Person(name="Ann", age=3), young, TURN, Person(name="Bob"), TURN)
    assert out.contents[:3] == [
        Person(name="Ann", age=30),
        Message.assistant('{"name": "Ann", "age": 30}', usage=Usage(10, 1)),
        "EndOfTurn",
    ]
    assert out.contents[3:] == ["! lambda", "EndOfTurn"]
    assert "its repair failed" in str(out.elements[3].failure)
    answers = Script('{"name": "Ann", "age": "secret"}')
    checked = stage(lambda text: False, policy="repair", repair=answers, then="emit")
    told = str(run(checked, Person(name="Ann")).elements[0].failure)
    assert "it does not fit Person: age: Input should be a valid integer" in told
    assert "secret" not in told


def test_partial_objects_do_not_pass() -> None:
    """What is known of an object while it streams is not let through, because it cannot be validated."""
    partial = StreamElement.of({"name": "an"}, metadata={"partial": True})
    assert run(stage(PII()), partial, {"name": "Ann"}).contents == [{"name": "Ann"}]


# ------------------------------------------------------------------------------------------ behind a provider


def conversed(guard: ValidationStage, provider: Provider, *turns: str, **options: Any) -> list[Any]:
    """What comes out behind a model and a stage that validates what it says."""
    pipeline = Pipeline.of(ProviderStage(provider=provider, retry=Retry(3), **options) >> guard)

    async def main() -> Out:
        result = await pipeline.execute([Message.user(turn) for turn in turns], raise_on_error=False)
        return Out(result.elements, result.error, [])

    return [each.text if isinstance(each, Message) else each for each in run_virtual(main).contents]


def test_behind_a_provider() -> None:
    """An answer of a model that is refused does not end the conversation, and one that is redacted is so throughout."""
    provider = ScriptedProvider("Oh darn it all", f"Mail {MAIL} now")
    guard = stage(BannedWords("darn"), PII(policy="redact"), policy="emit")
    assert conversed(guard, provider, "a", "b") == [
        *("Oh ", "! banned_words", "Mail ", "[redacted] ", "now", "Mail [redacted] now"),
    ]


def test_behind_a_provider_that_begins_again() -> None:
    """An answer that breaks off and begins again: what was held of the first try is void, the second is validated."""
    broken = Reply(text="Oh da", error=ProviderError("lost", retryable=True), error_after=2)
    told = "! the 5 characters streamed so far are void, the answer begins again: lost"
    guard = stage(BannedWords("darn", "day"), policy="emit")
    assert conversed(guard, ScriptedProvider(broken, "rn, fine"), "a") == [
        *("Oh", " ", told, "rn,", " fine", "rn, fine"),
    ]
    assert conversed(guard, ScriptedProvider(broken, "day"), "a") == ["Oh", " ", told, "! banned_words"]


def test_behind_a_provider_with_tools() -> None:
    """Calls of tools pass between the texts, and the message of all texts together is validated once."""

    def add(a: int, b: int) -> int:
        return a + b

    call = ToolCall("add", {"a": 1, "b": 2}, "1")
    answers: list[Any] = [Reply(text="Let me see", tool_calls=(call,)), "It is 3"]
    result = ToolResult("1", 3, "add")
    seen: list[str] = []
    out = conversed(stage(PII()), ScriptedProvider(*answers), "a", tools=[add])
    assert out == ["Let ", "me ", "see", call, result, "It ", "is ", "3", "Let me seeIt is 3"]
    out = conversed(stage(lambda text: seen.append(text)), ScriptedProvider(*answers), "a", tools=[add])
    assert out == [call, result, "Let", " me", " see", "It", " is", " 3", "Let me seeIt is 3"]
    assert seen == ["Let me seeIt is 3"]


def test_behind_a_provider_with_a_form() -> None:
    """A structured answer is validated once, and redacted in both forms."""
    provider = ScriptedProvider(json.dumps({"name": MAIL}))
    seen: list[str] = []
    guard = stage(PII(policy="redact"), Model(Person), lambda text: seen.append(text))
    out = conversed(guard, provider, "a", output=Person)
    assert seen == ['{"name": "[redacted]", "age": 0}']
    assert out == [Person(name="[redacted]"), '{"name": "[redacted]", "age": 0}']


# ------------------------------------------------------------------------------------------ however it is cut

ANSWER = f"Write to {MAIL} or call (415) 555-2671, you darn fool. It is very  bad of 4111 1111 1111 1111!"


@given(places=st.lists(st.integers(0, len(ANSWER)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_deltas_and_message_agree(places: list[int]) -> None:
    """However an answer is cut, its pieces say what the message says, and that is without what was found."""
    ends = sorted(places)
    pieces = [ANSWER[begin:end] for begin, end in zip([0, *ends], [*ends, len(ANSWER)], strict=True)]
    out = run(stage(PII(replacement="#"), BannedWords("darn", "very bad"), policy="redact"), *said(*pieces))
    assert out.text == "Write to # or call #, you [redacted] fool. It is [redacted] of #!"
    assert out.elements[-1].message == Message.assistant(out.text)


steps = st.tuples(
    st.sampled_from("ab"),
    st.one_of(
        st.text("darn !", min_size=1, max_size=5),
        st.sampled_from([TURN, ValueError("lost"), Message.user("darn"), Message.assistant("darn dar n")]),
    ),
)


@pytest.mark.parametrize("policy", ["emit", "redact"])
@pytest.mark.parametrize("whole", [True, False])
@given(values=st.lists(steps, max_size=30))
@settings(max_examples=60, deadline=None)
def test_nothing_refused_leaves_whatever_comes(policy: Any, whole: bool, values: list[tuple[str, Any]]) -> None:
    """Whatever comes in whatever order, no text of a conversation that leaves has a word in it that is banned."""
    guard = BannedWords("darn", policy=policy)
    checked = stage(guard, *([lambda text: True] if whole else []))
    texts = {"a": "", "b": ""}
    said: list[str] = []
    for element in run(checked, *(of(conversation, value) for conversation, value in values)).elements:
        conversation = element.metadata["conversation"]
        if element.text is not None:
            texts[conversation] += element.text
        else:
            said.append(texts[conversation])
            texts[conversation] = ""
        if element.message is not None and element.message.role == "assistant":
            said.append(element.message.text)
    for text in [*said, *texts.values()]:
        verdict = guard.check(text)
        assert isinstance(verdict, Verdict)
        assert verdict.ok


def test_every_form_agrees() -> None:
    """By any way to run it, the same comes out."""
    values = [*said("Mail an", "na@exam", "ple.org now"), TURN, "darn", TURN]
    checked = stage(PII(policy="redact"), BannedWords("darn"), policy="emit")
    seen = {
        repr(
            [
                element.payload if not element.is_control else type(element.content)
                for element in form(Pipeline.of(checked), values)[0]
            ]
        )
        for form in FORMS.values()
    }
    assert len(seen) == 1


def test_unchanged_elements_are_the_same() -> None:
    """What passes is not made anew: the same content, with its metadata."""
    content = Text("some words. ")
    element = StreamElement.of(content, metadata={"k": 1})
    (out,) = run(stage(BannedWords("darn"), Length(50)), element).elements
    assert out.content is content
    assert out.metadata == {"k": 1}
    held = run(stage(str.isascii), element, element).elements
    assert [each.content is content for each in held] == [True, True]


def test_interrupt_and_failures_pass() -> None:
    """Controls pass in their place."""
    out = run(
        stage(BannedWords("darn")), "a", StreamElement.of(Failure(ValueError("x"))), StreamElement.interrupt(), "b"
    )
    kinds = [type(element.content) for element in out.elements if element.is_control]
    assert sorted(kinds, key=str) == [Failure, Interrupt]
    assert Verdict.passed().ok
