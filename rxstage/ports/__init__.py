"""What stages need from outside, as interfaces; `rxstage.adapters` has them on real libraries."""

from rxstage.ports.media import MediaNotFound, MediaReference, MediaStore, MediaStoreFull
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
from rxstage.ports.stt import UNINTELLIGIBLE, SpeechError, Stt, Transcript
from rxstage.ports.tts import Tts
from rxstage.ports.turn import TurnDetector
from rxstage.ports.vad import Vad, VadSession

__all__ = [
    "UNINTELLIGIBLE",
    "Entry",
    "Finish",
    "MediaNotFound",
    "MediaReference",
    "MediaStore",
    "MediaStoreFull",
    "ModelEvent",
    "ModelRequest",
    "OutputSpec",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "SpeechError",
    "StateConflict",
    "StateStore",
    "StoreError",
    "StoredConversation",
    "Stt",
    "Summary",
    "Thinking",
    "ToolSpec",
    "Transcript",
    "Tts",
    "TurnDetector",
    "Vad",
    "VadSession",
    "Withdrawn",
]
