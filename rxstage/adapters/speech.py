"""The engines of speech that a name stands for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final

from rxstage.ports.stt import Stt
from rxstage.ports.tts import Tts

__all__ = ["stt_of", "tts_of"]


def _made(module: str, name: str, *args: Any, **options: Any) -> Any:
    return getattr(importlib.import_module(f"rxstage.adapters.{module}"), name)(*args, **options)


def _pocketsphinx(detail: str) -> Any:
    if detail not in ("", "local", "dictation"):
        raise ValueError(
            f"pocketsphinx is 'pocketsphinx', 'pocketsphinx:local' or 'pocketsphinx:dictation', got {detail!r}"
        )
    if detail == "dictation":
        return _made("pocketsphinx", "PocketsphinxStt")
    phrases = importlib.import_module("rxstage.adapters.pocketsphinx").local_phrases()
    return _made("pocketsphinx", "PocketsphinxStt", phrases=phrases)


_TTS: Final[dict[str, Callable[[str], Any]]] = {
    "espeak": lambda voice: _made("espeak", "EspeakTts", *([voice] if voice else [])),
    "openai": lambda model: _made("openai_speech", "OpenAITts", *([model] if model else [])),
}
_STT: Final[dict[str, Callable[[str], Any]]] = {
    "pocketsphinx": _pocketsphinx,
    "openai": lambda model: _made("openai_speech", "OpenAIStt", *([model] if model else [])),
    "whisper": lambda model: _made("whisper", "WhisperStt", *([model] if model else [])),
}


def tts_of(name: str) -> Tts:
    """The engine that speaks.

    | name | engine |
    | --- | --- |
    | `"espeak"`, `"espeak:de"` | espeak-ng with a voice, offline (extra `espeak`) |
    | `"openai"`, `"openai:gpt-4o-mini-tts"` | a model of OpenAI's (extra `openai`) |

    Raises:
        ValueError: there is none of that name.
    """
    made: Tts = _found(name, _TTS, "speaks")
    return made


def stt_of(name: str) -> Stt:
    """The engine that understands speech.

    | name | engine |
    | --- | --- |
    | `"pocketsphinx"` | what one can say to the local assistant, offline (extra `pocketsphinx`) |
    | `"pocketsphinx:dictation"` | the same engine for any English, poorly |
    | `"openai"`, `"openai:gpt-4o-mini-transcribe"` | a model of OpenAI's (extra `openai`) |
    | `"whisper"`, `"whisper:base"` | Whisper on this machine (`pip install faster-whisper`) |

    Raises:
        ValueError: there is none of that name.
    """
    made: Stt = _found(name, _STT, "understands speech")
    return made


def _found(name: str, engines: dict[str, Callable[[str], Any]], what: str) -> Any:
    kind, _, detail = name.partition(":")
    make = engines.get(kind)
    if make is None:
        near = get_close_matches(kind, engines, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(engines)}"
        raise ValueError(f"no engine that {what} is called {name!r}; {hint}")
    return make(detail)
