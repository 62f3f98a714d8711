"""Where what the user says comes from: a prompt in a terminal, or lines that are piped in."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rxstage.errors import require
from rxstage.pipeline import Pipeline
from rxstage.stages.basic import PassthroughStage

__all__ = ["Prompt", "hearing_ctrl_c", "interactive", "lines", "quiet"]

_MARK: Final = "\n> "
_FURTHER: Final = "· "  # before the further lines of one message


def interactive() -> bool:
    """Whether a person sits at both ends."""
    try:
        return sys.stdin.isatty() and sys.stdout.isatty()
    except (AttributeError, ValueError):  # there are none, or they are closed
        return False


class Prompt:
    """A line to write on, with a history; several lines can be pasted, or begun with Alt-Enter.

    Args:
        commands: what Tab completes at the beginning of a line.
        said: what the arrow keys bring back, oldest first.

    Raises:
        MissingExtra: prompt_toolkit is not installed.
    """

    def __init__(self, commands: Iterable[str], said: Iterable[str] = ()) -> None:
        toolkit = require("prompt_toolkit", "chat")
        history = require("prompt_toolkit.history", "chat").InMemoryHistory(list(said))
        self._session: Any = toolkit.PromptSession(
            history=history,
            completer=_completer(commands),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=_FURTHER,
        )

    async def ask(self) -> str:
        """What the user writes.

        Raises:
            KeyboardInterrupt: Ctrl-C on an empty line; on others it empties the line.
            EOFError: Ctrl-D on an empty line.
        """
        return str(await self._session.prompt_async(_MARK))

    async def confirm(self, question: str) -> bool:
        """Whether the user says yes."""
        toolkit = require("prompt_toolkit", "chat")
        try:
            answer = await toolkit.PromptSession().prompt_async(f"{question} [y/N] ")
        except (KeyboardInterrupt, EOFError):
            return False
        return str(answer).strip().lower() in ("y", "yes")


def _completer(commands: Iterable[str]) -> Any:
    return require("prompt_toolkit.completion", "chat").WordCompleter(list(commands), sentence=True)


def _keys() -> Any:
    """Enter ends the message, Alt-Enter begins another line of it, Ctrl-C empties what stands there."""
    keys = require("prompt_toolkit.key_binding", "chat").KeyBindings()

    def accept(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    def new_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    def leave(event: Any) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    keys.add("enter")(accept)
    keys.add("c-j")(accept)  # what was typed ahead brings line feeds
    keys.add("escape", "enter")(new_line)
    keys.add("c-c")(leave)
    return keys


async def lines() -> AsyncGenerator[str]:
    """The lines of standard input, read on a thread of their own, so that nothing else has to wait for them."""
    execution = Pipeline.of(PassthroughStage("lines")).execute(_read(), subscribe_on="thread")
    async with execution:
        async for element in execution:
            yield element.text or ""


def _read() -> Iterator[str]:
    if sys.stdin is None:
        return
    try:  # a reader of our own: nobody else's is waited for
        source: Any = open(sys.stdin.fileno(), encoding="utf-8-sig", errors="replace", closefd=False)  # noqa: SIM115
    except (OSError, ValueError):  # no file of the system's
        source = sys.stdin
    for line in source:
        yield line.rstrip("\r\n")


@contextmanager
def hearing_ctrl_c(call: Callable[[], object]) -> Iterator[None]:
    """Have Ctrl-C call something, on the running loop."""
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Have the terminal show nothing of what is typed; the next prompt gets it."""
    try:
        import termios
    except ImportError:  # not on Windows
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
