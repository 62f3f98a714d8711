"""A decoder of PocketSphinx, and what makes it deaf to who spoke before and how loud."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from time import sleep
from typing import Any, Final

from rxstage.errors import require
from rxstage.ports.stt import SpeechError

__all__ = ["RATE", "SphinxDecoder", "grammar_of"]

RATE: Final = 16_000
_STEP: Final = RATE // 100 * 2  # bytes at a time, 10 ms: the library keeps the interpreter locked for milliseconds
_PIECE: Final = RATE // 2 * 2  # bytes of which the level is taken at a time, 0.5 s
_FLOOR: Final = 30.0  # decibels below the speech
_LEAST: Final = 2.0  # the floor of what is silent, in steps of 16 bits
_WINDOW: Final = 500  # frames that a given mean counts for, in the library
_FRAME, _SHIFT = 410, 160  # samples
_FEATURES: Final = 13
_BREATH: Final = 1e-5  # seconds
_SEARCH: Final = "rxstage"
_LEVEL: Final = "rxstage level"  # a search that finds nothing, and costs next to nothing
_PHONES: Final = "rxstage phones"  # a search for sounds of speech in any order
_PHONES_WEIGHT: Final = 2.0  # of what sounds follow each other in English
_NO_SPEECH: Final = re.compile(r"\bSIL\b|\+\w+\+")  # among the sounds
_LEAST_SPEECH: Final = 2  # sounds, as in "hi"
_MISFIT: Final = 1.75e-3  # from here on an utterance is none of the grammar
# Narrower than by default, and without the second pass: as good on what was tried, and half the time.
_DICTATION: Final = {"fwdflat": False, "maxhmmpf": 5000, "maxwpf": 10}
# The best path through the lattice need not be one of the grammar.
_GRAMMAR: Final = {"lm": None, "bestpath": False}


class SphinxDecoder:
    """Makes text of utterances, one at a time, on whatever thread.

    Args:
        grammar: whole, in JSGF.
        keywords: phrases and their thresholds, instead of a grammar. Without either it takes dictation.
        words: pronunciations that the dictionary lacks.
        options: what else the decoder of the library takes.
        unknown: what an utterance becomes that does not sound like a sentence of the grammar; None: the nearest one.

    Raises:
        MissingExtra: PocketSphinx is not installed.
        SpeechError: the grammar cannot be used.
    """

    def __init__(
        self,
        grammar: str | None,
        keywords: Mapping[str, float],
        words: Mapping[str, str],
        options: Mapping[str, Any],
        unknown: str | None = None,
    ) -> None:
        sphinx = require("pocketsphinx", "pocketsphinx")
        self._numpy = require("numpy", "pocketsphinx")
        closed = grammar is not None or bool(keywords)
        settings = {"samprate": RATE, "loglevel": "FATAL", **(_GRAMMAR if closed else _DICTATION), **options}
        self._keywords = bool(keywords)
        self._closed = closed
        self._unknown = unknown
        self._steps = 20 if closed else 2  # that take 2 ms together
        try:
            self._decoder = decoder = sphinx.Decoder(**settings)
            for word, sounds in words.items():
                decoder.add_word(word, sounds, update=not closed)
            self._search = _SEARCH if closed else decoder.current_search()
            if grammar is not None:
                self._check(_words_of(grammar))
                decoder.add_jsgf_string(_SEARCH, grammar)
            elif keywords:
                self._check(word for phrase in keywords for word in phrase.split())
                _add_keywords(decoder, keywords)
            if unknown is not None:
                self._add_phones(os.path.join(sphinx.get_model_path("en-us"), "en-us-phone.lm.bin"))
            decoder.add_fsg(_LEVEL, decoder.create_fsg(_LEVEL, 0, 1, [(0, 1, 1.0, "<sil>")]))
        except (ValueError, RuntimeError, KeyError) as error:
            what = "the grammar" if grammar is not None else "what it was given"
            raise SpeechError(f"pocketsphinx cannot use {what}: {error}", engine="pocketsphinx") from error

    def _check(self, words: Iterator[str]) -> None:
        """Look for the words in the dictionary, which has small letters only; add those that have others."""
        missing: list[str] = []
        for word in dict.fromkeys(words):
            if self._decoder.lookup_word(word) is not None:
                continue
            variants = (word.lower(), *(f"{word.lower()}({number})" for number in range(2, 10)))
            sounds = [found for variant in variants if (found := self._decoder.lookup_word(variant)) is not None]
            for number, sound in enumerate(sounds, 1):
                self._decoder.add_word(word if number == 1 else f"{word}({number})", sound, update=False)
            if not sounds:
                missing.append(word)
        if missing:
            raise SpeechError(
                f"pocketsphinx does not know how these words sound: {', '.join(map(repr, missing))}; say it with "
                f"words={{{missing[0]!r}: '…'}}, in the phones of CMUdict",
                engine="pocketsphinx",
            )

    def _add_phones(self, path: str) -> None:
        config = self._decoder.config
        weight, config["lw"] = config["lw"], _PHONES_WEIGHT
        self._decoder.add_allphone_file(_PHONES, path)
        config["lw"] = weight

    def hear(self, samples: bytes, given_up: Callable[[], bool]) -> tuple[str, float | None]:
        """The words of an utterance and how sure they are; ("", None) where it is given up."""
        sound = self._floored(samples)
        decoder = self._decoder
        decoder.reinit_feat()  # forgets the noise of the utterance before
        decoder.activate_search(_LEVEL)
        mean = self._mean(sound, given_up)
        found = self._found(self._search, sound, mean, given_up)
        if self._unknown is not None and not given_up():
            fit = 0.0 if found is None else self._fit(found)
            sounds = self._found(_PHONES, sound, mean, given_up)
            spoken = 0 if sounds is None else len(_NO_SPEECH.sub("", sounds.hypstr).split())
            if spoken < _LEAST_SPEECH or given_up():
                return "", None
            # A filler model, as in R. C. Rose, D. B. Paul, "A hidden Markov model based keyword recognition system",
            # ICASSP 1990: where any sequence of sounds explains it much better, it was no sentence of the grammar.
            if found is None or (self._fit(sounds) - fit) / max(len(sound) // _STEP, 1) > _MISFIT:
                return self._unknown, None
        if found is None or given_up():
            return "", None
        if self._keywords:
            return _spotted(decoder.seg())
        text = found.hypstr.strip()
        # The probability is that of all words; of a grammar there is none.
        return text, None if self._closed or not text else min(found.prob ** (1 / len(text.split())), 1.0)

    def _found(self, search: str, sound: bytes, mean: str, given_up: Callable[[], bool]) -> Any:
        """What a search finds; None where that is nothing."""
        decoder = self._decoder
        decoder.activate_search(search)
        decoder.set_cmn(mean)
        decoder.start_utt()
        for number, begin in enumerate(range(0, len(sound), _STEP)):
            if given_up():
                break
            decoder.process_raw(sound[begin : begin + _STEP])
            if not number % self._steps:
                sleep(_BREATH)  # lets go of the interpreter, which others would wait for
        decoder.end_utt()
        return decoder.hyp()

    def _fit(self, found: Any) -> float:
        """How well what was found explains what was heard, as a logarithm.

        The mean of how well its sounds do, and of that with how likely the grammar has it: with the former alone a
        large grammar finds something in whatever is said, with the latter alone a small one.
        """
        sounds = sum(math.log(segment.ascore) for segment in self._decoder.seg() or () if segment.ascore > 0)
        return (sounds + math.log(max(found.best_score, sys.float_info.min))) / 2

    def _floored(self, samples: bytes) -> bytes:
        """The sound with some noise: of digital silence, as between the words of a machine, it understands nothing."""
        numpy = self._numpy
        sound = numpy.frombuffer(samples, dtype="<i2").astype(numpy.float32)
        level = max(float(numpy.sqrt(numpy.mean(sound * sound))) * 10 ** (-_FLOOR / 20), _LEAST)
        sound += numpy.random.default_rng(0).standard_normal(len(sound), dtype=numpy.float32) * level
        return bytes(numpy.clip(numpy.rint(sound), -32768, 32767).astype("<i2").tobytes())

    def _mean(self, sound: bytes, given_up: Callable[[], bool]) -> str:
        """The mean of the features over the whole utterance; left alone, it would use that of those before."""
        decoder = self._decoder
        sums, frames = [0.0] * _FEATURES, 0
        for begin in range(0, len(sound), _PIECE):
            piece = sound[begin : begin + _PIECE]
            count = (len(piece) // 2 - _FRAME) // _SHIFT + 1
            if count < 1 or given_up():
                break
            decoder.set_cmn(",".join(["0"] * _FEATURES))
            decoder.start_utt()
            decoder.process_raw(piece, no_search=True)
            means = decoder.get_cmn(update=True).split(",")
            decoder.end_utt()
            sums = [so_far + float(mean) * (_WINDOW + count) for so_far, mean in zip(sums, means, strict=True)]
            frames += count
        return ",".join(f"{total / max(frames, 1):.3f}" for total in sums)


def grammar_of(text: str) -> str:
    """A whole grammar in JSGF: with a header, if it has none.

    Raises:
        ValueError: no rule is public, or one is used that is not there.
    """
    if not text.lstrip().startswith("#JSGF"):
        text = f"#JSGF V1.0;\ngrammar rxstage;\n{text}"
    plain = _COMMENT.sub(" ", text)
    if not re.search(r"\bpublic\s*<", plain):
        raise ValueError("the grammar has no public rule; it needs one such as 'public <said> = yes | no;'")
    defined = set(re.findall(r"<([^>]*)>\s*=", plain))
    missing = sorted(set(re.findall(r"<([^>]*)>", plain)) - defined - {"NULL", "VOID"})
    if missing and not re.search(r"^\s*import\b", plain, re.MULTILINE):
        raise ValueError(f"the grammar uses rules that it does not have: {', '.join(f'<{name}>' for name in missing)}")
    return text


_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_NO_WORDS: Final = re.compile(
    r"^\s*#JSGF[^;]*;|^\s*(?:grammar|import)\b[^;]*;|<[^>]*>|\{[^}]*\}|/[\d.eE+\s-]+/|\bpublic\b", re.MULTILINE
)


def _words_of(grammar: str) -> Iterator[str]:
    """The words of a grammar."""
    plain = _NO_WORDS.sub(" ", _COMMENT.sub(" ", grammar))
    return (found[0].strip('"') for found in re.finditer(r"[^\s|()\[\]*+;=]+", plain))


def _add_keywords(decoder: Any, keywords: Mapping[str, float]) -> None:
    file, path = tempfile.mkstemp(suffix=".kws")  # the library reads them from a file only
    try:
        with open(file, "w", encoding="utf-8") as lines:
            lines.writelines(f"{phrase}/{threshold:g}/\n" for phrase, threshold in keywords.items())
        decoder.add_kws(_SEARCH, path)
    finally:
        os.unlink(path)


def _spotted(segments: Iterator[Any]) -> tuple[str, float | None]:
    """The phrases that were found, in their order; of those that overlap, the longest."""
    kept: list[Any] = []
    for segment in sorted(segments, key=lambda segment: segment.start_frame - segment.end_frame):
        if all(segment.start_frame >= each.end_frame or segment.end_frame <= each.start_frame for each in kept):
            kept.append(segment)
    kept.sort(key=lambda segment: segment.start_frame)
    return " ".join(segment.word.strip() for segment in kept), min((segment.prob for segment in kept), default=None)
