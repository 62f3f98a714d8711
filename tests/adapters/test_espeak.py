"""`EspeakTts`: what it says, that it stops, that many share it, by the library and by the program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from asking import on_a_loop
from uttering import heard, joined

from rxstage import MissingExtra
from rxstage.adapters import _espeak_engine, espeak
from rxstage.adapters._espeak_engine import Manner
from rxstage.adapters._spoken_text import speakable, text_pieces
from rxstage.adapters.espeak import EspeakTts
from rxstage.ports import SpeechError
from rxstage.testing import assert_no_leaks, run_virtual

LIBRARY: Final = pytest.mark.needs("module:espeakng_loader")
PROGRAM: Final = pytest.mark.needs("espeak-ng")
BOTH: Final = pytest.mark.parametrize(
    "program", [pytest.param(None, marks=LIBRARY, id="library"), pytest.param("espeak-ng", marks=PROGRAM, id="program")]
)
FOX: Final = "The quick brown fox jumps over the lazy dog. "


async def duration(text: str, **options: Any) -> float:
    """How long a text sounds [s]."""
    return (await joined(EspeakTts(**options).speak(text))).duration


def interpreter(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )


# ------------------------------------------------------------------------------------------ what it says


@BOTH
@on_a_loop
async def test_it_speaks(program: str | None) -> None:
    """A sentence comes as 16-bit mono at 22,050 Hz, in chunks of up to 60 ms, and is about as long as it has to be."""
    tts = EspeakTts(program=program)
    pieces = [piece async for piece in tts.speak("Hello there, how are you?")]
    assert {(piece.sample_rate, piece.channels, piece.format.value) for piece in pieces} == {(22_050, 1, "pcm16")}
    assert tts.sample_rate == 22_050
    assert max(piece.frames for piece in pieces) <= 1324
    assert 1.0 < sum(piece.duration for piece in pieces) < 2.5
    assert any(any(piece.samples) for piece in pieces)


@BOTH
@on_a_loop
async def test_nothing_to_say(program: str | None) -> None:
    """Of nothing, and of white space, no sound is made."""
    tts = EspeakTts(program=program)
    for text in ("", "  \n\t", "\0"):
        assert [piece async for piece in tts.speak(text)] == []


@BOTH
@on_a_loop
async def test_how_it_says_it(program: str | None) -> None:
    """Rate, volume and voice do what they say, and one object's manner is not the next one's."""
    normal = await duration("One two three four.", program=program)
    slow = await duration("One two three four.", program=program, rate=90)
    again = await duration("One two three four.", program=program)
    assert slow > 1.4 * normal
    assert again == pytest.approx(normal, abs=0.02)
    silent = await joined(EspeakTts(volume=0, program=program).speak("One two."))
    assert not any(silent.samples)
    german = await duration("Wetterbericht", voice="de", program=program)
    english = await duration("Wetterbericht", voice="en-us", program=program)
    assert german != pytest.approx(english, abs=0.01)


@BOTH
@on_a_loop
async def test_an_unknown_voice(program: str | None) -> None:
    """A voice that is not there is named, with examples; the next text of another voice is spoken."""
    with pytest.raises(
        SpeechError, match=r"espeak has no voice 'xx-nope'; voices are languages such as 'en-us'"
    ) as told:
        await duration("Hello", voice="xx-nope", program=program)
    assert (told.value.engine, told.value.retryable) == ("espeak", False)
    assert await duration("Hello", program=program) > 0.3


@BOTH
@on_a_loop
async def test_strange_text(program: str | None) -> None:
    """NUL, half characters, options and emoji are spoken or left out; a command of espeak's changes nothing."""
    tts = EspeakTts(program=program)
    before = await duration("Hello there.", program=program)
    for text in ("a\0b", "\ud800 hello", "-v de --stdout", "😀", "x" * 500, "ﷺ"):
        assert (await joined(tts.speak(text))).duration > 0.1
    assert speakable("\x01300S slow\x01 \x9b\x7f") == " 300S slow   "
    await joined(tts.speak("\x01400S\x01 hello"))
    assert await duration("Hello there.", program=program) == pytest.approx(before, abs=0.02)


@BOTH
@on_a_loop
async def test_ssml(program: str | None) -> None:
    """Marks are text, unless SSML is asked for."""
    text = 'One <break time="2s"/> two'
    assert await duration(text, ssml=True, program=program) > 2.5
    plain = await duration("One two", program=program)
    assert await duration("One &lt; two", ssml=True, program=program) < 2.0
    assert plain < 1.5


