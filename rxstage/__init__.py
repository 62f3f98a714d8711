"""Streaming pipelines: stages composed into a DAG, run as Rx operators with backpressure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from rxstage.builder import PipelineBuilder
from rxstage.config import ErrorPolicy, Fallback, OnError, Overflow, PipelineConfig, Retry
from rxstage.content import (
    Audio,
    AudioFormat,
    Content,
    Control,
    Data,
    EndOfStream,
    EndOfTurn,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    Video,
)
from rxstage.element import Metadata, StreamElement
from rxstage.errors import (
    BufferOverflow,
    ExecutionCancelled,
    ExecutionTimeout,
    GraphError,
    IdleTimeout,
    MissingExtra,
    PipelineClosed,
    PipelineTimeout,
    Problem,
    ProblemKind,
    RxStageError,
    ShutdownTimeout,
    StageError,
    StallError,
)
from rxstage.events import (
    EdgeDropped,
    Event,
    PipelineCancelled,
    PipelineCompleted,
    PipelineFailed,
    PipelineStarted,
    StageCompleted,
    StageFailed,
    StageRestarted,
    StageStarted,
)
from rxstage.execution import Execution
from rxstage.flow.buffer import BufferStatistics
from rxstage.flow.subject import BufferedSubject
from rxstage.graph.model import Edge, Graph
from rxstage.observe.bus import EventBus
from rxstage.observe.log import disable_logging, enable_logging
from rxstage.observe.metrics import Metrics, StageMetrics, Statistics
from rxstage.pipeline import Pipeline
from rxstage.priority import Priority
from rxstage.result import Result
from rxstage.stage import Stage, StageContext, StageType
from rxstage.stages.basic import (
    FilterStage,
    FlatMapStage,
    GenerateStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    SinkStage,
    StageFunc,
    stage,
)

if TYPE_CHECKING:
    from rxstage.audiospec import AudioSpec
    from rxstage.dialogue.errors import AnswerWithdrawn, CostLimitExceeded, InvalidOutput, ToolLoop
    from rxstage.stages.audio_file import AudioFileSink, AudioFileSource, audio_file
    from rxstage.stages.codec import DecodeStage, EncodeStage
    from rxstage.stages.compaction import CompactionStage
    from rxstage.stages.duplex import DuplexProviderStage
    from rxstage.stages.framing import FrameStage
    from rxstage.stages.gain import GainStage, NormalizeStage
    from rxstage.stages.image import FrameRateStage, ImageError, ImageResizeStage
    from rxstage.stages.interruption import InterruptionStage
    from rxstage.stages.level import Level, LevelStage
    from rxstage.stages.media import MediaLoadStage, MediaStorageStage
    from rxstage.stages.middleware import MiddlewareAdapter, MiddlewareContext, MiddlewareResult, wrap_middleware
    from rxstage.stages.pacing import PacingStage
    from rxstage.stages.parts import ComposeMessageStage, ExtractMediaStage
    from rxstage.stages.prompt import PromptAssemblyStage
    from rxstage.stages.provider import ProviderStage
    from rxstage.stages.resample import ResampleStage
    from rxstage.stages.retrieval import Document, RetrievalStage
    from rxstage.stages.speculation import SpeculationStage
    from rxstage.stages.state import StateStoreLoadStage, StateStoreSaveStage
    from rxstage.stages.stt import STTStage
    from rxstage.stages.tts import TTSStage
    from rxstage.stages.turn import TurnStage
    from rxstage.stages.vad import VADAccumulatorStage
    from rxstage.stages.validation import ValidationStage
    from rxstage.stages.websocket import WebSocketBridgeStage
    from rxstage.stages.window import ConversationWindowStage
    from rxstage.tools.approval import Approval
    from rxstage.tools.context import Progress, ToolContext, ToolError
    from rxstage.tools.tool import Tool, tool
    from rxstage.tools.toolbox import Toolbox
    from rxstage.validation import ValidationFailed, ValidatorError
    from rxstage.voice.decoder import DecodeError
    from rxstage.voice.encoded import EncodedAudio
    from rxstage.voice.files import AudioFileError

__version__ = "0.1.0"

__all__ = [
    "AnswerWithdrawn",
    "Approval",
    "Audio",
    "AudioFileError",
    "AudioFileSink",
    "AudioFileSource",
    "AudioFormat",
    "AudioSpec",
    "BufferOverflow",
    "BufferStatistics",
    "BufferedSubject",
    "CompactionStage",
    "ComposeMessageStage",
    "Content",
    "Control",
    "ConversationWindowStage",
    "CostLimitExceeded",
    "Data",
    "DecodeError",
    "DecodeStage",
    "Document",
    "DuplexProviderStage",
    "Edge",
    "EdgeDropped",
    "EncodeStage",
    "EncodedAudio",
    "EndOfStream",
    "EndOfTurn",
    "ErrorPolicy",
    "Event",
    "EventBus",
    "Execution",
    "ExecutionCancelled",
    "ExecutionTimeout",
    "ExtractMediaStage",
    "Failure",
    "Fallback",
    "FilterStage",
    "FlatMapStage",
    "FrameRateStage",
    "FrameStage",
    "GainStage",
    "GenerateStage",
    "Graph",
    "GraphError",
    "IdleTimeout",
    "Image",
    "ImageError",
    "ImageResizeStage",
    "Interrupt",
    "InterruptionStage",
    "InvalidOutput",
    "Level",
    "LevelStage",
    "MapStage",
    "MediaLoadStage",
    "MediaStorageStage",
    "Message",
    "Metadata",
    "Metrics",
    "MiddlewareAdapter",
    "MiddlewareContext",
    "MiddlewareResult",
    "MissingExtra",
    "NormalizeStage",
    "OnError",
    "OperatorStage",
    "Overflow",
    "PacingStage",
    "Parts",
    "PassthroughStage",
    "Pipeline",
    "PipelineBuilder",
    "PipelineCancelled",
    "PipelineClosed",
    "PipelineCompleted",
    "PipelineConfig",
    "PipelineFailed",
    "PipelineStarted",
    "PipelineTimeout",
    "Priority",
    "Problem",
    "ProblemKind",
    "Progress",
    "PromptAssemblyStage",
    "ProviderStage",
    "ResampleStage",
    "Result",
    "RetrievalStage",
    "Retry",
    "RxStageError",
    "STTStage",
    "ShutdownTimeout",
    "SinkStage",
    "SpeculationStage",
    "Stage",
    "StageCompleted",
    "StageContext",
    "StageError",
    "StageFailed",
    "StageFunc",
    "StageMetrics",
    "StageRestarted",
    "StageStarted",
    "StageType",
    "StallError",
    "StateStoreLoadStage",
    "StateStoreSaveStage",
    "Statistics",
    "StreamElement",
    "TTSStage",
    "Text",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "ToolLoop",
    "ToolResult",
    "Toolbox",
    "TurnStage",
    "Usage",
    "VADAccumulatorStage",
    "ValidationFailed",
    "ValidationStage",
    "ValidatorError",
    "Video",
    "WebSocketBridgeStage",
    "audio_file",
    "disable_logging",
    "enable_logging",
    "stage",
    "tool",
    "wrap_middleware",
]

# What only conversations need is imported when it is used: it would make every import half as long again.
_MODULES: Final = {
    "rxstage.dialogue.errors": ("AnswerWithdrawn", "CostLimitExceeded", "InvalidOutput", "ToolLoop"),
    "rxstage.stages.provider": ("ProviderStage",),
    "rxstage.stages.state": (
        "StateStoreLoadStage",
        "StateStoreSaveStage",
    ),
    "rxstage.stages.validation": ("ValidationStage",),
    "rxstage.validation": (
        "ValidationFailed",
        "ValidatorError",
    ),
    "rxstage.stages.vad": ("VADAccumulatorStage",),
    "rxstage.stages.stt": ("STTStage",),
    "rxstage.stages.tts": ("TTSStage",),
    "rxstage.stages.pacing": ("PacingStage",),
    "rxstage.stages.interruption": ("InterruptionStage",),
    "rxstage.stages.resample": ("ResampleStage",),
    "rxstage.audiospec": ("AudioSpec",),
    "rxstage.stages.turn": ("TurnStage",),
    "rxstage.stages.speculation": ("SpeculationStage",),
    "rxstage.stages.framing": ("FrameStage",),
    "rxstage.stages.gain": (
        "GainStage",
        "NormalizeStage",
    ),
    "rxstage.stages.level": (
        "Level",
        "LevelStage",
    ),
    "rxstage.stages.codec": (
        "DecodeStage",
        "EncodeStage",
    ),
    "rxstage.stages.audio_file": (
        "AudioFileSink",
        "AudioFileSource",
        "audio_file",
    ),
    "rxstage.stages.image": (
        "FrameRateStage",
        "ImageError",
        "ImageResizeStage",
    ),
    "rxstage.stages.parts": (
        "ComposeMessageStage",
        "ExtractMediaStage",
    ),
    "rxstage.stages.websocket": ("WebSocketBridgeStage",),
    "rxstage.stages.duplex": ("DuplexProviderStage",),
    "rxstage.voice.encoded": ("EncodedAudio",),
    "rxstage.voice.decoder": ("DecodeError",),
    "rxstage.voice.files": ("AudioFileError",),
    "rxstage.tools": ("Approval", "Progress", "Tool", "ToolContext", "ToolError", "Toolbox", "tool"),
    "rxstage.stages.prompt": ("PromptAssemblyStage",),
    "rxstage.stages.window": ("ConversationWindowStage",),
    "rxstage.stages.compaction": ("CompactionStage",),
    "rxstage.stages.retrieval": (
        "Document",
        "RetrievalStage",
    ),
    "rxstage.stages.media": (
        "MediaLoadStage",
        "MediaStorageStage",
    ),
    "rxstage.stages.middleware": (
        "MiddlewareAdapter",
        "MiddlewareContext",
        "MiddlewareResult",
        "wrap_middleware",
    ),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
