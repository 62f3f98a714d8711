"""Logs: silent by default, one call turns them on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import loguru
import pytest

from rxstage.events import Event, PipelineFailed, PipelineStarted, StageCompleted, StageFailed
from rxstage.observe import log


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """loguru as it is right after its import, and our switch as at ours."""
    core = loguru.logger._core  # type: ignore[attr-defined]
    kept = (core.activation_list, core.enabled)
    monkeypatch.setattr(log, "_switch", log._Switch())
    loguru.logger.remove()
    loguru.logger.enable("")
    yield
    loguru.logger.remove()
    core.activation_list, core.enabled = kept


class Sink:
    """A handler of loguru that keeps the records."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        loguru.logger.add(lambda message: self.records.append(message.record), level=0)

    def lines(self) -> list[tuple[str, str]]:
        return [(record["level"].name, record["message"]) for record in self.records]


EVENT = StageFailed(pipeline="p", execution_id="e1", stage="s", error=ValueError("no {braces}"))


def test_silent_by_default() -> None:
    """Without any call nothing of ours is logged, though loguru has handlers."""
    sink = Sink()
    assert not log.logging_on()
    log.log_event(EVENT)
    log.warn("careful")
    assert sink.records == []


def test_one_call_turns_it_on() -> None:
    """Without a sink the records go to the handlers that loguru has, and `disable_logging` ends that."""
    sink = Sink()
    assert log.enable_logging() is None
    assert log.logging_on()
    log.log_event(EVENT)
    assert sink.lines() == [("ERROR", "stage 's' of pipeline 'p': stage.failed, ValueError: no {braces}")]
    log.disable_logging()
    assert not log.logging_on()
    log.log_event(EVENT)
    assert len(sink.records) == 1


def test_records_are_bound() -> None:
    """Records carry pipeline, execution and stage, the event's type and data, and the name of a module of ours."""
    sink = Sink()
    log.enable_logging("DEBUG")
    log.log_event(Event(type="turn.begin", pipeline="p", execution_id="e1", stage="s", data={"turn": 3}))
    log.warn("call abandoned", pipeline="p", execution="e2", stage="t", calls=2)
    log.warn("plain")
    assert [record["extra"] for record in sink.records] == [
        {"pipeline": "p", "execution": "e1", "stage": "s", "event": "turn.begin", "data": {"turn": 3}},
        {"pipeline": "p", "execution": "e2", "stage": "t", "calls": 2},
        {"pipeline": "", "execution": "", "stage": ""},
    ]
    assert all(record["name"].startswith("rxstage.") for record in sink.records)


def test_levels_and_sentences() -> None:
    """Each kind of event has its level, and below the level asked for nothing is made."""
    sink = Sink()
    log.enable_logging("DEBUG")
    log.log_event(PipelineStarted(pipeline="p"))
    log.log_event(StageCompleted(pipeline="p", stage="s", received=3, emitted=2, errors=1, duration=0.25))
    log.log_event(Event(type="provider.call.failed", pipeline="p"))
    log.enable_logging("INFO")
    log.log_event(StageCompleted(pipeline="p", stage="s"))
    log.log_event(PipelineStarted(pipeline="q"))
    assert sink.lines() == [
        ("INFO", "pipeline 'p': pipeline.started"),
        ("DEBUG", "stage 's' of pipeline 'p': stage.completed, 3 in, 2 out, 1 errors, 0.250 s"),
        ("WARNING", "pipeline 'p': provider.call.failed"),
        ("INFO", "pipeline 'q': pipeline.started"),
    ]


def test_traceback_is_told_once() -> None:
    """The pipeline's end carries the exception; the stage's failure only its message."""
    sink = Sink()
    log.enable_logging()
    error = ValueError("no")
    log.log_event(StageFailed(error=error))
    log.log_event(PipelineFailed(error=error))
    log.warn("careful", error=error)
    assert [record["exception"] and record["exception"].value for record in sink.records] == [None, error, error]


def test_own_sink() -> None:
    """With a sink only our records at that level go there, and its id comes back for `logger.remove`."""
    lines: list[str] = []
    handler = log.enable_logging("WARNING", sink=lines.append)
    assert isinstance(handler, int)
    loguru.logger.warning("of somebody else")
    log.log_event(PipelineStarted(pipeline="p"))
    log.log_event(EVENT)
    log.warn("careful")
    assert len(lines) == 2
    log.disable_logging()
    log.disable_logging()
    assert not loguru.logger._core.handlers  # type: ignore[attr-defined]


