"""Fan-out, routes, and fan-in with controls that leave once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from wiring import Out, make_scope, names

from rxstage import (
    Audio,
    EndOfTurn,
    Failure,
    FilterStage,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    Priority,
    StageFunc,
    StageType,
    StallError,
    StreamElement,
    Text,
)
from rxstage.element import ControlElement
from rxstage.flow.fan import Branch, FanIn, fan_out
from rxstage.flow.port import Port
from rxstage.testing import virtual


def turn(sequence: int, content: Any = None, origin: int = 0) -> ControlElement:
    """One control, as it is copied to several branches: the copies share the content."""
    element = StreamElement(content or EndOfTurn(), sequence=sequence).replace(origin=origin)
    assert isinstance(element, ControlElement)
    return element


def fan_in(
    inputs: int = 2,
    aligned: bool = False,
    reaches: Callable[[int], frozenset[int]] | None = None,
    mute: frozenset[int] = frozenset(),
    **config: Any,
) -> tuple[Out, list[Port], FanIn]:
    out = Out()
    every = frozenset(range(inputs))
    fan = FanIn(
        make_scope(**config),
        "join",
        [f"in{n}" for n in range(inputs)],
        out.port(),
        reaches or (lambda origin: every),
        aligned,
        mute,
    )
    return out, [fan.port(n) for n in range(inputs)], fan


def text(value: str, **envelope: Any) -> StreamElement:
    return StreamElement.of(value, **envelope)


# ------------------------------------------------------------------------------------------ out


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_fan_out(count: int) -> None:
    """CASE 27: every branch gets everything in the same order, controls and the end too."""
    outs = [Out() for _ in range(count)]
    port = fan_out([Branch(out.port()) for out in outs], lambda element: None)
    for value in "ab":
        port.push(text(value))
    port.control(turn(3))
    port.push(text("c"))
    port.done()
    for out in outs:
        assert out.names == ["a", "b", "EndOfTurn3", "c"]
        assert out.dones == 1


def test_filtered_branches() -> None:
    """A branch gets what its test lets through; controls go everywhere."""
    one, two = Out(), Out()
    port = fan_out([Branch(one.port(), lambda e: e.text == "a"), Branch(two.port())], lambda element: None)
    for value in "ab":
        port.push(text(value))
    port.control(turn(1))
    assert one.names == ["a", "EndOfTurn1"]
    assert two.names == ["a", "b", "EndOfTurn1"]


def test_routes() -> None:
    """CASE 30: the first match wins, the rest goes to `otherwise`, plain branches get it all; controls everywhere."""
    first, second, rest, copy = Out(), Out(), Out(), Out()
    port = fan_out(
        [
            Branch(first.port(), lambda e: "a" in (e.text or ""), route=True),
            Branch(second.port(), lambda e: "b" in (e.text or ""), route=True),
            Branch(rest.port(), otherwise=True),
            Branch(copy.port()),
        ],
        lambda element: None,
    )
    for value in ("a", "ab", "b", "c"):
        port.push(text(value))
    port.control(turn(1))
    assert first.names == ["a", "ab", "EndOfTurn1"]
    assert second.names == ["b", "EndOfTurn1"]
    assert rest.names == ["c", "EndOfTurn1"]
    assert copy.names == ["a", "ab", "b", "c", "EndOfTurn1"]


def test_unrouted() -> None:
    """CASE 30: without `otherwise`, what matches no route is told."""
    out = Out()
    lost: list[StreamElement] = []
    port = fan_out([Branch(out.port(), lambda e: e.text == "a", route=True)], lost.append)
    port.push(text("a"))
    port.push(text("b"))
    assert out.names == ["a"]
    assert names(lost) == ["b"]


def test_route_without_a_test() -> None:
    """A route that matches everything takes it all."""
    out, rest = Out(), Out()
    port = fan_out([Branch(out.port(), None, route=True), Branch(rest.port(), otherwise=True)], lambda e: None)
    port.push(text("a"))
    assert (out.names, rest.names) == (["a"], [])


def test_valves_of_branches() -> None:
    """One closed branch closes the fan-out; branches with one valve share it."""
    one, two = Out(), Out()
    port = fan_out([Branch(one.port()), Branch(two.port())], lambda e: None)
    one.valve.close("x")
    two.valve.close("y")
    one.valve.open("x")
    assert port.valve.closers
    two.valve.open("y")
    assert not port.valve.closers
    assert fan_out([Branch(one.port()), Branch(one.port())], lambda e: None).valve is one.valve


# ------------------------------------------------------------------------------------------ in


@pytest.mark.parametrize("inputs", [2, 3, 5])
def test_end_of_turn_waits_for_the_last(inputs: int) -> None:
    """An EndOfTurn leaves once, after its last copy; what comes behind a copy waits till then, in order."""
    out, ports, _ = fan_in(inputs)
    end = turn(7)
    for number, port in enumerate(ports[:-1]):
        port.push(text(f"a{number}"))
        port.control(end)
        port.push(text(f"b{number}"))
    assert out.names == [f"a{n}" for n in range(inputs - 1)]
    ports[-1].push(text("last"))
    ports[-1].control(end)
    ports[-1].push(text("next"))
    expected = [f"a{n}" for n in range(inputs - 1)]
    expected += ["last", "EndOfTurn7"] + [f"b{n}" for n in range(inputs - 1)] + ["next"]
    assert out.names == expected


def test_several_turns_in_flight() -> None:
    """One branch may be several turns ahead; each turn ends once, in order, with all its content before it."""
    out, (fast, slow), fan = fan_in()
    ends = [turn(n) for n in (10, 20, 30)]
    for end in ends:
        fast.push(text(f"f{end.sequence}"))
        fast.control(end)
    assert out.names == ["f10"]
    assert "EndOfTurn #10 from in1" in (fan.holding() or "")
    for end in ends:
        slow.push(text(f"s{end.sequence}"))
        slow.control(end)
    assert out.names == [
        *("f10", "s10", "EndOfTurn10"),
        *("f20", "s20", "EndOfTurn20"),
        *("f30", "s30", "EndOfTurn30"),
    ]
    assert fan.holding() is None


def test_ended_inputs() -> None:
    """An input that has ended counts as having delivered; the output ends after the last input."""
    out, (one, two), _ = fan_in()
    for n in (1, 2):
        one.control(turn(n))
        one.push(text(f"a{n}"))
    two.done()
    assert out.names == ["EndOfTurn1", "a1", "EndOfTurn2", "a2"]
    one.control(turn(3))
    assert out.names[-1] == "EndOfTurn3"
    assert out.dones == 0
    one.done()
    assert out.dones == 1


def test_input_that_ends_while_it_is_held() -> None:
    """What an input has brought before it ended still comes, and only then the end."""
    out, (one, two), _ = fan_in()
    end = turn(1)
    one.control(end)
    one.push(text("a"))
    one.done()
    assert out.names == []
    two.push(text("b"))
    two.control(end)
    two.done()
    assert out.names == ["b", "EndOfTurn1", "a"]
    assert out.dones == 1


def test_all_end_at_once() -> None:
    """Turns that never met are let out when the inputs end."""
    out, (one, two), _ = fan_in()
    one.control(turn(1))
    one.push(text("a"))
    one.control(turn(2))
    one.done()
    two.done()
    assert out.names == ["EndOfTurn1", "a", "EndOfTurn2"]
    assert out.dones == 1


@pytest.mark.parametrize("content", [EndOfTurn(), Failure(ValueError("x"))])
def test_control_born_in_one_branch(content: Any) -> None:
    """A control that a stage of one branch made comes in on that input only, and leaves at once."""
    reached = {0: frozenset((0, 1)), 5: frozenset((0,))}
    out, (one, two), _ = fan_in(reaches=lambda origin: reached[origin])
    one.control(turn(1, content, origin=5))
    one.push(text("a"))
    two.push(text("b"))
    assert out.names == [f"{type(content).__name__}1", "a", "b"]


def test_failures_of_two_branches() -> None:
    """Two branches fail on the same element: same sequence, two failures, both leave; copies of one leave once."""
    out, (one, two), _ = fan_in(reaches=lambda origin: frozenset((0, 1)) if origin == 0 else frozenset((origin - 1,)))
    one.control(turn(4, Failure(ValueError("one"), "s"), origin=1))
    two.control(turn(4, Failure(ValueError("two"), "t"), origin=2))
    assert [str(e.content.error) for e in out.elements] == ["one", "two"]
    copied = turn(5, Failure(ValueError("copied"), "before"))
    two.control(copied)
    one.push(text("a"))
    one.control(copied)
    assert out.names[2:] == ["Failure5", "a"]


def test_interrupt_overtakes() -> None:
    """An interrupt leaves with its first copy, once; held content and turn ends go, failures and critical ones stay."""
    out, (one, two), fan = fan_in()
    end = turn(1)
    one.control(end)
    for each in (text("gone"), text("stays", priority=Priority.CRITICAL)):
        one.push(each)
    one.control(turn(2, Failure(ValueError("x"))))
    one.control(turn(3))
    interrupt = turn(4, StreamElement.interrupt().content)
    two.control(interrupt)
    assert out.names == ["stays", "Failure2", "Interrupt4"]
    one.control(interrupt)
    two.control(end)  # late copies of what was interrupted
    following = turn(5)
    two.control(following)
    one.push(text("next"))
    one.control(following)
    assert out.names[3:] == ["next", "EndOfTurn5"]
    assert fan.holding() is None


def test_interrupts_are_forgotten() -> None:
    """What a fan-in remembers of interrupted turns is bounded."""
    _, (one, two), fan = fan_in()
    for n in range(1, 2000, 2):
        one.control(turn(n))
        interrupt = turn(n + 1, StreamElement.interrupt().content)
        one.control(interrupt)
        two.control(interrupt)
    assert len(fan.gone) <= 256
    assert not fan.waiting


def test_a_lost_copy() -> None:
    """An input that brings a later control has passed the earlier ones, whatever became of them."""
    out, (one, two), _ = fan_in()
    one.control(turn(1))
    one.push(text("a"))
    assert out.names == []
    following = turn(2)
    two.control(following)  # its copy of 1 was lost with an interrupt on its way
    assert out.names == ["EndOfTurn1", "a"]
    one.control(following)
    assert out.names == ["EndOfTurn1", "a", "EndOfTurn2"]


def test_aligned() -> None:
    """Inputs of one synchronous region hold nothing: the copies come together."""
    out, (one, two), fan = fan_in(aligned=True)
    end = turn(1)
    one.push(text("a"))
    one.control(end)
    two.control(end)
    assert out.names == ["a", "EndOfTurn1"]
    assert one.valve is out.valve
    assert not fan.held


def test_mute_inputs() -> None:
    """A sink's input only has to end: nothing is waited for from it, and nothing of it leaves."""
    out, (one, sink), _ = fan_in(mute=frozenset((1,)))
    one.control(turn(1))
    sink.push(text("x"))
    sink.control(turn(1))
    assert out.names == ["EndOfTurn1"]
    one.done()
    assert out.dones == 0
    sink.done()
    assert out.dones == 1


