"""`rxstage chat`: a conversation with a model, in a terminal or through a pipe."""

from __future__ import annotations

from typing import Annotated

import typer

from rxstage.cli.command import CommandError, command

__all__ = ["chat"]


@command
def chat(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Who answers: openai:NAME, anthropic:NAME, google:NAME, ollama:NAME, local …"
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="A server that speaks OpenAI's protocol, its key in RXSTAGE_API_KEY.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructs the model.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Where the conversation is kept: sqlite:///file.db, redis://…, postgresql://…")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", "-c", help="Which of those that are kept; by default 'default'.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="How freely the model chooses its words.")] = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="The model may call no tools.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Show the text as it is, without drawing its Markdown.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to the first token of an answer.")] = 60.0,
) -> int:
    """Talk with a model: its answers stream, Ctrl-C stops one, /help lists the commands.

    With --base-url alone it is the first model that the server lists; without it, and without --model, the one that
    the environment variable RXSTAGE_MODEL names, else one of the provider that there is an API key for, else a local
    default that needs no network. Where standard input is no terminal, each of its lines is said to the model, and the
    answers are printed.
    """
    if timeout <= 0:
        raise CommandError(f"--timeout must be above 0 s, got {timeout}", code=2)
    if conversation is not None and store is None:
        raise CommandError("--conversation names one that is kept, and --store says where: give both", code=2)
    from rxstage.cli.chat_talk import talk  # only here: it brings what no other command needs

    parameters = {} if temperature is None else {"temperature": temperature}
    return talk(
        model,
        base_url,
        store,
        conversation or "default",
        system=system,
        parameters=parameters,
        tools=not no_tools,
        plain=plain,
        timeout=timeout,
    )
