"""`PocketsphinxStt` on real speech: words, noise, giving up, sharing; and what it is told that it cannot use."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, Final

import pytest
from asking import on_a_loop
from uttering import noisy, uttered, word_errors

from rxstage import Audio, MissingExtra, Pipeline
from rxstage.adapters import pocketsphinx
from rxstage.adapters._sphinx_decoder import SphinxDecoder, _words_of, grammar_of
from rxstage.adapters.espeak import EspeakTts
from rxstage.adapters.pocketsphinx import PocketsphinxStt
from rxstage.adapters.speech import stt_of
from rxstage.content import AudioFormat
from rxstage.ports import UNINTELLIGIBLE, SpeechError, Transcript
from rxstage.providers import LocalProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.stt import STTStage
from rxstage.testing import assert_no_leaks, run_virtual

pytestmark = pytest.mark.needs("module:pocketsphinx", "module:numpy", "module:soxr")

SWITCHES: Final = """
    public <said> = [please] turn (on | off) the <thing> | stop the music | what time is it;
    <thing> = light | radio | heating;
"""
COMMANDS: Final = (
    "turn on the light",
    "turn off the light",
    "please turn on the heating",
    "turn off the radio",
    "stop the music",
    "what time is it",
)
QUESTIONS: Final = {
    "what is six times seven": "42",
    "what is nine minus four": "5",
    "what is twelve divided by three": "4",
    "my name is Ada": "Nice to meet you, Ada.",
    "what is my name": "You have not told me",
    "hello": "Hello.",
    "what can you do": "script",
    "thank you": "You are welcome.",
}
DICTATED: Final = (
    "please turn on the light in the kitchen",
    "i would like to book a table for two people",
    "how do i get to the station",
    "what can you do",
    "can you play some music for me",
)


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


# ------------------------------------------------------------------------------------------ what it understands


@pytest.mark.parametrize("decibels", [None, 20, 10], ids=["clean", "20 dB", "10 dB"])
@on_a_loop
async def test_a_grammar(decibels: float | None) -> None:
    """Every command of a small grammar is understood to the word, with white noise 20 and 10 dB below it, too."""
    stt = PocketsphinxStt(grammar=SWITCHES)
    heard = [(await stt.transcribe(noisy(await uttered(command), decibels))).text for command in COMMANDS]
    assert heard == list(COMMANDS)


@pytest.mark.parametrize("decibels", [None, 25], ids=["clean", "25 dB"])
@on_a_loop
async def test_the_assistant(decibels: float | None) -> None:
    """What can be said to the local provider is understood, so that it answers."""
    stt = stt_of("pocketsphinx:assistant")
    heard = [(await stt.transcribe(noisy(await uttered(question), decibels))).text for question in QUESTIONS]
    assert heard == list(QUESTIONS)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_the_provider_answers_it(question: str, answer: str) -> None:
    """The local provider knows each of those sentences as they are written by the grammar."""
    assert answer in Pipeline.of(ProviderStage(provider=LocalProvider())).run(question).messages[-1].text


OTHERS: Final = (
    "tell me a joke",
    "how is the weather today",
    "who was the first president",
    "play some music",
    "what is the capital of France",
    "i would like to book a table for two people",
    "can you order a pizza for me",
    "how old are you",
)


@pytest.mark.parametrize("voice", ["en-us", "en-us+m3"])
@on_a_loop
async def test_no_sentence_of_the_grammar(voice: str) -> None:
    """What is none of the grammar is mostly told as such, where others take it for the nearest; what is one is not."""
    tts = EspeakTts(voice)
    marking, dropping = (PocketsphinxStt(grammar=SWITCHES, unknown=text) for text in (UNINTELLIGIBLE, ""))
    for text in COMMANDS:
        assert (await marking.transcribe(await uttered(text, tts))).text == text
    sounds = [await uttered(text, tts) for text in OTHERS]
    marked = [(await marking.transcribe(sound)).text for sound in sounds]
    assert marked.count(UNINTELLIGIBLE) >= 4  # usually six; no two utterances of espeak are quite the same
    dropped = [(await dropping.transcribe(sound)).text for sound in sounds]
    assert dropped == [text if text != UNINTELLIGIBLE else "" for text in marked]
    nearest = [(await PocketsphinxStt(grammar=SWITCHES).transcribe(sound)).text for sound in sounds]
    assert sum(text in COMMANDS for text in nearest) > sum(text in COMMANDS for text in marked)


@on_a_loop
async def test_the_assistant_asks_again() -> None:
    """The local assistant says that it has not understood what it does not know, in words and not at random."""
    pipeline = Pipeline.of(STTStage("hear", stt=stt_of("pocketsphinx:assistant")) >> ProviderStage(provider="local"))
    result = await pipeline.execute(
        [await uttered(text) for text in ("what is the capital of France", "what is six times seven")]
    )
    assert result.text.startswith(UNINTELLIGIBLE)
    told, answered = (message.text for message in result.messages if message.role == "assistant")
    assert answered == "6 * 7 = 42"
    assert told.startswith("I did not understand that.")


@on_a_loop
async def test_dictation() -> None:
    """Without a grammar most words of simple sentences are right, and it says how sure it is."""
    stt = PocketsphinxStt()
    wrong = said = 0
    for text in DICTATED:
        transcript = await stt.transcribe(await uttered(text))
        assert transcript.final
        assert transcript.language == "en-US"
        assert transcript.confidence is not None
        assert 0 < transcript.confidence <= 1
        errors, words = word_errors(text, transcript.text)
        wrong, said = wrong + errors, said + words
    assert wrong / said < 0.35


@on_a_loop
async def test_keywords() -> None:
    """Keywords are found in other speech, in their order; where there are none, nothing is understood."""
    stt = PocketsphinxStt(keywords={"turn off the light": 1e-20, "what time is it": 1e-20})
    found = await stt.transcribe(await uttered("well, turn off the light now. and, what time is it, my friend?"))
    assert found.text == "turn off the light what time is it"
    assert found.confidence is not None
    assert 0 < found.confidence <= 1
    assert (await stt.transcribe(await uttered("nothing of the kind"))).text == ""


@on_a_loop
async def test_words_that_it_lacks() -> None:
    """How a word sounds can be said; capitals of the grammar come out as they are."""
    stt = PocketsphinxStt(
        grammar="public <said> = call (Rxstage | London | Ada);", words={"Rxstage": "AA R EH K S T EY JH"}
    )
    assert (await stt.transcribe(await uttered("call London"))).text == "call London"
    assert (await stt.transcribe(await uttered("call R X stage"))).text == "call Rxstage"
    assert (await stt.transcribe(await uttered("call Ada"))).text == "call Ada"


@pytest.mark.parametrize("options", [{"grammar": SWITCHES}, {}, {"keywords": ["turn on the light"]}], ids=str)
@on_a_loop
async def test_no_words(options: dict[str, Any]) -> None:
    """Of no sound, a click and silence there are no words, and then it still understands."""
    stt = PocketsphinxStt(**options)
    for samples in (b"", b"\1\0", b"\0\0" * 100, b"\0\0" * 409, b"\0\0" * 1000, b"\0\0" * 32_000):
        assert (await stt.transcribe(Audio(samples, 16_000))).text == ""
    assert "on the light" in (await stt.transcribe(await uttered("turn on the light"))).text


@pytest.mark.parametrize("options", [{"grammar": SWITCHES}, {}], ids=["grammar", "dictation"])
@on_a_loop
async def test_it_starts_afresh(options: dict[str, Any]) -> None:
    """What it makes of an utterance depends on nothing that was said before, by whom and in what noise."""
    sound, other = await uttered("turn on the radio"), noisy(await uttered("stop the music"), 5)
    stt = PocketsphinxStt(at_once=1, **options)
    first = await stt.transcribe(sound)
    await stt.transcribe(Audio(other.samples * 3, 16_000))
    for engine in (stt, PocketsphinxStt(**options)):
        again = await engine.transcribe(sound)
        assert again.text == first.text
        assert (again.confidence or 0) == pytest.approx(first.confidence or 0, rel=1e-3)


@on_a_loop
async def test_how_loud_does_not_matter() -> None:
    """Speech at a twentieth of its loudness is understood."""
    sound = await uttered("please turn off the heating")
    quiet = (sound.numpy()[:, 0] / 20).astype("<i2").tobytes()  # type: ignore[operator]
    stt = PocketsphinxStt(grammar=SWITCHES)
    assert (await stt.transcribe(Audio(quiet, 16_000))).text == "please turn off the heating"


# ------------------------------------------------------------------------------------------ giving up, sharing


@pytest.mark.parametrize("options", [{"grammar": SWITCHES}, {}], ids=["grammar", "dictation"])
@on_a_loop
async def test_it_is_given_up(options: dict[str, Any]) -> None:
    """Minutes of sound are given up where they are; the decoder is used again."""
    stt = PocketsphinxStt(at_once=1, **options)
    sound = await uttered("turn on the light")
    before = await stt.transcribe(sound)
    long = asyncio.create_task(stt.transcribe(Audio(sound.samples * 150, 16_000)))
    waiting = asyncio.create_task(stt.transcribe(sound))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert (await waiting).text == before.text
    assert (await stt.transcribe(sound)).text == before.text


@on_a_loop
async def test_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight utterances come back each to whom it belongs, from no more decoders than are allowed, which are kept."""
    made: list[SphinxDecoder] = []

    def make(*args: Any) -> SphinxDecoder:
        made.append(SphinxDecoder(*args))
        return made[-1]

    monkeypatch.setattr(pocketsphinx, "SphinxDecoder", make)
    stt = PocketsphinxStt(grammar=SWITCHES, at_once=2)
    sounds = [await uttered(command) for command in COMMANDS]
    for _ in range(2):
        heard = await asyncio.gather(*map(stt.transcribe, sounds))
        assert [transcript.text for transcript in heard] == list(COMMANDS)
    assert 1 <= len(made) <= 2
    so_far = len(made)
    await stt.aclose()
    assert (await stt.transcribe(sounds[0])).text == COMMANDS[0]
    assert len(made) == so_far + 1


