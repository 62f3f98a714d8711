"""`rxstage serve`: a page to talk with a model, in a browser."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from rxstage.cli.command import CommandError, command, console, say

__all__ = ["serve"]

_DRAIN: Final = 1.0  # seconds that answers have at the end


@command
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes one that is free.")] = 8765,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Who answers, as for chat: openai:NAME, ollama:NAME, local …"),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="A server that speaks OpenAI's protocol, its key in RXSTAGE_API_KEY.")
    ] = None,
    stt: Annotated[
        str | None,
        typer.Option(
            help="What hears: pocketsphinx:assistant (what the script knows), pocketsphinx (any English, poorly), "
            "openai:gpt-4o-mini-transcribe, whisper:base …"
        ),
    ] = None,
    tts: Annotated[str, typer.Option(help="What speaks: espeak, espeak:de, openai:gpt-4o-mini-tts …")] = "espeak",
    vad: Annotated[str, typer.Option(help="What tells speech from noise: silero, energy or webrtc.")] = "silero",
    silence: Annotated[float, typer.Option(min=0.1, help="Seconds of silence that end what you say.")] = 0.6,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructs the model.")] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="RXSTAGE_SERVE_TOKEN", help="Whoever connects has to know it: the page's address ?token=…"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that the page is reached by, as behind a proxy; may be given repeatedly."),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="The certificate chain, for https.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
) -> None:
    """Serve a page to talk with a model: by voice, with the microphone of the browser, or in writing.

    Talking over an answer stops it. The page shows what was understood and answered, how long each stage took, and how
    full the pipeline is. Ctrl-C ends it.
    """
    if (cert is None) != (key is None):
        raise CommandError("--cert and --key belong together: give both", code=2)
    if token is not None and not token.strip():
        raise CommandError("--token is empty", code=2)
    from rxstage.cli.serve_pipeline import Voice  # only here: these bring what no other command needs
    from rxstage.cli.serve_server import page_server

    voice = Voice.of(model, base_url, stt=stt, tts=tts, vad=vad, silence=silence, system=system)
    tls = None if cert is None or key is None else (cert, key)
    server = page_server(voice, host, port, token=token, names=tuple(allow_host or ()), tls=tls)
    if server.options.is_open and token is None:
        say("everybody who can reach this address can talk to the model: --token asks for one")
    if server.options.is_open and tls is None:
        say("browsers give the microphone to https and to this machine only: other machines need --cert and --key")

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with suppress(NotImplementedError):  # not on Windows
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
        await server.start()
        try:
            await voice.warm()
            out = console()
            out.line_out(server.page + ("" if token is None else "?token=…"))
            engines = f"hears: {voice.hears} · answers: {voice.model.label} · speaks: {voice.speaks}"
            out.line_out((f"{engines} · Ctrl-C ends it", "dim"))
            await server.serve_forever()
        finally:
            await server.close(_DRAIN)

    with suppress(asyncio.CancelledError):  # SIGTERM
        asyncio.run(main())
