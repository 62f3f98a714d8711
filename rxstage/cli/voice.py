"""`rxstage demo voice`: a spoken question in a file is answered by voice into another one."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import Any, Final

from rxstage.cli.command import CommandError, console, say
from rxstage.cli.source import Input
from rxstage.config import PipelineConfig
from rxstage.content import Audio, AudioFormat
from rxstage.errors import MissingExtra, StageError
from rxstage.events import Event
from rxstage.pipeline import Pipeline
from rxstage.stages.provider import ProviderStage
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage
from rxstage.stages.vad import VADAccumulatorStage

__all__ = ["answer_by_voice", "voice_pipeline"]

_STEPS: Final = {
    "turn.ended": "speech end",
    "stt.completed": "transcript",
    "provider.call.first_token": "first token",
    "tts.first_audio": "first audio",
}


def voice_pipeline(model: str, stt: Any, tts: Any, vad: Any, system: str | None) -> Pipeline:
    """From the sound of a question to the sound of its answer."""
    stages = (
        VADAccumulatorStage("vad", vad=vad)
        >> STTStage("stt", stt=stt, on_error="fail")
        >> ProviderStage("assistant", provider=model, system=system)
        >> TTSStage("tts", tts=tts)
    )
    return Pipeline.of(stages, config=PipelineConfig(metrics=True), name="voice")


def answer_by_voice(source: Input, out: Path, *, model: str, stt: str, tts: str, vad: str, system: str | None) -> int:
    """Answer what is asked in a WAV file, and print when each step was reached; gives the exit code.

    Raises:
        CommandError: the input is no WAV file, nothing was said in it, an engine is missing, or the answer cannot be
            written.
    """
    if source.kind != "wav":
        raise CommandError(f"{source.name} is no WAV file; record a question, or make one with a synthesizer", code=2)
    _check(out, source)
    try:
        try:
            pipeline = voice_pipeline(model, stt, tts, vad, system)
        except ValueError as error:  # there is no such engine
            raise CommandError(str(error), code=2) from error
        return asyncio.run(_answer(pipeline, source, out))
    except (MissingExtra, StageError) as error:
        missing = error if isinstance(error, MissingExtra) else error.__cause__
        if not isinstance(missing, MissingExtra):
            raise
        raise CommandError(f"{missing}; with all that this needs: pip install 'rxstage[voice]'") from error


def _check(out: Path, source: Input) -> None:
    """Say what can be known before the work that the answer cannot be written."""
    if out.is_dir():
        raise CommandError(f"{out} is a directory; name a WAV file in it", code=2)
    if not out.parent.is_dir():
        raise CommandError(f"{out} cannot be written: there is no directory {out.parent}", code=2)
    if out.exists() and Path(source.name).exists() and out.samefile(source.name):
        raise CommandError(f"the answer would overwrite the question {out}; name another file with --out", code=2)


async def _answer(pipeline: Pipeline, source: Input, out: Path) -> int:
    screen = console()
    sound: list[Audio] = []
    turn: dict[str, float] = {}
    execution = pipeline.execute(source.source)

    def told(event: Event) -> None:
        step = _STEPS.get(event.type)
        if step == "speech end":
            turn.clear()
        if step is not None:
            turn.setdefault(step, event.time)

    execution.events.subscribe(told)
    asked = 0
    async for element in execution:
        content: Any = element.content
        if element.audio is not None:
            sound.append(element.audio)
        elif element.metadata.get("transcript") == "final" and element.text is not None:
            asked += 1
            screen.line_out(("you       ", "bold cyan"), element.text)
        elif element.message is not None and element.message.role == "assistant":
            screen.line_out(("assistant ", "bold green"), " ".join(element.message.text.split()))
        elif element.failure is not None:
            say(f"stage {element.failure.stage!r} passed on a failure: {element.failure.error}")
        elif type(content).__name__ == "EndOfTurn" and turn:
            _show(turn, asyncio.get_running_loop().time())
    if not asked:
        raise CommandError(f"no words were understood in {source.name}; speak louder, or name another --stt")
    _write(out, sound)
    screen.line_out(("answer    ", "bold"), f"{sum(audio.duration for audio in sound):.2f} s of sound in {out}")
    return 0


def _show(turn: dict[str, float], end: float) -> None:
    begin = turn.get("speech end", end)
    steps = [f"{step} +{(at - begin) * 1e3:.0f} ms" for step, at in (*turn.items(), ("end", end))]
    console().line_out(("time line ", "dim"), (" → ".join(steps).replace("speech end +0 ms", "speech end"), "dim"))


def _write(path: Path, sound: list[Audio]) -> None:
    """The sound as a WAV file of 16-bit samples."""
    first = sound[0] if sound else Audio(b"", 16_000)
    if any((audio.sample_rate, audio.channels) != (first.sample_rate, first.channels) for audio in sound):
        raise CommandError("the answers have several sample rates; answer one question at a time")
    try:
        with path.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(first.channels)
            file.setsampwidth(2)
            file.setframerate(first.sample_rate)
            for audio in sound:
                if audio.format is not AudioFormat.PCM16:
                    from rxstage.voice.pcm import audio_of, samples_of

                    audio = audio_of(samples_of(audio), audio.sample_rate)
                file.writeframes(audio.samples)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
