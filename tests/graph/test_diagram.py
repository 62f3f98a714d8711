"""A graph as a picture."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from counting import calls
from hypothesis import given
from hypothesis import strategies as st

from rxstage.builder import PipelineBuilder
from rxstage.content import Audio, Message, Text, ToolCall
from rxstage.graph.diagram import to_mermaid, to_svg
from rxstage.graph.layout import Box, Line, layered
from rxstage.graph.model import Edge, Graph
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage, StageType
from rxstage.stages.basic import GenerateStage, MapStage, PassthroughStage, SinkStage, StageFunc

EVIL = [
    'a"]; click s1 "x"',
    "end",
    "%%{init: {}}%%",
    "`**b**`",
    "x\n  s9 --> s8",
    "<script>alert(1)</script>",
    "--> |x|",
    "subgraph",
    "#quot; &amp; ]]>",
    "1. list - item",
    "fa:fa-car",
    "nul\x00 \x1b \ud800 \ufffe",
    "日本語の段階",
    "x" * 500,
]


def same(value: Any) -> Any:
    return value


def is_urgent(element: Any) -> bool:
    return True


def mapping(name: str, **options: Any) -> Stage:
    return MapStage(name, same, **options)


def voice() -> Graph:
    """A graph with stages of all types, routes, branches, options and a fan-in."""
    graph: Graph = (
        PipelineBuilder(name="voice")
        .chain(
            StageFunc("session", StageType.BIDIRECTIONAL, same),
            StageFunc("vad", StageType.ACCUMULATE, same, accepts=Audio, emits=Audio),
            mapping("stt", on=Audio, emits=Text, timeout=5.0, on_error="skip"),
            mapping("prompt", on=Text, emits=Message),
            GenerateStage("ticks", list),
        )
        .route("ticks", (ToolCall, mapping("tools")), (is_urgent, SinkStage("log", same)), otherwise=mapping("speech"))
        .branch("speech", mapping("captions", on=Text), mapping("tts", on=Text))
        .merge("captions", "tts", into=SinkStage("speaker", same))
        .connect("tools", "speaker", buffer_size=64, overflow="drop_oldest")
        .build()
        .graph
    )
    return graph


def nested() -> Graph:
    """A graph with pipelines in pipelines."""
    clean = PipelineBuilder(name="clean").chain(mapping("lower"), mapping("strip")).build()
    understand = PipelineBuilder(name="understand").chain(mapping("detect"), clean, SinkStage("audit", same)).build()
    graph: Graph = PipelineBuilder(name="outer").chain(mapping("in"), understand, mapping("out")).build().graph
    return graph


def evil() -> Graph:
    graph: Graph = PipelineBuilder(name=EVIL[0]).chain(*map(mapping, EVIL)).build().graph
    return graph


class Picture:
    """An SVG, read back."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)

    def groups(self, kind: str) -> list[ElementTree.Element]:
        return [each for each in self.root.iter() if kind in each.get("class", "").split()]

    def titles(self, kind: str) -> list[str]:
        return [group[0].text or "" for group in self.groups(kind)]

    def texts(self, kind: str) -> list[str]:
        return [text.text or "" for group in self.groups(kind) for text in group if text.tag.endswith("text")]


# ------------------------------------------------------------------------------------------ SVG


@pytest.mark.parametrize("direction", [None, "LR", "TB"])
def test_svg_has_every_stage_and_edge(direction: Any) -> None:
    """Each stage and each edge is drawn once, and so are the input and, for what is no sink, the output."""
    graph = voice()
    picture = Picture(to_svg(graph, direction=direction))
    assert [title.splitlines()[0] for title in picture.titles("stage")] == list(graph.nodes)
    assert len(picture.groups("edge")) == len(graph.edges) + 1
    assert picture.texts("end") == ["input"]
    assert picture.root.get("aria-label") == "Pipeline voice: 11 stages, 12 edges"


def test_svg_draws_the_output_where_something_feeds_it() -> None:
    """A graph whose leaves are no sinks has an output."""
    assert Picture(to_svg(nested())).texts("end") == ["input", "output"]