def test_several_loops() -> None:
    """One object serves loops on several threads, and no thread of its own stays."""
    stt = PocketsphinxStt(grammar=SWITCHES)
    sound = asyncio.run(uttered("stop the music"))
    heard: list[Transcript] = []

    def listen() -> None:
        heard.append(asyncio.run(stt.transcribe(sound)))

    with assert_no_leaks():
        threads = [threading.Thread(target=listen) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [transcript.text for transcript in heard] == ["stop the music"] * 3


def test_in_virtual_time() -> None:
    """A loop in virtual time waits for the engine: a time limit of a millisecond is not reached meanwhile."""
    sound = asyncio.run(uttered("stop the music"))

    async def main() -> str:
        async with asyncio.timeout(0.001):
            return (await PocketsphinxStt(grammar=SWITCHES).transcribe(sound)).text

    assert run_virtual(main) == "stop the music"


def test_the_interpreter_ends_meanwhile() -> None:
    """A program that ends while ten minutes of sound is being worked on ends at once, and as it wants to."""
    done = interpreter("""
        import asyncio, sys
        from rxstage import Audio
        from rxstage.adapters.pocketsphinx import PocketsphinxStt
        async def begin():
            stt = PocketsphinxStt(grammar="public <said> = yes | no;")
            await stt.transcribe(Audio(b"\\0\\1" * 1000, 16_000))
            global left
            left = asyncio.ensure_future(stt.transcribe(Audio(b"\\0\\1\\0\\2" * 16_000 * 300, 16_000)))
            await asyncio.sleep(0.05)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        sys.exit(3)
    """)
    assert done.returncode == 3, done.stderr
    assert "Fatal" not in done.stderr


# ------------------------------------------------------------------------------------------ what it cannot use


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"unknown": ""},
            ValueError,
            "unknown='' needs a grammar, and the model of English that it brings",
        ),
        (
            {"grammar": "<said> = yes;"},
            ValueError,
            "has no public rule; it needs one such as 'public <said> = yes | no;'",
        ),
        ({"grammar": "public <said> = <a> <b>; <a> = yes;"}, ValueError, "uses rules that it does not have: <b>"),
        ({"grammar": "public <said> = yes;", "keywords": ["no"]}, ValueError, "give a grammar or keywords, not both"),
        ({"keywords": "stop"}, TypeError, "keywords are several phrases, got the text 'stop'"),
        ({"keywords": ["stop", " "]}, ValueError, "a keyword is one or more words, got ' '"),
        ({"keywords": ["stop/1e-9/"]}, ValueError, "a keyword is one or more words, got 'stop/1e-9/'"),
        ({"at_once": 0}, ValueError, "at_once is at least 1, got 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """What an option cannot be is told at once."""
    with pytest.raises(kind) as told:
        PocketsphinxStt(**options)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"grammar": "public <said> = yes | blurbify | Zzyzzx;"},
            "does not know how these words sound: 'blurbify', 'Zzyzzx'; say it with words={'blurbify': '…'}",
        ),
        ({"keywords": ["stop", "blurbify it"]}, "does not know how these words sound: 'blurbify'"),
        ({"grammar": "public <said> = yes | (no;"}, "pocketsphinx cannot use the grammar: "),
        ({"hmm": "/nowhere"}, "pocketsphinx cannot use what it was given: "),
        ({"words": {"Ada": "NO SUCH PHONES"}}, "pocketsphinx cannot use what it was given: "),
    ],
)
@on_a_loop
async def test_what_is_found_at_the_first_use(options: dict[str, Any], message: str) -> None:
    """Words without a pronunciation, a wrong grammar and a model that is not there are errors that say so."""
    stt = PocketsphinxStt(**options)
    for _ in range(2):
        with pytest.raises(SpeechError) as told:
            await stt.transcribe(Audio(b"\0\0" * 16_000, 16_000))
        assert message in str(told.value)
        assert (told.value.engine, told.value.retryable) == ("pocketsphinx", False)


@pytest.mark.parametrize(
    "audio",
    [Audio(b"\0\0" * 80, 8_000), Audio(b"\0\0" * 320, 16_000, 2), Audio(b"\0" * 160, 16_000, 1, AudioFormat.MULAW)],
    ids=["rate", "channels", "format"],
)
@on_a_loop
async def test_other_sound(audio: Audio) -> None:
    """Sound that is not as it has to be is refused, with the remedy."""
    with pytest.raises(SpeechError, match=r"hears 16-bit mono at 16000 Hz, got .*; an STTStage makes it fit"):
        await PocketsphinxStt().transcribe(audio)


@on_a_loop
async def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rxstage\[pocketsphinx\]'"):
        await PocketsphinxStt().transcribe(Audio(b"\0\0" * 16_000, 16_000))


def test_the_words_of_a_grammar() -> None:
    """Words are told from headers, comments, names of rules, weights and tags; a header that lacks is added."""
    grammar = """#JSGF V1.0 UTF-8 en;
        grammar x.y; // none <of> this
        /* nor
           this */
        public <a> = /0.5/ turn {tag, with words} (on|off) | [the] "light" <b>* | it's+ ;
        <b> = <NULL> | /1e-3/ stop;
    """
    assert list(_words_of(grammar)) == ["turn", "on", "off", "the", "light", "it's", "stop"]
    assert grammar_of(grammar) == grammar
    assert grammar_of("public <a> = b;") == "#JSGF V1.0;\ngrammar rxstage;\npublic <a> = b;"
    assert "PocketsphinxStt 'pocketsphinx': grammar" in repr(PocketsphinxStt(grammar=grammar))
