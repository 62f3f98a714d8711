"""What a line that begins with a slash does in a conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from rxstage.cli.chat_model import named
from rxstage.cli.chat_screen import Screen
from rxstage.cli.chat_session import Session
from rxstage.cli.chat_text import called, clean, one_line
from rxstage.cli.command import CommandError, plural
from rxstage.content import ToolResult, Usage
from rxstage.graph.model import Graph
from rxstage.observe.metrics import Metrics, StageMetrics
from rxstage.ports.provider import ToolSpec
from rxstage.ports.store import Entry
from rxstage.tools import Toolbox

__all__ = ["COMMANDS", "Commands", "cost"]

_SHOWN: Final = 20  # messages that /history shows

COMMANDS: Final = {
    "/help": "this list",
    "/tools": "what the model may call",
    "/save [FILE]": "write the conversation to a Markdown file",
    "/graph [mermaid]": "the pipeline, and what each stage has done",
    "/cost": "tokens and costs so far",
    "/history [N]": f"the newest messages, {_SHOWN} or N",
    "/system [TEXT]": "instruct the model anew; without a text, say what it is told",
    "/model [NAME]": "go on with another model, on the server of --base-url if there is one; or say which it is",
    "/clear": "forget what was said and begin anew",
    "/quit": "leave, as Ctrl-D does",
}


class Commands:
    """Carries them out.

    Args:
        session: the conversation.
        screen: shows what they have to say.
        confirm: asks the user; without one nothing is done that needs a yes.
        kept: whether the conversation outlives the process.
    """

    def __init__(
        self,
        session: Session,
        screen: Screen,
        confirm: Callable[[str], Awaitable[bool]] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        self._session, self._screen, self._confirm, self._kept = session, screen, confirm, kept

    async def run(self, line: str) -> bool:
        """Do what a line says; False where that is to leave.

        Raises:
            CommandError: there is no such command, or it cannot be done.
        """
        name, _, rest = line.strip().partition(" ")
        if name in ("/quit", "/exit", "/q"):
            return False
        names = [known.split()[0] for known in COMMANDS]
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "/help lists what there is"
            raise CommandError(f"there is no {one_line(name, 40)}; {hint}")
        try:
            await getattr(self, f"_{name[1:]}")(rest.strip())
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        return True

    async def _help(self, _: str) -> None:
        self._screen.pairs(COMMANDS)
        self._screen.note("Begin with // to say something that begins with a slash.")

    async def _tools(self, _: str) -> None:
        specs = Toolbox(self._session.tools).specs
        if not specs:
            self._screen.note("the model may call nothing")
        self._screen.pairs({f"{spec.name}({', '.join(_arguments(spec))})": spec.description for spec in specs})

    async def _save(self, rest: str) -> None:
        path = _path(rest or f"{_file_name(self._session.conversation)}.md")
        entries = await self._session.entries()
        if not entries:
            raise CommandError("nothing was said yet that could be saved")
        text = to_markdown(self._session.conversation, entries)
        if not _write(path, text, "x"):
            if self._confirm is None:
                raise CommandError(f"{path} is there already; name another file")
            if not await self._confirm(f"{clean(str(path))} is there already. Overwrite it?"):
                self._screen.note("not saved")
                return
            _write(path, text, "w")
        self._screen.note(f"{plural(len(entries), 'message')} saved in {path}")

    async def _graph(self, rest: str) -> None:
        if rest not in ("", "mermaid"):
            raise CommandError("write /graph, or /graph mermaid for its picture in Mermaid's language")
        pipeline, execution = self._session.pipeline, self._session.execution
        if rest:
            self._screen.verbatim(pipeline.to_mermaid())
            return
        self._screen.verbatim(to_boxes(pipeline.graph, execution.metrics() if execution is not None else Metrics()))

    async def _cost(self, _: str) -> None:
        self._screen.verbatim(f"{plural(self._session.answers, 'answer')}: {cost(self._session.used)}")

    async def _history(self, rest: str) -> None:
        count = int(rest) if rest.isdecimal() else _SHOWN
        entries = [entry for entry in await self._session.entries() if _said(entry)][-count:] if count else []
        if not entries:
            self._screen.note("nothing was said yet")
        self._screen.markdown(*(_quoted(entry) if entry.message.role == "user" else _said(entry) for entry in entries))

    async def _system(self, rest: str) -> None:
        if rest:
            await self._session.change(system=rest)
        self._screen.note(f"the model is told: {self._session.system or 'nothing'}")

    async def _model(self, rest: str) -> None:
        if rest:
            await self._session.change(model=named(rest, self._session.model.base_url))
        self._screen.note(f"the model is {self._session.model.label}")

    async def _clear(self, _: str) -> None:
        if self._kept:
            if self._confirm is None:
                raise CommandError("/clear would delete what is stored, and nobody can be asked here")
            if not await self._confirm(f"Delete what is stored of {clean(self._session.conversation)!r}?"):
                return
        await self._session.forget()
        self._screen.note("forgotten")


def cost(used: Usage) -> str:
    """Tokens and costs in words."""
    money = f" · ${used.cost:.4f}" if used.cost else ""
    return f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out{money}"


def to_markdown(conversation: str, entries: Iterable[Entry]) -> str:
    """A conversation as a document."""
    sections = [f"# {one_line(conversation, 200)}"]
    for entry in entries:
        message = entry.message
        calls = [f"`{_plain(called(call))}`" for call in message.tool_calls]
        results = [
            f"`{each.name}` gave `{_plain(each.value)}`" for each in message.parts if each.__class__ is ToolResult
        ]
        body = "\n\n".join([*filter(None, [clean(message.text).strip()]), *calls, *results])
        stopped = " (stopped)" if entry.metadata.get("interrupted") else ""
        sections.append(f"## {message.role.capitalize()}{stopped}\n\n{body}")
    return "\n\n".join(sections) + "\n"


def to_boxes(graph: Graph, metrics: Metrics) -> str:
    """Stages in series as boxes below each other, each with what it has done."""
    names = graph.order()
    width = max(map(len, names)) + 2
    middle = width // 2
    edge = "─" * width
    lines = []
    for index, name in enumerate(names):
        top = f"{edge[:middle]}┴{edge[middle + 1 :]}" if index else edge
        bottom = f"{edge[:middle]}┬{edge[middle + 1 :]}" if index < len(names) - 1 else edge
        done = metrics.stages.get(name, StageMetrics())
        errors = f", {plural(done.errors, 'error')}" if done.errors else ""
        lines += [f"┌{top}┐", f"│{name:^{width}}│ {done.received:,} in, {done.emitted:,} out{errors}", f"└{bottom}┘"]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return one_line(value if isinstance(value, str) else str(value), 2000).replace("`", "'")


def _said(entry: Entry) -> str:
    return entry.message.text.strip() if entry.message.role in ("user", "assistant") else ""


def _quoted(entry: Entry) -> str:
    return "\n".join(f"> {line}" for line in _said(entry).split("\n"))


def _arguments(spec: ToolSpec) -> Iterable[str]:
    names: Iterable[str] = spec.parameters.get("properties", {})
    return names


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _write(path: Path, text: str, mode: str) -> bool:
    """Write a file; False where it is there already and the mode is not to overwrite it."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _file_name(conversation: str) -> str:
    """The id of a conversation as the name of a file here."""
    kept: Sequence[str] = [each if each.isalnum() or each in "-_." else "-" for each in conversation]
    return "".join(kept).strip(".")[:80] or "conversation"
