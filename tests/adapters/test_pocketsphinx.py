"""Recognition without a network: what the local assistant can be asked, in noise; grammars; threads."""

from __future__ import annotations

import asyncio
import io
import subprocess
from functools import cache

import numpy as np
import pytest

from rxstage import Audio
from rxstage.adapters._arpa import trigrams
from rxstage.adapters.pocketsphinx import PocketsphinxStt, local_phrases
from rxstage.ports import SpeechError
from rxstage.testing import assert_no_leaks
from rxstage.voice.pcm import audio_of

pytestmark = pytest.mark.needs("espeak-ng", "module:pocketsphinx", "module:soxr", "module:soundfile")

ASKED = [
    "hello",
    "what is my name",
    "how many messages",
    "my name is ada",
    "what is six times seven",
    "that is enough",
]
VOICES = [("-v", "en", "-s", "150"), ("-v", "en-us", "-s", "140"), ("-v", "en-us+f3", "-s", "150")]


@cache
def said(text: str, voice: int, snr: float | None) -> Audio:
    import soundfile
    import soxr

    wav = subprocess.run(["espeak-ng", "--stdout", *VOICES[voice], text], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    sound = np.asarray(soxr.resample(samples, rate, 16_000), dtype=np.float32)
    if snr is not None:
        power = float(np.sqrt(np.mean(sound**2))) / 10 ** (snr / 20)
        sound = sound + np.random.default_rng(3).standard_normal(len(sound)).astype(np.float32) * power
    return audio_of(sound[:, None], 16_000)


@pytest.fixture(scope="module")
def local() -> PocketsphinxStt:
    return PocketsphinxStt(phrases=local_phrases())


def heard(stt: PocketsphinxStt, audio: Audio) -> str:
    return asyncio.run(stt.transcribe(audio)).text


@pytest.mark.parametrize(("snr", "least"), [(None, 16), (20.0, 15), (10.0, 10)])
def test_the_local_assistant_is_understood(local: PocketsphinxStt, snr: float | None, least: int) -> None:
    """Of six questions by three voices nearly all are understood to the word; in noise most."""
    right = sum(heard(local, said(text, voice, snr)) == text for text in ASKED for voice in range(3))
    assert right >= least


def test_a_grammar_is_exact() -> None:
    """With a grammar nothing else is understood."""
    grammar = "#JSGF V1.0; grammar light; public <light> = turn the light (on | off);"
    stt = PocketsphinxStt(grammar=grammar)
    assert heard(stt, said("turn the light on", 1, None)) == "turn the light on"
    assert heard(stt, said("turn the light off", 1, 20.0)) == "turn the light off"


def test_silence_has_no_words(local: PocketsphinxStt) -> None:
    """Nothing is heard in nothing, and nothing in no sound at all."""
    assert heard(local, Audio(bytes(0), 16_000)) == ""
    assert len(heard(local, Audio(bytes(32_000), 16_000)).split()) <= 1


def test_several_at_once(local: PocketsphinxStt) -> None:
    """Eight utterances at a time are each understood; no thread is left, and cancelling gives one up."""

    async def main() -> list[str]:
        lost = asyncio.create_task(local.transcribe(said("hello", 0, None)))
        await asyncio.sleep(0)
        lost.cancel()
        found = await asyncio.gather(*(local.transcribe(said(text, 1, None)) for text in ASKED[:4] * 2))
        return [transcript.text for transcript in found]

    asyncio.run(local.prepare())
    with assert_no_leaks():
        assert asyncio.run(main()) == ASKED[:4] * 2


def test_what_is_wrong_is_said() -> None:
    """Two kinds of knowledge, a word that is in no dictionary, a broken grammar, a model that is not there."""
    with pytest.raises(ValueError, match="one of the three"):
        PocketsphinxStt(phrases=["a"], grammar="b")
    with pytest.raises(SpeechError, match="the word 'xqzzt' is not in the dictionary"):
        heard(PocketsphinxStt(phrases=["hello xqzzt"]), Audio(bytes(3200), 16_000))
    with pytest.raises(SpeechError, match="pocketsphinx could not be started"):
        heard(PocketsphinxStt(model="/nowhere/x.lm"), Audio(bytes(3200), 16_000))


def test_trigrams() -> None:
    """The model has each word, pair and triple once, and likelier what stands there more often."""
    model = trigrams(["a b", "a b", "a c"])
    assert "ngram 1=5" in model
    assert "ngram 2=5" in model
    assert "ngram 3=4" in model
    pairs = model.partition("2-grams:")[2].partition("\\3-grams:")[0].split("\n")
    lines = {tuple(line.split()[1:3]): float(line.split()[0]) for line in pairs if line}
    assert lines["a", "b"] > lines["a", "c"]
    assert sum(10**value for (first, _), value in lines.items() if first == "a") == pytest.approx(0.9999, abs=1e-3)
