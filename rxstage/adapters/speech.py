"""From the string that names a voice or an ear to the engine."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from rxstage.ports.stt import UNINTELLIGIBLE, Stt
from rxstage.ports.tts import Tts

__all__ = ["stt_of", "tts_of"]

_T = TypeVar("_T")


def tts_of(name: str, /, **options: Any) -> Tts:
    """The engine that speaks, by name.

    | name | engine |
    | --- | --- |
    | `"espeak"`, `"espeak:de"`, `"espeak:en-us+f3"` | espeak-ng, in that voice: offline |
    | `"piper:voice.onnx"` | Piper, with that voice: offline |
    | `"openai"`, `"openai:gpt-4o-mini-tts"` | OpenAI, or the server at `base_url` |

    Nothing is loaded or asked before it speaks, but the description of a voice of Piper's.

    Args:
        name: the name.
        options: what else the class of the engine takes: `rate`, `voice`, `base_url` …

    Raises:
        ValueError: there is none of that name; the message says what there is, and the nearest.
        SpeechError: the file of the voice is not there.
    """
    return _made(_TTS, "engine that speaks", name, options)


def stt_of(name: str, /, **options: Any) -> Stt:
    """The engine that understands speech, by name.

    | name | engine |
    | --- | --- |
    | `"pocketsphinx"` | PocketSphinx, taking dictation: offline, English, poor |
    | `"pocketsphinx:assistant"` | the same with a grammar of what `LocalProvider` understands |
    | `"pocketsphinx:commands.gram"` | the same with the grammar in that file |
    | `"whisper"`, `"whisper:base"`, `"whisper:/models/base.en"` | faster-whisper with that model |
    | `"openai"`, `"openai:gpt-4o-mini-transcribe"` | OpenAI, or the server at `base_url` |

    Nothing is loaded or asked before it listens, but the file of a grammar.

    Args:
        name: the name.
        options: what else the class of the engine takes: `language`, `words`, `base_url` …

    Raises:
        ValueError: there is none of that name; the message says what there is, and the nearest.
    """
    return _made(_STT, "engine that understands speech", name, options)


def _made(engines: dict[str, Callable[[str, dict[str, Any]], _T]], what: str, name: str, options: dict[str, Any]) -> _T:
    engine, _, detail = name.partition(":")
    if engine not in engines:
        near = difflib.get_close_matches(engine, engines, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"there is no {what} {name!r}{guess} There are {', '.join(engines)}")
    return engines[engine](detail, options)


def _class(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"rxstage.adapters.{module}"), name)


def _plain(module: str, name: str) -> Callable[[str, dict[str, Any]], Any]:
    """An engine whose first argument is what stands behind the colon, if anything does."""
    return lambda detail, options: _class(module, name)(*([detail] if detail else []), **options)


def _piper(detail: str, options: dict[str, Any]) -> Tts:
    if not detail:
        raise ValueError("piper needs a voice: 'piper:' and the path of its file, such as 'piper:voices/joe.onnx'")
    engine: Tts = _class("piper", "PiperTts")(detail, **options)
    return engine


def _pocketsphinx(detail: str, options: dict[str, Any]) -> Stt:
    if detail == "assistant":
        grammar = importlib.import_module("rxstage.adapters._assistant_grammar").ASSISTANT
        options = {"grammar": grammar, "unknown": UNINTELLIGIBLE, **options}
    elif detail:
        path = Path(detail)
        if not path.is_file():
            raise ValueError(
                f"there is no grammar {detail!r} for pocketsphinx; name 'assistant', or a file in JSGF that is there"
            )
        options = {"grammar": path.read_text(encoding="utf-8"), **options}
    engine: Stt = _class("pocketsphinx", "PocketsphinxStt")(**options)
    return engine


_TTS: Final[dict[str, Callable[[str, dict[str, Any]], Tts]]] = {
    "espeak": _plain("espeak", "EspeakTts"),
    "piper": _piper,
    "openai": _plain("openai_speech", "OpenAITts"),
}
_STT: Final[dict[str, Callable[[str, dict[str, Any]], Stt]]] = {
    "pocketsphinx": _pocketsphinx,
    "whisper": _plain("whisper", "WhisperStt"),
    "openai": _plain("openai_speech", "OpenAIStt"),
}
