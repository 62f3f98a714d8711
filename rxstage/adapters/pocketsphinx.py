"""Speech recognition by PocketSphinx: offline, with a model that pip brings."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

from rxstage.adapters._sphinx_decoder import RATE, SphinxDecoder, grammar_of
from rxstage.adapters._threads import EngineThreads, Making
from rxstage.content import Audio, AudioFormat
from rxstage.ports.stt import SpeechError, Stt, Transcript

__all__ = ["PocketsphinxStt"]

_THRESHOLD: Final = 1e-20  # of a keyword: larger is stricter


class PocketsphinxStt(Stt):
    """PocketSphinx (extra `pocketsphinx`), which knows American English.

    With a grammar it understands what the grammar has, well and quickly, and takes everything for something in it,
    unless `unknown` says what to make of it.
    With keywords it looks for those in whatever is said. With neither it takes dictation, in which every fifth word is
    wrong in a quiet room, and every second in a loud one.

    The words that it finds depend on nothing that was said before. It runs on threads of its own, each with a decoder
    (40 MB with a grammar, 90 MB for dictation), which is made at the first use and kept. The library keeps the
    interpreter locked while it works: an event loop meanwhile runs a few milliseconds late, and once, while the decoder
    is made, 0.1 s with a grammar and 0.3 s for dictation.

    Args:
        grammar: in JSGF: `"public <said> = turn (on | off) the light;"`; a header is added where there is none.
        keywords: phrases to be found, or their thresholds: 1e-40 finds much that was not said, 1e-5 hardly anything.
        words: how words sound that its dictionary lacks, in the phones of CMUdict: `{"Ada": "EY D AH"}`.
        unknown: stands for an utterance that is no sentence of the grammar: a text such as
            `rxstage.ports.UNINTELLIGIBLE`, or "" to drop it; None takes it for the nearest sentence. To notice it costs
            50 ms for each second of speech; most of them are noticed, and a few sentences of the grammar are taken for
            such.
        at_once: utterances that it works on at a time; the others wait.
        name: what to call it.
        options: what else `pocketsphinx.Decoder` takes: `hmm`, `dict`, `lm` for another language …
    """

    name = "pocketsphinx"
    sample_rate = RATE

    def __init__(
        self,
        *,
        grammar: str | None = None,
        keywords: Iterable[str] | Mapping[str, float] = (),
        words: Mapping[str, str] | None = None,
        unknown: str | None = None,
        at_once: int = 2,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if at_once < 1:
            raise ValueError(f"PocketsphinxStt: at_once is at least 1, got {at_once!r}")
        if isinstance(keywords, str):
            raise TypeError(f"PocketsphinxStt: keywords are several phrases, got the text {keywords!r}")
        self.name = name or type(self).name
        self._keywords = dict(keywords) if isinstance(keywords, Mapping) else dict.fromkeys(keywords, _THRESHOLD)
        if grammar is not None and self._keywords:
            raise ValueError("PocketsphinxStt: give a grammar or keywords, not both")
        if bad := [phrase for phrase in self._keywords if not phrase.strip() or set("/\n\r") & set(phrase)]:
            raise ValueError(f"PocketsphinxStt: a keyword is one or more words, got {bad[0]!r}")
        if unknown is not None and (grammar is None or "hmm" in options):
            raise ValueError(
                f"PocketsphinxStt: unknown={unknown!r} needs a grammar, and the model of English that it brings"
            )
        self._unknown = unknown
        self._grammar = None if grammar is None else grammar_of(grammar)
        self._words = dict(words or {})
        self._options = options
        self._language = "" if "hmm" in options else "en-US"
        self._threads = EngineThreads("pocketsphinx", at_once)
        self._idle: list[SphinxDecoder] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        kind = "grammar" if self._grammar is not None else "keywords" if self._keywords else "dictation"
        return f"<PocketsphinxStt {self.name!r}: {kind}>"

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance; cancelling it gives it up within 10 ms of its sound.

        Raises:
            MissingExtra: PocketSphinx is not installed.
            SpeechError: the sound, the grammar or a word of it is not what it can use.
        """
        if audio.sample_rate != RATE or audio.channels != 1 or audio.format is not AudioFormat.PCM16:
            raise SpeechError(
                f"pocketsphinx hears 16-bit mono at {RATE} Hz, got {audio.channels} channel(s) of {audio.format} at "
                f"{audio.sample_rate} Hz; an STTStage makes it fit",
                engine=self.name,
            )
        if not audio.samples:
            return Transcript("", language=self._language)
        making: Making[Transcript] = Making(self._threads, self._hear, audio.samples)
        async with aclosing(making.pieces()) as found:
            return await anext(found, Transcript("", language=self._language))

    async def aclose(self) -> None:
        """Let go of the decoders that are idle; the object can be used again."""
        with self._lock:
            self._idle.clear()

    def _hear(self, making: Making[Transcript], samples: bytes) -> None:
        if making.stopped:
            return
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
        if decoder is None:
            decoder = SphinxDecoder(self._grammar, self._keywords, self._words, self._options, self._unknown)
        text, confidence = decoder.hear(samples, lambda: making.stopped)
        with self._lock:
            self._idle.append(decoder)  # one that has failed is not kept
        making.give(Transcript(text, confidence=confidence, language=self._language))
