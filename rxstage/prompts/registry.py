"""Prompts in a folder, by id and version."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from rxstage.prompts.errors import PromptError, PromptNotFound, nearest
from rxstage.prompts.prompt import Prompt, parse_reference
from rxstage.prompts.promptfile import SUFFIXES, PromptFile
from rxstage.prompts.template import includes

__all__ = ["PromptRegistry"]

_Stamp: TypeAlias = tuple[int, int, int]  # when it changed [ns], its size, its inode
_Index: TypeAlias = Mapping[str, Mapping[str, PromptFile]]

_SHOWN: Final = 10  # ids in an error


class PromptRegistry:
    """The prompts of a folder and of the folders in it: `*.md` with front matter, `*.yaml` and `*.yml`.

    A file says its `id` and `version`, or has them from its name: `support/refunds@2.md`. A template includes other
    prompts by their ids: `{% include "tone" %}`, `{% include "tone@1" %}`. Nothing outside the folder is read, hidden
    files and links that lead out of it are left alone. Any number of threads may use it at once.

    Args:
        folder: where the prompts are.
        reload: whether `get` looks for files that have changed, which takes a look at every file.
        max_files: how many files there may be.
        max_bytes: how big a file may be.

    Attributes:
        folder: as given.
        reload: as given.

    Raises:
        PromptError: everything that is wrong with the files, each with its line.
        MissingExtra: jinja2 or PyYAML is not installed (extra `prompts`).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        reload: bool = False,
        max_files: int = 1000,
        max_bytes: int = 256 * 1024,
    ) -> None:
        self.folder = Path(folder)
        self.reload = reload
        self._max_files, self._max_bytes = max_files, max_bytes
        self._lock = threading.Lock()
        self._stamps: dict[str, _Stamp] = {}
        self._files: dict[str, PromptFile] = {}  # those that could be read, as they were when they could
        self._bad: dict[str, PromptError] = {}  # files that cannot be read now
        self._linked: dict[str, Prompt] = {}  # by file
        self._prompts: Mapping[str, Mapping[str, Prompt]] = {}
        self._problems: tuple[PromptError, ...] = ()
        self.refresh()
        if self._problems:
            raise PromptError(
                f"{len(self._problems)} problem(s) in {self.folder}:"
                + "".join(f"\n  - {problem}" for problem in self._problems)
            )

    @property
    def problems(self) -> tuple[PromptError, ...]:
        """What is wrong with files that have changed since; their last good versions are in use."""
        return self._problems

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, sorted."""
        return tuple(sorted(self._prompts))

    def versions(self, id: str) -> tuple[str, ...]:
        """The versions of a prompt, the newest last.

        Raises:
            PromptNotFound: there is none of that id.
        """
        return tuple(sorted(self._of(id), key=_order))

    def get(self, id: str, version: str | None = None) -> Prompt:
        """A prompt.

        Args:
            id: `"id"` or `"id@version"`.
            version: by default the newest: `2` comes before `10`, and `1.9` before `1.10`.

        Raises:
            PromptNotFound: there is none of that id or version.
            PromptError: it is no id at all.
        """
        id, version = parse_reference(id, version)
        if self.reload:
            self.refresh()
        versions = self._of(id)
        if version is None:
            return versions[max(versions, key=_order)]
        if version not in versions:
            there = ", ".join(sorted(versions, key=_order)) or "one without a version"
            raise PromptNotFound(f"prompt {id!r} has no version {version!r} in {self.folder}; there is {there}")
        return versions[version]

    def _of(self, id: str) -> Mapping[str, Prompt]:
        prompts = self._prompts
        if id not in prompts:
            some = ", ".join(sorted(prompts)[:_SHOWN]) or "nothing"
            raise PromptNotFound(f"there is no prompt {id!r} in {self.folder}{nearest(id, prompts)}; there is {some}")
        return prompts[id]

    # ---------------------------------------------------------------- reading

    def refresh(self) -> bool:
        """Read the files that have changed, and tell whether any has.

        A file that cannot be read any more keeps its last good version, and stands in `problems`. One that is gone is
        gone.
        """
        with self._lock:
            try:
                stamps = dict(self._scan())
            except PromptError as error:
                self._problems, self._stamps = (error,), {}
                return False
            if stamps == self._stamps:
                return False
            for name in {*self._files, *self._bad} - stamps.keys():
                self._files.pop(name, None)
                self._bad.pop(name, None)
            for name in sorted(stamps):
                if stamps[name] != self._stamps.get(name):
                    self._read(name)
            self._stamps = stamps
            self._link()
            return True

    def _scan(self) -> Iterator[tuple[str, _Stamp]]:
        """The files, as paths with `/`, and how they can be told from what they were before."""
        if not self.folder.is_dir():
            raise PromptError(f"there is no folder {self.folder}")
        root = self.folder.resolve()
        count = 0
        for parent, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                path = Path(parent, file)
                if file.startswith(".") or not file.endswith(SUFFIXES):
                    continue
                try:
                    if path.is_symlink() and not path.resolve().is_relative_to(root):
                        continue
                    stat = path.stat()
                except OSError:  # it has just gone
                    continue
                count += 1
                if count > self._max_files:
                    raise PromptError(
                        f"{self.folder} has more than {self._max_files} prompts; is it the right folder? If so, raise "
                        f"max_files="
                    )
                yield path.relative_to(root).as_posix(), (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self, name: str) -> None:
        try:
            with open(self.folder / name, "rb") as file:
                data = file.read(self._max_bytes + 1)
            if len(data) > self._max_bytes:
                raise PromptError(f"{name}: it has more than {self._max_bytes} bytes; raise max_bytes=")
            self._files[name] = PromptFile(name, data.decode("utf-8-sig"))
        except PromptError as error:
            self._bad[name] = error
        except (OSError, UnicodeDecodeError) as error:
            self._bad[name] = PromptError(f"{name}: {error}")
        else:
            self._bad.pop(name, None)

    # ---------------------------------------------------------------- putting together

    def _link(self) -> None:
        """Put together what the files include, each prompt with all that it needs."""
        problems = list(self._bad.values())
        index: dict[str, dict[str, PromptFile]] = {}
        for _, file in sorted(self._files.items()):
            prompt = file.prompt
            other = index.setdefault(prompt.id, {}).setdefault(prompt.version, file)
            if other is not file:
                problems.append(
                    file.error(f"{prompt.reference!r} is in {other.name} already; give one another version")
                )
        linked: dict[str, Prompt] = {}
        prompts: dict[str, dict[str, Prompt]] = {}
        for id, versions in index.items():
            for version, file in versions.items():
                try:
                    linked[file.name] = _whole(file, index)
                except PromptError as error:
                    problems.append(error)
                    if file.name not in self._linked:
                        continue
                    linked[file.name] = self._linked[file.name]
                prompts.setdefault(id, {})[version] = linked[file.name]
        self._linked, self._prompts, self._problems = linked, prompts, tuple(problems)


def _whole(file: PromptFile, index: _Index) -> Prompt:
    """The prompt with everything that it includes among its fragments, compiled."""
    fragments = dict(file.prompt.fragments)
    open_: list[tuple[PromptFile, str, str]] = [(file, part, text) for part, _, text in file.prompt.parts()]
    open_ += [(file, f"fragments.{name}", text) for name, text in fragments.items()]
    while open_:
        source, part, text = open_.pop()
        for name, line in includes(text):
            if name in fragments:
                continue
            found = _find(name, index)
            if found is None:
                known = [*index, *fragments]
                problem = f"there is no fragment and no prompt {name!r}{nearest(name, known)}"
                raise source.located(PromptError(problem, part=part, line=line))
            fragments[name] = found.prompt.system
            open_.append((found, "system", found.prompt.system))
    prompt = file.prompt.model_copy(update={"fragments": fragments})
    try:
        prompt.templates  # noqa: B018 - compiles them
    except PromptError as error:
        raise file.located(error) from error
    return prompt


def _find(name: str, index: _Index) -> PromptFile | None:
    try:
        id, version = parse_reference(name)
    except PromptError:
        return None
    versions = index.get(id, {})
    if version is None and versions:
        version = max(versions, key=_order)
    return versions.get(version or "")


def _order(version: str) -> list[tuple[int, int, str]]:
    """By which versions are sorted: numbers in them count as numbers."""
    parts = re.findall(r"\d+|\D+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
