"""`rxstage demo`: a real input through a pipeline with a branch, a route, an async stage and a merge."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Annotated, Final

import typer

import rxstage
from rxstage.cli.command import CommandError, command, console
from rxstage.cli.source import Input, open_input, piped
from rxstage.cli.stream import stream
from rxstage.config import PipelineConfig
from rxstage.element import StreamElement

__all__ = ["demo"]

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
_ESCAPES: Final = dict.fromkeys((*range(32), *range(127, 160)), "\ufffd")


@command
def demo(
    file: Annotated[
        str | None,
        typer.Argument(
            help="A text or WAV file, - for standard input; by default what is piped in, else the README. Or the word "
            "voice: a question in a WAV file is answered by voice."
        ),
    ] = None,
    question: Annotated[str | None, typer.Argument(help="With voice: the WAV file with the question.")] = None,
    out: Annotated[Path, typer.Option(help="With voice: the WAV file to write.")] = Path("answer.wav"),
    model: Annotated[str, typer.Option(help="With voice: who answers.")] = "local",
    stt: Annotated[
        str, typer.Option(help="With voice: the engine that understands speech.")
    ] = "pocketsphinx:assistant",
    tts: Annotated[str, typer.Option(help="With voice: the engine that speaks.")] = "espeak",
    vad: Annotated[str, typer.Option(help="With voice: the detector of speech.")] = "silero",
    system: Annotated[str | None, typer.Option(help="With voice: instructs the model.")] = None,
    slow: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait after each element: a slow consumer, to see backpressure.")
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no elements, only the table.")] = False,
    metrics: Annotated[bool, typer.Option(help="Measure processing times, and print the table at the end.")] = True,
    buffer_size: Annotated[int, typer.Option(min=1, help="Elements that a buffer holds before its source waits.")] = 16,
    svg: Annotated[Path | None, typer.Option(help="Write the picture of the pipeline to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print only the report, as one line of JSON.")] = False,
) -> int:
    """Stream a text or a WAV file through a pipeline, and show what each stage did.

    Text: headings, code, tables and paragraphs are told apart and routed, links are looked up, words are counted.
    Sound: a level meter, and a gate that tells loud segments (with their pitch) from silent ones.
    `demo voice QUESTION.wav --out ANSWER.wav` answers a spoken question by voice, without a network.
    """
    if file == "voice" and (question is not None or not Path(file).exists()):
        if question is None:
            raise CommandError("name the WAV file with the question: rxstage demo voice QUESTION.wav", code=2)
        from rxstage.cli.voice import answer_by_voice

        with open_input(question) as spoken:
            return answer_by_voice(spoken, out, model=model, stt=stt, tts=tts, vad=vad, system=system)
    if question is not None:
        raise CommandError(f"only `demo voice` takes a second file, got {question!r}", code=2)
    with _input(file) as source:
        config = PipelineConfig(metrics=metrics, buffer_size=buffer_size)
        if source.kind == "wav":
            from rxstage.cli.sound import sound_pipeline

            pipeline = sound_pipeline(config)
        else:
            from rxstage.cli.text import text_pipeline

            pipeline = text_pipeline(config, source.base)
        if svg is not None:
            svg.write_text(pipeline.to_svg(), encoding="utf-8")
        screen = console()
        order = {name: index for index, name in enumerate(pipeline.graph.stages)}

        def show(element: StreamElement) -> None:
            start = element.metadata.get("start")
            at = f"{element.sequence:6}" if start is None else f"{start:7.2f} s"
            colour = _COLOURS[order.get(element.source, 0) % len(_COLOURS)]
            text = (element.text or "").translate(_ESCAPES)
            screen.line_out((at, "dim"), "  ", (f"{element.source:10}", colour), "  ", text)

        report, code = stream(pipeline, source, None if quiet or json else show, slow=slow)
    if json:
        typer.echo(report.to_json())
    elif metrics:
        report.show()
    return code


def _input(file: str | None) -> Input:
    if file is not None or piped():
        return open_input(file)
    readme = Path(rxstage.__file__).parent.parent / "README.md"
    if readme.is_file() and (readme.parent / "pyproject.toml").is_file():  # in a checkout
        return open_input(str(readme))
    try:
        text = metadata("rxstage").get_payload()  # type: ignore[attr-defined]
    except PackageNotFoundError:
        text = ""
    if not text:
        raise CommandError("there is nothing to read: name a text or WAV file, or pipe one in")
    return Input(io.BufferedReader(io.BytesIO(text.encode())), "the README", None)
