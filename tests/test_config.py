"""The configuration of a pipeline and the error policies of a stage."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rxstage.config import Fallback, PipelineConfig, Retry


def test_defaults() -> None:
    """The defaults are those of the design page."""
    assert PipelineConfig().model_dump() == {
        "buffer_size": 16,
        "overflow": "wait",
        "priority_queue": False,
        "execution_timeout": None,
        "idle_timeout": None,
        "shutdown_timeout": 10.0,
        "max_concurrent_executions": None,
        "hot_source_limit": 1024,
        "metrics": False,
        "auto_resample": False,
        "tracing": False,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("buffer_size", 0),
        ("buffer_size", -1),
        ("buffer_size", "many"),
        ("overflow", "explode"),
        ("execution_timeout", 0),
        ("execution_timeout", -1.0),
        ("execution_timeout", float("nan")),
        ("idle_timeout", 0.0),
        ("shutdown_timeout", 0),
        ("shutdown_timeout", None),
        ("max_concurrent_executions", 0),
        ("hot_source_limit", 0),
        ("bufer_size", 3),
    ],
)
def test_bad_values_are_refused(field: str, value: Any) -> None:
    """A bad value or a misspelt name is an error that names the field, from the constructor and from `with_`."""
    with pytest.raises(ValidationError, match=field):
        PipelineConfig(**{field: value})
    with pytest.raises(ValidationError, match=field):
        PipelineConfig().with_(**{field: value})


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest", "drop_newest", "latest", "fail"])
def test_overflow_policies(overflow: Any) -> None:
    """Each policy of the design page is one."""
    assert PipelineConfig(overflow=overflow).overflow == overflow


def test_with_changes_a_copy() -> None:
    """`with_` leaves the original alone and keeps what it is not told."""
    config = PipelineConfig(idle_timeout=3.0)
    changed = config.with_(buffer_size=32, metrics=True)
    assert (changed.buffer_size, changed.metrics, changed.idle_timeout) == (32, True, 3.0)
    assert (config.buffer_size, config.metrics) == (16, False)
    assert config.with_() == config


def test_config_is_frozen() -> None:
    """A configuration cannot be changed in place."""
    config = PipelineConfig()
    with pytest.raises(ValidationError):
        config.buffer_size = 1
    assert hash(config) == hash(PipelineConfig())


def test_config_round_trips() -> None:
    """A configuration goes through JSON and pickle unchanged."""
    config = PipelineConfig(buffer_size=3, overflow="latest", execution_timeout=1.5)
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert "buffer_size" in PipelineConfig.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": -3}, "attempts"),
        ({"wait": -0.1}, "wait"),
        ({"jitter": -0.1}, "jitter"),
        ({"then": "explode"}, "then"),
    ],
)
def test_bad_retries_are_refused(options: dict[str, Any], message: str) -> None:
    """A retry that cannot be meant is an error that names the option and its value."""
    with pytest.raises(ValueError, match=message) as caught:
        Retry(**options)
    assert repr(next(iter(options.values()))) in str(caught.value)


@pytest.mark.parametrize("then", ["fail", "emit", "skip", Fallback("stage")], ids=str)
def test_what_follows_a_retry(then: Any) -> None:
    """After the last attempt any other policy may take over."""
    assert Retry(then=then).then is then


@pytest.mark.parametrize("policy", [Retry(), Fallback("stage")], ids=["retry", "fallback"])
def test_policies_are_frozen(policy: Any) -> None:
    """A policy can be shared by stages because it cannot be changed."""
    with pytest.raises(AttributeError):
        policy.attempts = 5
    with pytest.raises(AttributeError):
        policy.stage = "another"


@pytest.mark.parametrize(
    ("retry_on", "error", "applies"),
    [
        (Exception, ValueError(), True),
        (Exception, KeyboardInterrupt(), False),
        (OSError, TimeoutError(), True),
        (OSError, ValueError(), False),
        ((OSError, KeyError), KeyError("k"), True),
        ((OSError, KeyError), ValueError(), False),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("never"), False),
    ],
    ids=["any", "no-exit", "subclass", "other", "in-tuple", "not-in-tuple", "predicate", "not-predicate"],
)
def test_what_is_retried(retry_on: Any, error: BaseException, applies: bool) -> None:
    """Exception types, tuples of them and predicates say what deserves another try."""
    assert Retry(retry_on=retry_on).applies(error) is applies


def test_delay_may_depend_on_the_tries() -> None:
    """A function of the number of tries so far gives the wait, a number stands for itself."""
    backoff = Retry(wait=lambda tries: 0.5 * 2**tries)
    assert [backoff.delay(tries) for tries in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [Retry(wait=0.25).delay(tries) for tries in (1, 2)] == [0.25, 0.25]
    assert Retry().delay(1) == 0.0


@given(
    wait=st.floats(min_value=0, max_value=1e6),
    jitter=st.floats(min_value=0, max_value=1e6),
    tries=st.integers(min_value=1, max_value=100),
)
def test_jitter_stays_within_its_bounds(wait: float, jitter: float, tries: int) -> None:
    """A delay is never less than the wait, nor more than the wait and the whole jitter."""
    delay = Retry(wait=wait, jitter=jitter).delay(tries)
    assert wait <= delay <= wait + jitter


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (Retry(), False),
        (Retry(wait=0.1), True),
        (Retry(jitter=0.1), True),
        (Retry(wait=lambda tries: 0.0), True),
    ],
    ids=["at-once", "wait", "jitter", "function"],
)
def test_whether_a_retry_waits(policy: Retry, waits: bool) -> None:
    """`waits` tells whether a scheduler is needed at all."""
    assert policy.waits is waits
