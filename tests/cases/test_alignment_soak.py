"""Random graphs of branches that meet again: whatever the branches are and however long they take, turns stay whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from rxstage import (
    EndOfTurn,
    FlatMapStage,
    MapStage,
    PassthroughStage,
    PipelineBuilder,
    PipelineConfig,
    Stage,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing.virtual import run_virtual


def _slow(name: str, chance: random.Random, longest: float) -> Callable[[str], Awaitable[str]]:
    async def work(text: str) -> str:
        await asyncio.sleep(chance.random() * longest)
        return f"{text}.{name}"

    return work


def _branch(index: int, chance: random.Random) -> Stage:
    name = f"branch {index}"

    def tag(text: str) -> str:
        return f"{text}.{index}"

    def twice(text: str) -> list[str]:
        return [tag(text), tag(text)]

    async def loop(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        async for element in elements:
            if element.text is not None:
                await asyncio.sleep(chance.random())
                yield tag(element.text)

    slow = _slow(str(index), chance, 2.0)
    kinds: list[Callable[[], Stage]] = [
        lambda: MapStage(name, tag, on=Text),
        lambda: MapStage(name, slow, on=Text),
        lambda: MapStage(name, slow, on=Text, concurrency=3),
        lambda: MapStage(name, slow, on=Text, concurrency=3, ordered=False),
        lambda: FlatMapStage(name, twice, on=Text),
        lambda: StageFunc(name, StageType.TRANSFORM, loop),
    ]
    return chance.choice(kinds)()


@pytest.mark.parametrize("seed", range(40))
def test_turns_stay_whole_where_branches_meet(seed: int) -> None:
    """CASES 26, 27, 30: everything of a turn leaves before its end of turn, which leaves once; nothing is lost."""
    chance = random.Random(seed)
    branches = [_branch(i, chance) for i in range(chance.randint(2, 4))]
    last: Stage = chance.choice([PassthroughStage("last"), MapStage("last", _slow("p", chance, 1.0), on=Text)])
    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=chance.choice([1, 2, 16])))
        .branch(PassthroughStage("first"), *branches)
        .merge(*branches, into=last)
        .build()
    )
    turns = chance.randint(1, 6)
    source: list[str | StreamElement] = []
    for turn in range(turns):
        source += [f"{turn}:{i}" for i in range(chance.randint(0, 5))]
        source.append(StreamElement.end_of_turn())

    async def main() -> list[StreamElement]:
        return list((await pipeline.execute(source)).elements)

    turn = count = 0
    for element in run_virtual(main):
        if isinstance(element.content, EndOfTurn):
            turn += 1
        else:
            assert element.text is not None
            assert int(element.text.split(":")[0]) == turn
            count += 1
    assert turn == turns
    assert count == (len(source) - turns) * sum(2 if isinstance(branch, FlatMapStage) else 1 for branch in branches)