def test_held_content_closes_the_valve() -> None:
    """An input that holds a buffer full closes its valve, not that of the others, and asks whether all stalls."""
    with asyncio.Runner() as runner:
        out = Out()
        scope = make_scope(loop=runner.get_loop(), buffer_size=3)
        asked: list[int] = []
        scope.suspect = lambda: asked.append(1)
        fan = FanIn(scope, "join", ["x", "y"], out.port(), lambda origin: frozenset((0, 1)), False)
        one, two = fan.port(0), fan.port(1)
        one.control(turn(1))
        for value in "abc":
            assert not one.valve.closers
            one.push(text(value))
        assert one.valve.closers
        assert not two.valve.closers
        assert asked == [1]
        two.control(turn(1, one_content(fan)))
        assert not one.valve.closers
        assert out.names == ["EndOfTurn1", "a", "b", "c"]


def one_content(fan: FanIn) -> Any:
    (copies,) = fan.waiting.values()
    return copies.element.content


def test_stall_inline() -> None:
    """CASE 26: where no loop is there that could free it, a held input that grows past the limit is a clear error."""
    _, (one, _), _ = fan_in(buffer_size=4, hot_source_limit=10)
    one.control(turn(1))
    for n in range(9):
        one.push(text(str(n)))
    with pytest.raises(StallError, match="in1"):
        one.push(text("one too many"))


