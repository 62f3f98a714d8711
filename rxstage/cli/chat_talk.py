"""The conversation of `rxstage chat`, from the choice of the model to the last word."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import rxstage
from rxstage.adapters.memory import MemoryStore
from rxstage.adapters.stores import UnknownStore, store_of
from rxstage.cli.chat_commands import COMMANDS, Commands, cost
from rxstage.cli.chat_live import MarkdownScreen
from rxstage.cli.chat_model import choose
from rxstage.cli.chat_prompt import Prompt, hearing_ctrl_c, interactive, lines, quiet
from rxstage.cli.chat_screen import PlainScreen, Screen
from rxstage.cli.chat_session import Session
from rxstage.cli.chat_text import clean
from rxstage.cli.chat_tools import calculate, now
from rxstage.cli.command import INTERRUPTED, CommandError, console, explain, plural, say
from rxstage.content import Failure, Message, Text, ToolCall, ToolResult, Usage
from rxstage.dialogue.errors import AnswerWithdrawn
from rxstage.errors import RxStageError
from rxstage.observe.table import readable
from rxstage.ports.store import Entry, StateStore

__all__ = ["talk"]


def talk(
    model: str | None,
    base_url: str | None,
    store: str | None,
    conversation: str,
    *,
    system: str | None,
    parameters: Mapping[str, Any],
    tools: bool,
    plain: bool,
    timeout: float,
) -> int:
    """Hold a conversation; gives the exit code. For the arguments see `rxstage chat --help`.

    Raises:
        CommandError: there is no such model or store, or not all could be stored.
        RxStageError: the store cannot be read.
    """
    kept = _store(store)
    chosen = choose(model, base_url)
    if chosen.default:
        say(
            "no model is named and no API key set: the local default answers, a script. A real model: "
            "--model ollama:NAME, --base-url URL, or set OPENAI_API_KEY"
        )
    session = Session(
        chosen,
        kept,
        conversation,
        system=system,
        tools=(calculate, now) if tools else (),
        parameters=parameters,
        timeout=timeout,
    )
    return asyncio.run(_talk(session, store, plain))


def _store(url: str | None) -> StateStore:
    if url is None:
        return MemoryStore()
    try:
        return store_of(url)
    except UnknownStore as error:
        raise CommandError(f"--store: {error}", code=2) from error


async def _talk(session: Session, store: str | None, plain: bool) -> int:
    async with session.store:
        entries = await session.entries()  # a store that cannot be read is told before anything is said
        try:
            code = await (_in_terminal(session, store, entries, plain) if interactive() else _piped(session, store))
        except BaseException:
            await session.stop()
            raise
        await session.close()
    if session.unsaved is not None:
        raise CommandError(f"not all of the conversation could be stored: {clean(session.unsaved)}")
    return code


async def _piped(session: Session, store: str | None) -> int:
    """Every line is a turn."""
    screen = PlainScreen(sys.stdout, console(stderr=True), tools=False)
    commands = Commands(session, screen, kept=store is not None)
    failed = False
    async with aclosing(lines()) as turns:
        async for line in turns:
            try:
                if _is_command(line):
                    if not await commands.run(line):
                        break
                elif line.strip():
                    await _answer(session, screen, _unslashed(line))
            except (CommandError, RxStageError) as error:
                say(clean(explain(error)))
                failed = True
    return int(failed)


async def _in_terminal(session: Session, store: str | None, entries: Sequence[Entry], plain: bool) -> int:
    out = console()
    plain = plain or out.is_dumb_terminal or out.legacy_windows
    screen: Screen = PlainScreen(sys.stdout, out) if plain else MarkdownScreen(out)
    said = [clean(entry.message.text) for entry in entries if entry.message.role == "user"]
    prompt = Prompt([name.split()[0] for name in COMMANDS], said)
    commands = Commands(session, screen, prompt.confirm, kept=store is not None)
    kept = (
        f"{session.conversation!r} kept by {store.partition(':')[0]}, {plural(len(entries), 'message')}"
        if store
        else ""
    )
    screen.note(f"rxstage {rxstage.__version__} · {session.model.label} · {kept or 'nothing is kept: --store does'}")
    screen.note("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves")
    code = leaving = 0
    while True:
        try:
            line = await prompt.ask()
        except EOFError:
            break
        except KeyboardInterrupt:
            if leaving:
                code = INTERRUPTED
                break
            leaving = 1
            screen.note("Ctrl-C once more leaves, as /quit does")
            continue
        leaving = 0
        try:
            if _is_command(line):
                if not await commands.run(line):
                    break
            elif line.strip():
                with quiet(), hearing_ctrl_c(session.interrupt):
                    screen.note(await _answer(session, screen, _unslashed(line)))
                if session.unsaved is not None:
                    screen.note(f"not stored yet: {session.unsaved}", "yellow")
        except (CommandError, RxStageError) as error:
            screen.note(explain(error), "red")
    if session.answers:
        screen.note(f"{plural(session.answers, 'answer')}: {cost(session.used)}")
    return code


async def _answer(session: Session, screen: Screen, text: str) -> str:
    """Show what is answered; gives what it took, in words.

    Raises:
        RxStageError: there was no answer, or not all of it.
    """
    clock = asyncio.get_running_loop().time
    begin = clock()
    used = Usage()
    failed: BaseException | None = None
    screen.begin()
    try:
        async with aclosing(session.ask(text)) as answer:
            async for element in answer:
                match element.content:
                    case Text(text=piece):
                        screen.text(piece)
                    case ToolCall() as call:
                        screen.call(call)
                    case ToolResult() as result:
                        screen.result(result)
                    case Message(usage=Usage() as used):
                        pass
                    case Failure(error=AnswerWithdrawn() as error):
                        screen.void(str(error.__cause__))
                    case Failure(error=failed):
                        pass
    finally:
        screen.finish()
    if failed is not None:
        raise failed if isinstance(failed, RxStageError) else CommandError(explain(failed))
    return "stopped" if session.interrupted else f"{cost(used)} · {readable(clock() - begin)}"


def _is_command(line: str) -> bool:
    return line.startswith("/") and not line.startswith("//")


def _unslashed(line: str) -> str:
    return line[1:] if line.startswith("//") else line
