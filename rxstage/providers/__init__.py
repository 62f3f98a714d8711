"""What stands between a stage and a model: retries, time limits, fallbacks, shared limits; and models by script."""

from rxstage.providers.fallback import FallbackProvider
from rxstage.providers.limited import LimitedProvider
from rxstage.providers.local import LocalProvider
from rxstage.providers.retrying import RETRY, RetryingProvider, is_retryable
from rxstage.providers.scripted import Reply, Rule, ScriptedProvider
from rxstage.providers.timed import TimedProvider

__all__ = [
    "RETRY",
    "FallbackProvider",
    "LimitedProvider",
    "LocalProvider",
    "Reply",
    "RetryingProvider",
    "Rule",
    "ScriptedProvider",
    "TimedProvider",
    "is_retryable",
]