def test_svg_marks_the_types_of_stages() -> None:
    """Each type of stage has a class and an outline of its own, and its word in the box."""
    picture = Picture(to_svg(voice()))
    for kind in StageType:
        (group, *_) = picture.groups(kind.value)
        assert kind.value in (group[3].text or "")
    outlines = {re.sub(r"[-\d. ]", "", group[1].get("d") or "") for group in picture.groups("stage")}
    assert len(outlines) >= 3


def test_svg_labels_edges() -> None:
    """Routes, what branches let through, `otherwise` and buffers stand at their edges."""
    labels = Picture(to_svg(voice())).texts("label")
    assert sorted(labels) == sorted(
        ["1: ToolCall", "2: if is_urgent", "otherwise", "Text", "Text", "buffer 64 drop_oldest"]
    )


def test_rules_are_named() -> None:
    """Types, predicates and lambdas are named at their edges, and what cannot be compared with a default is shown."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        def __hash__(self) -> int:
            return 1

    class Rule:
        def __call__(self, element: Any) -> bool:
            return True

    class Owner(Stage):
        thing: Any = 1
        kinds: Any = None

        def apply(self, element: Any) -> Any:
            return element

    stages = {name: PassthroughStage(name) for name in "abcde"} | {"f": Owner("f", thing=Odd(), kinds=(Text, Audio))}
    rules: list[Any] = [Text, (Text, Audio), lambda element: True, Rule()]
    edges = [Edge("a", name, when=rule) for name, rule in zip("bcde", rules, strict=True)]
    picture = Picture(to_svg(Graph("g", stages, [*edges, Edge("b", "f", route=0), Edge("c", "f", overflow="fail")])))
    assert picture.texts("label") == ["Text", "Text, Audio", "if λ", "if Rule", "1: any", "buffer fail"]
    assert "kinds: Text, Audio" in picture.titles("stage")[-1]
    assert "thing: <" in picture.titles("stage")[-1]


def test_svg_tells_more_in_tooltips() -> None:
    """Pointing at a stage tells its type, what it accepts and emits, and its options."""
    (title,) = (each for each in Picture(to_svg(voice())).titles("stage") if each.startswith("stt"))
    assert title.splitlines() == [
        "stt",
        "TRANSFORM (MapStage)",
        "accepts: Audio",
        "emits: Text",
        "on_error: 'skip'",
        "timeout: 5.0",
        "fn: same",
        "on: Audio",
    ]


def test_svg_keeps_secrets() -> None:
    """Options that look like secrets are not shown, and a repr that raises does no harm."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    class Secretive(Stage):
        api_key: str = ""
        thing: Any = None

        def apply(self, element: Any) -> Any:
            return element

    text = to_svg(Pipeline.of(Secretive("s", api_key="sk-123", thing=Bad())).graph)
    assert "sk-123" not in text
    assert "api_key: …" in text
    assert "Bad whose repr raises RuntimeError" in text


def test_svg_draws_nested_pipelines_as_clusters() -> None:
    """A nested pipeline is a frame with its name, and its stages, qualified, stand inside it."""
    for direction in ("LR", "TB"):
        picture = Picture(to_svg(nested(), direction=direction))
        assert picture.texts("cluster") == ["understand", "clean"]
        assert picture.titles("cluster") == ["pipeline understand: 3 stages", "pipeline understand/clean: 2 stages"]
        assert "understand/clean/strip" in [title.splitlines()[0] for title in picture.titles("stage")]
        outer, inner = (frame(group[1]) for group in picture.groups("cluster"))
        assert inside(inner, outer)
        for group in picture.groups("stage"):
            x, y = float(group[2].get("x", "0")), float(group[2].get("y", "0"))
            name = (group[0].text or "").splitlines()[0]
            assert inside((x, y, x, y), inner) is ("clean/" in name)
            assert inside((x, y, x, y), outer) is ("understand/" in name)