def test_removed_sink_is_no_trouble() -> None:
    """A handler that its user removed is not missed by `disable_logging`."""
    handler = log.enable_logging(sink=lambda message: None)
    assert handler is not None
    loguru.logger.remove(handler)
    log.disable_logging()


def test_sink_leaves_others_what_they_had() -> None:
    """A sink with a higher level does not take records from a handler that was there."""
    sink = Sink()
    log.enable_logging("DEBUG")
    log.enable_logging("ERROR", sink=lambda message: None)
    log.log_event(StageCompleted(pipeline="p", stage="s"))
    assert len(sink.records) == 1


def test_stderr_where_loguru_has_no_handler(capsys: pytest.CaptureFixture[str]) -> None:
    """The one call is enough even after `logger.remove()`."""
    assert isinstance(log.enable_logging(), int)
    log.warn("careful with stderr")
    assert "careful with stderr" in capsys.readouterr().err


def test_users_own_enable_works_before_and_after() -> None:
    """`logger.enable("rxstage")` turns the logs on, whether it comes before our first record or after."""
    sink = Sink()
    loguru.logger.enable("rxstage")
    assert log.logging_on()
    log.warn("one")
    loguru.logger.disable("rxstage")
    assert not log.logging_on()
    log.warn("two")
    loguru.logger.enable("rxstage")
    log.warn("three")
    loguru.logger.disable("rxstage")
    loguru.logger.enable("rxstage.observe")
    log.warn("four")
    assert [message for _, message in sink.lines()] == ["one", "three", "four"]


def test_off_without_handlers() -> None:
    """Where loguru has no handler at all there is nothing to make records for."""
    loguru.logger.enable("rxstage")
    assert not log.logging_on()


def test_unknown_loguru_sorts_the_records_out_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """If loguru's insides cannot be read, our records are made and loguru's own switch applies."""
    sink = Sink()
    monkeypatch.setattr(log, "_core", lambda logger: None)
    assert log.logging_on()
    log.warn("one")
    log.enable_logging()
    log.warn("two")
    assert [message for _, message in sink.lines()] == ["two"]


def test_raising_sink_hurts_nobody() -> None:
    """A sink that raises does not reach whoever logs."""

    def bad(message: Any) -> None:
        raise OSError("disk full")

    loguru.logger.add(bad, catch=False)
    log.enable_logging()
    log.warn("careful")
    log.log_event(EVENT)


def test_unknown_level() -> None:
    """A level that loguru does not have is refused, and nothing is turned on."""
    Sink()
    with pytest.raises(ValueError, match="LOUD"):
        log.enable_logging("LOUD")
    assert not log.logging_on()


def test_raising_event_handler_is_logged() -> None:
    """The bus says which handler raised, on which event, bound to where the event came from."""
    from rxstage.observe.bus import EventBus

    sink = Sink()
    log.enable_logging()

    def bad(event: Event) -> None:
        raise KeyError("x")

    bus = EventBus()
    bus.subscribe("*", bad)
    bus.publish(EVENT)
    assert bus.flush(10.0)
    assert [level for level, _ in sink.lines()] == ["WARNING"]
    assert "bad" in sink.records[0]["message"]
    assert "KeyError" in sink.records[0]["message"]
    assert sink.records[0]["extra"]["execution"] == "e1"


def test_loguru_is_not_imported() -> None:
    """Importing, asking and logging leave loguru alone until somebody wants logs."""
    script = (
        "import sys\n"
        "from rxstage.events import PipelineStarted\n"
        "from rxstage.observe import bus, log, metrics, stream\n"
        "assert not log.logging_on()\n"
        "log.log_event(PipelineStarted()); log.warn('x'); log.disable_logging()\n"
        "assert 'loguru' not in sys.modules\n"
        "assert 'rich' not in sys.modules\n"
        "import loguru\n"
        "log.log_event(PipelineStarted()); log.warn('y')\n"
        "loguru.logger.warning('mine')\n"
        "log.enable_logging()\n"
        "log.warn('z')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert [line.rpartition(" - ")[2] for line in done.stderr.splitlines()] == ["mine", "z"]
