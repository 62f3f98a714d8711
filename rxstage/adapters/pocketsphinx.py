"""Recognition of speech without a network: pocketsphinx, with the English model in its wheel (extra `pocketsphinx`)."""

from __future__ import annotations

import asyncio
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from rxstage.adapters._arpa import trigrams
from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.stt import SpeechError, Stt, Transcript

__all__ = ["PocketsphinxStt", "local_phrases"]

_DECODERS: Final = 2  # of one engine: what it hears at a time; each takes about 60 MB
_PAUSE: Final = 4_800  # samples before and behind, which the decoder wants
_NOISE: Final = 65.0  # mean of the noise that is added: digital silence confuses the model, which never heard any
_TUNING: Final = {"beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80, "lw": 8.0}  # measured best for short sentences


class PocketsphinxStt(Stt):
    """Understands English offline, on a small machine.

    It is good at what it expects: give it the `phrases` of an application, or a grammar. Free dictation is poor.

    Args:
        phrases: sentences that may be said, as words in lower case; mixtures of them are understood, too.
        grammar: a grammar in JSGF instead: nothing else is understood.
        model: file of a language model in ARPA or binary form instead; by default the general English one.

    Raises:
        ValueError: more than one of the three is given.
    """

    name = "pocketsphinx"
    sample_rate = 16_000

    def __init__(
        self, *, phrases: Iterable[str] | None = None, grammar: str | None = None, model: str | None = None
    ) -> None:
        self.phrases = tuple(phrases) if phrases is not None else None
        self.grammar, self.model = grammar, model
        if sum(each is not None for each in (self.phrases, grammar, model)) > 1:
            raise ValueError("pocketsphinx takes phrases, a grammar or a model, one of the three")
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._slots = threading.Semaphore(_DECODERS)

    async def prepare(self) -> None:
        """Load the model, which takes a second or more, ahead of the first utterance."""
        await _on_thread(self._load)

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance; on a thread, which is left to itself where the call is cancelled."""
        found: Transcript = await _on_thread(self._heard, audio.samples)
        return found

    def _load(self) -> None:
        with self._slots:
            if self._free.empty():
                self._free.put(self._open())

    def _heard(self, samples: bytes) -> Transcript:
        with self._slots:
            try:
                decoder = self._free.get_nowait()
            except queue.Empty:
                decoder = self._open()
            try:
                decoder.start_utt()
                decoder.process_raw(_in_a_room(samples), no_search=False, full_utt=True)
                decoder.end_utt()
                found = decoder.hyp()
            finally:
                self._free.put(decoder)
        if found is None:
            return Transcript("", confidence=0.0, language="en")
        return Transcript(
            found.hypstr, confidence=min(max(float(decoder.get_logmath().exp(found.prob)), 0.0), 1.0), language="en"
        )

    def _open(self) -> Any:
        library = require("pocketsphinx", "pocketsphinx")
        options: dict[str, Any] = {"samprate": float(self.sample_rate), "loglevel": "FATAL"}
        try:
            if self.grammar is not None:
                decoder = library.Decoder(lm=None, **options)
                decoder.add_jsgf_string("grammar", self.grammar)
                decoder.activate_search("grammar")
                return decoder
            if self.phrases is not None:
                return self._with_phrases(library, options)
            return library.Decoder(**options, **({"lm": self.model} if self.model is not None else {}))
        except (RuntimeError, ValueError, OSError) as error:
            raise SpeechError(f"pocketsphinx could not be started: {error}", engine="pocketsphinx") from error

    def _with_phrases(self, library: Any, options: dict[str, Any]) -> Any:
        assert self.phrases is not None
        decoder = library.Decoder(lm=None, **options, **_TUNING)
        for word in sorted({word for phrase in self.phrases for word in phrase.split()}):
            if decoder.lookup_word(word) is None:
                raise ValueError(f"the word {word!r} is not in the dictionary; write it as it is spoken, in lower case")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "phrases.lm")
            with open(path, "w", encoding="ascii") as file:
                file.write(trigrams(self.phrases))
            decoder.add_lm_file("phrases", path)
        decoder.activate_search("phrases")
        return decoder


async def _on_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function on a daemon thread, which nobody waits for at the end of the program."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(settle: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            settle(value)

    def work() -> None:
        settle: Callable[[Any], None] = future.set_result
        try:
            value = function(*args)
        except BaseException as error:
            settle, value = future.set_exception, error
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(tell, settle, value)

    threading.Thread(target=work, name="rxstage-pocketsphinx", daemon=True).start()
    return await future


def _in_a_room(samples: bytes) -> bytes:
    """The sound with a pause before and behind, in a faint noise that is the same each time."""
    numpy = require("numpy", "audio")
    sound = numpy.frombuffer(bytes(2 * _PAUSE) + samples + bytes(2 * _PAUSE), dtype="<i2")
    noise = numpy.random.default_rng(1).standard_normal(len(sound)) * _NOISE
    return numpy.clip(sound + noise, -32768, 32767).astype("<i2").tobytes()  # type: ignore[no-any-return]


_NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NAMES: Final = ("ada", "alice", "anna", "bob", "charlie", "emma", "james", "john", "mary", "peter", "susan", "tom")


def local_phrases() -> tuple[str, ...]:
    """What one can say to the assistant that needs no network."""
    talk = (
        "hello",
        "hello there",
        "good morning",
        "good evening",
        "help me please",
        "what can you do",
        "who are you",
        "what is my name",
        "who am i",
        "how many messages",
        "what did i say",
        "thank you",
        "thank you very much",
        "goodbye",
        "stop please",
        "that is enough",
        "what is the weather in rome",
        "what is the time",
    )
    names = (f"my name is {name}" for name in _NAMES)
    sums = (
        f"what is {one} {operation} {other}"
        for one in _NUMBERS
        for operation in ("plus", "minus", "times")
        for other in _NUMBERS
    )
    return (*talk * 20, *names, *sums)