def frame(rect: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def inside(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def test_svg_is_for_light_and_dark() -> None:
    """The picture has colours for dark surroundings, and refers to nothing outside itself."""
    text = to_svg(voice())
    assert "@media (prefers-color-scheme:dark)" in text
    assert not re.search(r"href|url\(|@import|<script", text)


def test_svg_is_well_formed_whatever_the_names() -> None:
    """Names cannot break the picture; forbidden characters are replaced, long names cut in the box only."""
    picture = Picture(to_svg(evil()))
    titles = [title.partition("\nTRANSFORM")[0] for title in picture.titles("stage")]
    assert titles == [re.sub("[\x00\x1b\ud800\ufffe]", "\ufffd", name) for name in EVIL]
    assert max(len(text) for text in picture.texts("stage")) <= 40


def test_svg_goes_down_where_it_would_be_too_wide() -> None:
    """A short graph is drawn from left to right, a long one downwards."""
    short = Picture(to_svg(Pipeline.of(mapping("a"), mapping("b")).graph)).root
    long = Picture(to_svg(Pipeline.of(*(mapping(f"s{number}") for number in range(20))).graph)).root
    assert float(short.get("width", "0")) > float(short.get("height", "0"))
    assert float(long.get("width", "0")) < float(long.get("height", "0"))


def test_svg_refuses_other_directions() -> None:
    """An unknown direction is refused and the known ones named."""
    with pytest.raises(ValueError, match=r"'LR' \(left to right\), 'TB' \(downwards\) or None, got 'RL'"):
        to_svg(voice(), direction="RL")  # type: ignore[arg-type]


def test_svg_is_the_same_each_time() -> None:
    """The same graph gives the same picture."""
    assert to_svg(voice()) == to_svg(voice())


def test_drawing_grows_with_the_graph() -> None:
    """Four times the stages, in a chain and tangled, take no more than five times the steps to draw."""

    def work(size: int) -> None:
        stages = [mapping(f"s{number}") for number in range(size)]
        builder = PipelineBuilder().chain(*stages)
        for number in range(0, size - 40, 3):
            builder.connect(stages[number], stages[number + 2 + number % 37])
        to_svg(builder.build().graph)

    assert calls(lambda: work(800)) < 5 * calls(lambda: work(200))


def test_pictures_of_deep_nesting_need_no_deep_stack() -> None:
    """Pipelines nested three hundred deep are drawn in both languages."""
    inner: Stage = mapping("a")
    for level in range(300):
        inner = Pipeline.of(inner, name=f"level-{level}")
    graph = Pipeline.of(inner).graph
    assert to_svg(graph).count('class="cluster"') == 300
    assert to_mermaid(graph).count("subgraph ") == 300


# ------------------------------------------------------------------------------------------ layout

_LINES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=24, unique=True)


@given(_LINES, st.lists(st.tuples(st.integers(10, 90), st.integers(10, 90)), min_size=12, max_size=12))
def test_boxes_do_not_overlap(pairs: list[tuple[int, int]], sizes: list[tuple[int, int]]) -> None:
    """Boxes stand apart and within the whole, and lines run forward from box to box."""
    boxes = [Box(float(along), float(across)) for along, across in sizes]
    lines = [Line(min(pair), max(pair), 20.0) for pair in pairs if pair[0] != pair[1]]
    layout = layered(boxes, lines)
    frames = [
        (c.along - b.along / 2, c.across - b.across / 2, c.along + b.along / 2, c.across + b.across / 2)
        for c, b in zip(layout.centres, boxes, strict=True)
    ]
    slack = 1e-6
    for index, one in enumerate(frames):
        assert inside(one, (-slack, -slack, layout.size.along + slack, layout.size.across + slack))
        for other in frames[:index]:
            apart = (one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3])
            assert max(apart) >= -slack
    for line, route in zip(lines, layout.routes, strict=True):
        assert route[0].along == pytest.approx(frames[line.source][2])
        assert route[-1].along == pytest.approx(frames[line.target][0])
        assert all(one.along <= other.along + slack for one, other in pairwise(route))


