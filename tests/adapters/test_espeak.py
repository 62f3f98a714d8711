"""espeak-ng as a library: sound at once, stopped in mid-word, one voice at a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from rxstage.adapters.espeak import EspeakTts
from rxstage.ports import SpeechError
from rxstage.testing import assert_no_leaks

pytestmark = pytest.mark.needs("module:espeakng_loader")

SENTENCE = "Hello there, this is a sentence that takes a while to be said."


async def spoken(text: str, tts: EspeakTts | None = None) -> bytes:
    return b"".join([piece.samples async for piece in (tts or EspeakTts()).speak(text)])


def seconds(sound: bytes) -> float:
    return len(sound) / 2 / EspeakTts.sample_rate


def test_it_speaks() -> None:
    """A sentence becomes some seconds of sound that is loud, in pieces of 60 ms at most."""

    async def pieces() -> list[float]:
        return [piece.duration async for piece in EspeakTts().speak(SENTENCE)]

    with assert_no_leaks():
        durations = asyncio.run(pieces())
        sound = asyncio.run(spoken(SENTENCE))
    assert 2.0 < sum(durations) < 8.0
    assert max(durations) < 0.1
    assert np.abs(np.frombuffer(sound, "<i2")).max() > 3000


def test_rate_and_voice() -> None:
    """A faster voice is done earlier; a language that is not there is named."""
    slow, fast = (seconds(asyncio.run(spoken(SENTENCE, EspeakTts(rate=rate)))) for rate in (100, 300))
    assert fast < 0.6 * slow
    assert asyncio.run(spoken("Guten Tag", EspeakTts("de"))) != asyncio.run(spoken("Guten Tag"))
    with pytest.raises(SpeechError, match="espeak-ng has no voice 'klingonese'"):
        asyncio.run(spoken("x", EspeakTts("klingonese")))
    with pytest.raises(ValueError, match="80 to 450 words per minute"):
        EspeakTts(rate=1000)


def test_it_stops_in_mid_word() -> None:
    """Closed after a piece it is silent, and the next text is spoken at once, in its own voice."""

    async def main() -> bytes:
        speech = EspeakTts().speak(SENTENCE * 200)
        await anext(speech)
        await speech.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(10.0):
            return await spoken("next")

    with assert_no_leaks():
        assert 0.2 < seconds(asyncio.run(main())) < 1.5


def test_many_at_once() -> None:
    """Eight speakers take their turns, and each gets all of its own sound."""

    async def main() -> list[bytes]:
        return await asyncio.gather(*(spoken(f"This is number {number}.") for number in range(8)))

    with assert_no_leaks():
        sounds = asyncio.run(main())
    alone = [seconds(asyncio.run(spoken(f"This is number {number}."))) for number in range(8)]
    assert [seconds(sound) for sound in sounds] == pytest.approx(alone, rel=0.1)


def test_a_slow_listener_slows_it() -> None:
    """It makes no more than sixteen pieces ahead of who takes them."""
    made: list[int] = []

    async def main() -> None:
        tts = EspeakTts()
        speech = tts.speak(SENTENCE * 100)
        await anext(speech)
        for _ in range(200):
            await asyncio.sleep(0)
        made.append(len(speech.ag_frame.f_locals["job"]._pieces))  # type: ignore[attr-defined]
        await speech.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
    assert made[0] <= 16


@pytest.mark.parametrize("text", ["", "  \n", "\0", "🎉", "a\0b", "<speak>x</speak>", "x " * 50_000])
def test_odd_texts(text: str) -> None:
    """Nothing, control characters, pictures and very long texts do no harm."""

    async def main() -> float:
        heard = 0.0
        speech = EspeakTts(rate=450).speak(text)
        async for piece in speech:
            heard += piece.duration
            if heard > 5.0:
                break
        await speech.aclose()  # type: ignore[attr-defined]
        return heard

    with assert_no_leaks():
        heard = asyncio.run(main())
    assert (heard > 0.0) == bool(text.strip("\0 \n"))


def test_a_program_can_end_while_it_speaks() -> None:
    """No thread keeps the interpreter."""
    program = (
        "import asyncio\nfrom rxstage.adapters.espeak import EspeakTts\n"
        "async def main():\n    async for _ in EspeakTts().speak('a long text ' * 5000):\n        print('heard')\n"
        "        return\nasyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
