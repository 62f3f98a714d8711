"""What stages need from outside, as interfaces; `rxstage.adapters` has them on real libraries."""

from rxstage.ports.provider import (
    Finish,
    ModelEvent,
    ModelRequest,
    OutputSpec,
    Provider,
    ProviderError,
    ProviderTimeout,
    Thinking,
    ToolSpec,
    Withdrawn,
)
from rxstage.ports.store import Entry, StateConflict, StateStore, StoredConversation, StoreError, Summary

__all__ = [
    "Entry",
    "Finish",
    "ModelEvent",
    "ModelRequest",
    "OutputSpec",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "StateConflict",
    "StateStore",
    "StoreError",
    "StoredConversation",
    "Summary",
    "Thinking",
    "ToolSpec",
    "Withdrawn",
]