def test_crossings_are_taken_out() -> None:
    """Lines that need not cross do not."""
    lines = [Line(0, 5), Line(1, 4), Line(2, 3)]
    layout = layered([Box(10.0, 10.0)] * 6, lines)
    places = [(layout.centres[line.source].across, layout.centres[line.target].across) for line in lines]
    assert all((one[0] < other[0]) == (one[1] < other[1]) for one, other in pairwise(places))


def test_chain_is_straight() -> None:
    """Boxes in a chain stand in one line, whatever their sizes, and ends off the centre are met."""
    boxes = [Box(10.0, 10.0), Box(10.0, 60.0, enter=20.0, leave=-5.0), Box(10.0, 30.0)]
    layout = layered(boxes, [Line(0, 1), Line(1, 2)])
    first, middle, last = (centre.across for centre in layout.centres)
    assert first == pytest.approx(middle + 20.0)
    assert last == pytest.approx(middle - 5.0)


def test_long_lines_keep_clear_of_boxes() -> None:
    """A line over several ranks runs beside the boxes in between."""
    boxes = [Box(10.0, 40.0)] * 5
    layout = layered(boxes, [*(Line(number, number + 1) for number in range(4)), Line(0, 4)])
    for place, centre in zip(layout.routes[-1][2:-2], layout.centres[1:4], strict=False):
        assert abs(place.across - centre.across) > 20.0


def test_nothing_to_lay_out() -> None:
    """A layout of nothing is empty."""
    assert layered([], []).size == (0.0, 0.0)


# ------------------------------------------------------------------------------------------ Mermaid


def test_mermaid_has_every_stage_and_edge() -> None:
    """Stages have the shape of their type, edges their labels, and input and output are there."""
    chart = to_mermaid(nested())
    assert chart.splitlines()[0] == "flowchart LR"
    assert [line.strip() for line in chart.splitlines()[1:14]] == [
        's1("in<br/><small>transform</small>"):::transform',
        'subgraph s2["understand"]',
        's3("detect<br/><small>transform</small>"):::transform',
        'subgraph s4["clean"]',
        's5("lower<br/><small>transform</small>"):::transform',
        's6("strip<br/><small>transform</small>"):::transform',
        "s5 --> s6",
        "end",
        's7[["audit<br/><small>sink</small>"]]:::sink',
        "s3 --> s4",
        "s4 --> s7",
        "end",
        's8("out<br/><small>transform</small>"):::transform',
    ]
    assert "s1 --> s2" in chart
    assert "s8 --> output" in chart


def test_mermaid_labels_edges() -> None:
    """Routes, `otherwise` and buffers stand at their edges."""
    chart = to_mermaid(voice())
    for label in ("1: ToolCall", "2: if is_urgent", "otherwise", "Text", "buffer 64 drop_oldest"):
        assert f'-->|"{label}"|' in chart


def test_mermaid_keeps_names_from_being_markup() -> None:
    """Whatever stands in a name, a line is a node with a quoted label of harmless characters, or an edge."""
    chart = to_mermaid(evil())
    node = re.compile(r'    s\d+\("(?:[\w ,.:→·…-]|#\d+;)+<br/><small>transform</small>"\):::transform')
    lines = chart.splitlines()
    assert all(node.fullmatch(line) for line in lines[1 : len(EVIL) + 1])
    assert all(re.fullmatch(r"    (input|s\d+) --> (output|s\d+)", line) for line in lines[len(EVIL) + 3 : -1])


def test_mermaid_draws_no_output_for_sinks() -> None:
    """Sinks feed nothing, so a graph of sinks has no output."""
    assert "output" not in to_mermaid(voice())
    assert "output" in to_mermaid(Pipeline.of(PassthroughStage("a")).graph)


@given(st.text(min_size=1, max_size=80))
def test_any_name_can_be_drawn(name: str) -> None:
    """Any name gives a well-formed picture and a chart of the expected lines."""
    graph = Pipeline.of(mapping(name), name=name).graph
    assert len(Picture(to_svg(graph)).groups("stage")) == 1
    assert len(to_mermaid(graph).splitlines()) == 7