# ------------------------------------------------------------------------------------------ in pipelines


async def slow(text: str) -> str:
    await asyncio.sleep(1)
    return text.upper()


def diamond(*branches: Any, config: PipelineConfig | None = None) -> Pipeline:
    return (
        PipelineBuilder(config)
        .chain(PassthroughStage("in"))
        .branch("in", *branches)
        .merge(*(branch.name for branch in branches), into=PassthroughStage("out"))
        .build()
    )


@virtual
async def test_three_branches_of_different_speed() -> None:
    """Turns stay together over three branches: a slow one, a fast one, and one that drops everything."""
    pipeline = diamond(
        MapStage("slow", slow, on=Text), MapStage("fast", str.title, on=Text), FilterStage("none", lambda e: False)
    )
    source: list[Any] = []
    for n in range(5):
        source += [f"x{n}", StreamElement.end_of_turn()]
    result = await pipeline.execute(source)
    got = [e.text or "/" for e in result.elements]
    assert [each for each in got if each == "/"] == ["/"] * 5
    assert got == [each for n in range(5) for each in (f"X{n}", f"X{n}", "/")]


@virtual
async def test_nested_fan_outs() -> None:
    """A control that is copied in a branch of a branch leaves once after all."""
    builder = PipelineBuilder().chain(PassthroughStage("in"))
    builder.branch("in", PassthroughStage("a"), MapStage("b", slow, on=Text))
    builder.branch("a", MapStage("a1", slow, on=Text), PassthroughStage("a2"))
    builder.merge("a1", "a2", into=PassthroughStage("inner")).merge("inner", "b", into=PassthroughStage("out"))
    turns: list[Any] = ["x", StreamElement.end_of_turn(), "y", StreamElement.end_of_turn()]
    result = await builder.build().execute(turns)
    got = [e.text or "/" for e in result.elements]
    assert sorted(got[:3]) == ["X", "X", "x"]
    assert got[3] == "/"
    assert sorted(got[4:7]) == ["Y", "Y", "y"]
    assert got[7:] == ["/"]


