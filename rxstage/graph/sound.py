"""The form of sound along a graph: where it cannot fit, and the stages that make it fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from rxstage.audiospec import AudioSpec
from rxstage.errors import Problem, ProblemKind
from rxstage.graph.flow import hands_on
from rxstage.graph.model import Edge, Graph
from rxstage.stage import Stage, StageType
from rxstage.stages.resample import ResampleStage

__all__ = ["resampled", "sound_problems"]


def sound_problems(graph: Graph) -> list[Problem]:
    """Stages that get sound of a form that they cannot take."""
    problems: list[Problem] = []
    for name, spec in _incoming(graph).items():
        wanted = graph.stages[name].audio_in()
        if wanted is not None and spec.clashes(wanted):
            text = (
                f"stage {name!r} takes sound of {wanted}, but what comes to it is {spec}; put a ResampleStage before "
                f"it, or build with PipelineConfig(auto_resample=True)"
            )
            problems.append(Problem(ProblemKind.AUDIO_FORMAT, text, (name,)))
    return problems


def resampled(graph: Graph) -> Graph:
    """The graph with a `ResampleStage` before each stage that is not known to get sound of the form it takes."""
    stages: dict[str, Stage] = {}
    edges: Sequence[Edge] = graph.edges
    known = _incoming(graph)
    for name, stage in graph.stages.items():
        wanted = stage.audio_in()
        if wanted is not None and not known[name].covers(wanted):
            before = _free(f"{name}.resample", graph.stages)
            stages[before] = ResampleStage(
                before, sample_rate=wanted.sample_rate, channels=wanted.channels, format=wanted.format
            )
            edges = [replace(edge, target=before) if edge.target == name else edge for edge in edges]
            edges.append(Edge(before, name))
        stages[name] = stage
    return Graph(graph.name, stages, edges, graph.config) if len(stages) > len(graph.stages) else graph


def _incoming(graph: Graph) -> dict[str, AudioSpec]:
    """What is known of the sound that comes to each stage."""
    before: dict[str, AudioSpec] = {}
    for name in graph.order():
        stage = graph.stages[name]
        incoming = before.setdefault(name, AudioSpec())
        if stage.type is StageType.SINK:
            continue
        leaving = incoming if hands_on(type(stage)) else stage.audio_out(incoming)
        for edge in graph.outgoing(name):
            target = edge.target
            before[target] = before[target].common(leaving) if target in before else leaving
    return before


def _free(name: str, taken: Mapping[str, Stage]) -> str:
    while name in taken:
        name += "_"
    return name