@LIBRARY
@on_a_loop
async def test_a_piece_of_text_has_an_end() -> None:
    """SSML that would be silent for an hour ends in an error, not in all memory."""
    with pytest.raises(SpeechError, match="would sound for more than 300 s"):
        await duration('One <break time="3600s"/> two', ssml=True)
    assert await duration("Hello") > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 10}, "rate is 80 to 450, got 10"),
        ({"pitch": 100}, "pitch is 0 to 99, got 100"),
        ({"volume": -1}, "volume is 0 to 200, got -1"),
        ({"voice": ""}, "voice is a name"),
        ({"voice": "a\0b"}, "voice is a name"),
        ({"voice": "-x"}, "voice is a name"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """What an option cannot be is told at once."""
    with pytest.raises(ValueError, match=message):
        EspeakTts(**options)


def test_text_is_cut_where_it_hurts_least() -> None:
    """Behind a sentence, else behind a clause, else between words, else anywhere; nothing is lost."""
    assert list(text_pieces("One two. Three, four five", 12)) == ["One two.", "Three,", "four five"]
    assert list(text_pieces("aaaa bbbb cccc", 9)) == ["aaaa", "bbbb cccc"]
    assert list(text_pieces("x" * 7, 3)) == ["xxx", "xxx", "x"]
    assert list(text_pieces("一二。三四", 4)) == ["一二。", "三四"]
    long = FOX * 50
    assert " ".join(text_pieces(long, 200)) == long.strip()
    assert max(map(len, text_pieces(long, 200))) <= 200


# ------------------------------------------------------------------------------------------ that it stops


@LIBRARY
def test_the_engine_stops_within_a_chunk() -> None:
    """Once nobody wants more, not one chunk is made any more."""
    given: list[bytes] = []

    def give(sound: bytes) -> bool:
        given.append(sound)
        return len(given) < 3

    def say() -> None:
        _espeak_engine.engine(None)(FOX * 4, Manner(), give)

    _espeak_engine.THREADS.submit(say).result(30)
    assert len(given) == 3


@LIBRARY
def test_an_error_on_the_way_passes_through_the_library() -> None:
    """What goes wrong where a chunk is taken ends the synthesis and is raised; the next one works."""

    def fail(sound: bytes) -> bool:
        raise ZeroDivisionError

    def say(give: Any) -> None:
        _espeak_engine.engine(None)("Hello", Manner(), give)

    with pytest.raises(ZeroDivisionError):
        _espeak_engine.THREADS.submit(say, fail).result(30)
    chunks: list[bytes] = []

    def take(sound: bytes) -> bool:
        chunks.append(sound)
        return True

    _espeak_engine.THREADS.submit(say, take).result(30)
    assert len(chunks) > 3


@BOTH
@on_a_loop
async def test_closing_stops_it(program: str | None) -> None:
    """A speech of 100,000 characters is closed in its second word; then the next one is spoken."""
    tts = EspeakTts(program=program)
    assert len(await heard(tts.speak("word " * 20_000), 5)) == 5
    assert (await joined(tts.speak("Hello"))).duration > 0.3


@BOTH
@on_a_loop
async def test_cancelling_stops_it(program: str | None) -> None:
    """A task that is cancelled while it waits for its turn, or in mid-word, leaves nothing that goes on."""
    tts = EspeakTts(program=program)
    first = asyncio.Event()

    async def listen() -> None:
        async for _ in tts.speak(FOX * 100):
            first.set()

    tasks = [asyncio.create_task(listen()) for _ in range(4)]
    await first.wait()
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert (await joined(tts.speak("Hello"))).duration > 0.3


@BOTH
@on_a_loop
async def test_it_waits_for_its_listener(program: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long text only one piece is made ahead, however long nobody takes it."""
    made: list[str] = []
    say = _espeak_engine.say

    def counted(making: Any, program: str | None, text: str, manner: Manner) -> None:
        made.append(text)
        say(making, program, text, manner)

    monkeypatch.setattr(espeak, "say", counted)
    sound: Any = EspeakTts(program=program).speak(FOX * 100)
    await anext(sound)
    await asyncio.to_thread(_espeak_engine.THREADS.submit(int).result, 30)  # whatever is behind it is done, too
    assert made == [(FOX * 4).strip()]
    for _ in range(400):
        await anext(sound)
    assert 2 <= len(made) <= 4
    await sound.aclose()


# ------------------------------------------------------------------------------------------ that many share it


@BOTH
@on_a_loop
async def test_eight_at_once(program: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight long texts are said one piece at a time in turn: all have begun before one is done; none is mixed up."""
    busy, most = 0, 0
    say = _espeak_engine.say

    def watched(*args: Any) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        say(*args)
        busy -= 1

    monkeypatch.setattr(espeak, "say", watched)
    told: list[tuple[str, int]] = []

    async def listen(number: int) -> float:
        length = 0.0
        async for piece in EspeakTts(program=program).speak(FOX * (8 + number)):
            if not length:
                told.append(("first", number))
            length += piece.duration
        told.append(("last", number))
        return length

    lengths = await asyncio.gather(*map(listen, range(8)))
    assert most == 1
    assert [number for what, number in told[:8] if what == "first"] == list(range(8))
    one = lengths[0] / 8
    assert lengths == pytest.approx([one * (8 + number) for number in range(8)], rel=0.02)


@LIBRARY
def test_several_loops() -> None:
    """One object speaks on three event loops of three threads at once."""
    tts = EspeakTts()
    lengths: list[float] = []

    def listen() -> None:
        lengths.append(asyncio.run(joined(tts.speak(FOX * 6))).duration)

    with assert_no_leaks():
        threads = [threading.Thread(target=listen) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(lengths) == 3
    assert lengths == pytest.approx([lengths[0]] * 3, rel=0.02)


@LIBRARY
def test_in_virtual_time() -> None:
    """A loop in virtual time waits for the engine: a time limit of a millisecond is not reached meanwhile."""

    async def main() -> float:
        async with asyncio.timeout(0.001):
            return (await joined(EspeakTts().speak(FOX))).duration

    assert run_virtual(main) > 2


# ------------------------------------------------------------------------------------------ where it is missing; ends


@pytest.mark.needs("module:espeakng_loader")
@on_a_loop
async def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not installed the program is run; where that is missing too, the error names both."""
    _espeak_engine.engine.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr("shutil.which", lambda program: None)
    try:
        with pytest.raises(MissingExtra, match=r"pip install 'rxstage\[espeak\]', or the program espeak-ng"):
            await duration("Hello")
        with pytest.raises(SpeechError, match="there is no program 'nope' on the path"):
            await duration("Hello", program="nope")
        monkeypatch.setattr("shutil.which", lambda program: f"/nowhere/{program}")
        with pytest.raises(SpeechError, match=r"/nowhere/espeak-ng cannot be run") as told:
            await duration("Hello")
        assert told.value.retryable
    finally:
        _espeak_engine.engine.cache_clear()


@LIBRARY
def test_the_library_does_not_start() -> None:
    """Where it cannot read its data, the error says where they are and what helps; the process lives."""
    done = interpreter("""
        import asyncio, espeakng_loader
        espeakng_loader.get_data_path = lambda: "/nowhere/" + "x" * 200
        from rxstage.adapters.espeak import EspeakTts
        async def main():
            try:
                async for _ in EspeakTts().speak("Hello"):
                    pass
            except Exception as error:
                print(type(error).__name__, error)
        asyncio.run(main())
    """)
    assert done.returncode == 0
    assert done.stdout.startswith("SpeechError espeak does not start (it answers ")
    assert "EspeakTts(program='espeak-ng') runs the program instead" in done.stdout


@BOTH
@pytest.mark.parametrize(
    "end", ["sys.exit(3)", "raise KeyboardInterrupt", "sys.exit(3) if loop.close() is None else 0"]
)
def test_the_interpreter_ends_meanwhile(program: str | None, end: str) -> None:
    """A program that ends while much is being said ends at once, and as it wants to."""
    done = interpreter(f"""
        import asyncio, sys, threading
        from rxstage.adapters.espeak import EspeakTts
        async def begin():
            global left
            left = [EspeakTts(program={program!r}).speak("Hello. " * 10_000) for _ in range(4)]
            await asyncio.gather(*map(anext, left))
            more = asyncio.ensure_future(drain(left[0]))
            await asyncio.sleep(0)
        async def drain(sound):
            async for _ in sound:
                pass
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        {end}
    """)
    assert done.returncode in (3, 1, -2, 130)
    assert "Fatal" not in done.stderr
    assert "Segmentation" not in done.stderr


@LIBRARY
def test_no_thread_stays() -> None:
    """When all is said, the thread of the engine is gone."""
    with assert_no_leaks():
        for _ in range(3):
            assert asyncio.run(joined(EspeakTts().speak("Hello"))).duration > 0.3
    deadline = time.monotonic() + 10
    while any(thread.name == "rxstage:espeak" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_loader_is_found() -> None:
    """Where the extra is installed, the engine is the library."""
    if find_spec("espeakng_loader") is not None:
        assert type(_espeak_engine.THREADS.submit(_espeak_engine.engine, None).result(30)).__name__ == "_Library"