@virtual
async def test_failures_in_both_branches() -> None:
    """Both branches fail on the same element with `emit`: both failures leave, each naming its stage."""

    async def bad(text: str) -> str:
        raise ValueError(text)

    pipeline = diamond(MapStage("a", bad, on=Text, on_error="emit"), MapStage("b", bad, on=Text, on_error="emit"))
    result = await pipeline.execute(["x", "y"])
    assert sorted((f.stage, str(f.error)) for f in result.failures) == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert len(result.elements) == 4


@virtual
async def test_turn_made_in_one_branch() -> None:
    """An EndOfTurn that one branch makes is not waited for from the other, which never sees it."""

    async def ends(elements: Any) -> Any:
        async for element in elements:
            yield element
            if element.text is not None:
                yield StreamElement.end_of_turn()

    pipeline = diamond(StageFunc("ends", StageType.TRANSFORM, ends), MapStage("plain", str.upper, on=Text))
    result = await pipeline.execute(["a", "b"])
    got = [e.text or "/" for e in result.elements]
    assert sorted(got) == ["/", "/", "A", "B", "a", "b"]
    assert got.index("a") < got.index("/") < got.index("b")


@virtual
async def test_interrupt_over_a_diamond() -> None:
    """An interrupt comes out once, drops what the slow branch holds, and the next turn works."""
    pipeline = diamond(MapStage("slow", slow, on=Text, interruptible=True), PassthroughStage("fast"))
    execution = pipeline.execute(_with_pause(["a", "b", StreamElement.end_of_turn()], [StreamElement.interrupt(), "c"]))
    got = [e.text or type(e.content).__name__ async for e in execution]
    assert got.count("Interrupt") == 1
    behind = got[got.index("Interrupt") + 1 :]
    assert sorted(behind) == ["C", "c"]
    assert "EndOfTurn" not in got


async def _with_pause(*parts: list[Any]) -> Any:
    for part in parts:
        for value in part:
            yield value
        await asyncio.sleep(0.5)


@virtual
async def test_diamond_with_capacity_one() -> None:
    """CASE 26: slow and fast branch, capacity 1, many turns: everything, bounded, no deadlock."""
    pipeline = diamond(MapStage("slow", slow, on=Text), PassthroughStage("fast"), config=PipelineConfig(buffer_size=1))
    source: list[Any] = []
    for n in range(50):
        source += [f"{n}"] * 3 + [StreamElement.end_of_turn()]
    execution = pipeline.execute(source)
    got = [e async for e in execution]
    assert sum(e.is_control for e in got) == 50
    assert len(got) == 50 * 7
    assert max(edge.peak for edge in execution.statistics().edges.values()) <= 4
    place = 0
    for e in got:
        if e.is_control:
            place += 1
        else:
            assert e.text == str(place)


@virtual
async def test_audio_beside_text() -> None:
    """Branches that accept different content get only that, and turns still end after both."""

    async def same(audio: Audio) -> Audio:
        await asyncio.sleep(1)
        return audio

    pipeline = diamond(MapStage("audio", same, on=Audio), MapStage("text", str.upper, on=Text))
    audio = Audio(b"\0\0", 8000)
    result = await pipeline.execute([audio, "a", StreamElement.end_of_turn(), "b"])
    kinds = [e.text or type(e.content).__name__ for e in result.elements]
    assert kinds.index("EndOfTurn") == 2
    assert set(kinds[:2]) == {"A", "Audio"}
    assert kinds[3:] == ["B"]
