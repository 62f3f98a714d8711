"""The fluent way to a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rxstage.config import Overflow, PipelineConfig
from rxstage.graph.assemble import Assembly, use_nested_form
from rxstage.graph.model import Rule
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage

if TYPE_CHECKING:
    from rxstage.observe.bus import EventBus

__all__ = ["PipelineBuilder"]


class PipelineBuilder:
    """Collects stages and edges; `build` checks them and makes a pipeline.

    Wherever a stage is expected, a stage object (added if it is new) or the name of one will do; names are looked
    up at `build`, so the stage may be added later. A series `a >> b` stands for its stages: edges enter its first
    and leave its last. A pipeline is one stage. Stages without an incoming edge read the input, stages without an
    outgoing one, sinks excepted, feed the output.

    A builder can go on being used after `build`, and be copied; a built pipeline never changes.

    Args:
        config: configuration of the pipeline.
        events: a bus that gets the events of all its executions.
        name: name of the pipeline, and of the stage that it is in another one.

    Raises:
        TypeError: an argument of the wrong type, here or in any call; the call then changes nothing.
        ValueError: an empty name.
    """

    def __init__(
        self, config: PipelineConfig | None = None, *, events: EventBus | None = None, name: str = "pipeline"
    ) -> None:
        self._assembly = Assembly(name, config)
        self._events = events

    def add(self, *stages: Stage) -> PipelineBuilder:
        """Add stages without connecting them (a series is connected within itself).

        Raises:
            TypeError: something is no stage.
        """
        self._assembly.add(stages)
        return self

    def chain(self, *stages: Stage | str) -> PipelineBuilder:
        """Connect stages one behind the other.

        Raises:
            TypeError: something is no stage and no name.
        """
        self._assembly.chain(stages)
        return self

    def connect(
        self,
        source: Stage | str,
        target: Stage | str,
        *,
        when: Rule | None = None,
        buffer_size: int | None = None,
        overflow: Overflow | None = None,
    ) -> PipelineBuilder:
        """One edge, with options.

        Args:
            source: where it leaves.
            target: where it enters.
            when: what it lets through: content types, or a predicate of the element. Controls always pass.
            buffer_size: elements that a buffer on this edge holds.
            overflow: what that buffer does when it is full.

        Raises:
            TypeError: something is no stage and no name, `when` is no rule, or `buffer_size` no whole number.
            ValueError: `buffer_size` is below 1, or `overflow` is unknown.
        """
        self._assembly.connect(source, target, when, buffer_size, overflow)
        return self

    def branch(self, source: Stage | str, *targets: Stage | str) -> PipelineBuilder:
        """Fan out: each target gets every element that it accepts, in order.

        Raises:
            TypeError: something is no stage and no name.
            ValueError: there is no target.
        """
        self._assembly.branch(source, targets)
        return self

    def route(
        self, source: Stage | str, *rules: tuple[Rule, Stage | str], otherwise: Stage | str | None = None
    ) -> PipelineBuilder:
        """Send each element to the target of the first rule that matches it.

        A further call for the same source adds rules behind those that are there.

        Args:
            source: where the elements leave.
            rules: pairs `(rule, target)`; a rule is content types or a predicate of the element.
            otherwise: gets what no rule matched; without it, that is dropped and counted.

        Raises:
            TypeError: something is no pair, no rule, or no stage and no name.
            ValueError: there is nothing to route to, or the source has an `otherwise` already.
        """
        self._assembly.route(source, rules, otherwise)
        return self

    def merge(self, *sources: Stage | str, into: Stage | str) -> PipelineBuilder:
        """Fan in: the target gets the elements of all sources in the order of their arrival.

        Raises:
            TypeError: something is no stage and no name.
            ValueError: there is no source.
        """
        self._assembly.merge(sources, into)
        return self

    def copy(self) -> PipelineBuilder:
        """A builder of its own that goes on from here; stages, configuration and bus are shared."""
        other = PipelineBuilder(events=self._events)
        other._assembly = self._assembly.copy()
        return other

    def build(self) -> Pipeline:
        """Check the graph and make a pipeline of it; linear in stages and edges.

        Raises:
            GraphError: everything that is wrong with the graph, at once.
        """
        return Pipeline(self._assembly.graph(), events=self._events)

    def __repr__(self) -> str:
        assembly: Any = self._assembly
        return f"PipelineBuilder({assembly.name!r}, {len(assembly.stages)} stages, {len(assembly.edges)} edges)"


use_nested_form(Pipeline)
