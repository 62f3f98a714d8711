"""A folder of prompts: what is read of it, how it changes, and what it keeps out."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rxstage import Message
from rxstage.prompts import PromptError, PromptNotFound, PromptRegistry


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file so that its time of change is another than before."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    return path


SUPPORT = """---
id: support
version: 2
description: Answers customers.
variables:
  tone: kind
examples:
  - user: Hi
    assistant: Hello, {{ name }}!
---

You are {{ name }}.
{% include "parts/tone" %}
"""
YAML = """
id: support
version: "10"
system: |
  You are number ten,
  {{ name }}.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two prompts and a fragment."""
    write(tmp_path, "support.md", SUPPORT)
    write(tmp_path, "newer.yaml", YAML)
    write(tmp_path, "parts/tone.md", "Be {{ tone }}.")
    write(tmp_path, "README.txt", "{{ no prompt")
    return tmp_path


def test_by_id_and_version(folder: Path) -> None:
    """A prompt is had by id, in its newest version or in the one that is named; numbers count as numbers."""
    registry = PromptRegistry(folder)
    assert registry.ids == ("parts/tone", "support")
    assert registry.versions("support") == ("2", "10")
    assert registry.get("support").reference == "support@10"
    assert registry.get("support").render({"name": "Ann"}) == (Message.system("You are number ten,\nAnn."),)
    old = registry.get("support", "2")
    assert old is registry.get("support@2")
    assert old.description == "Answers customers."
    assert old.render({"name": "Ann"}) == (
        Message.system("You are Ann.\nBe kind."),
        Message.user("Hi"),
        Message.assistant("Hello, Ann!"),
    )


def test_names_of_files(tmp_path: Path) -> None:
    """A file that says no id has it, and its version, from its path; a Markdown file needs no front matter."""
    write(tmp_path, "shop/help@1.9.md", "old")
    write(tmp_path, "shop/help@1.10.md", "new")
    write(tmp_path, "plain.yml", "system: x")
    write(tmp_path, "empty.md", "")
    registry = PromptRegistry(tmp_path)
    assert registry.ids == ("empty", "plain", "shop/help")
    assert registry.get("shop/help").system == "new"
    assert registry.get("shop/help@1.9").system == "old"
    assert registry.get("plain").reference == "plain"


def test_included_versions(tmp_path: Path) -> None:
    """An include takes the newest version, or the one that it names; a prompt's own fragments go first."""
    write(tmp_path, "tone@1.md", "one")
    write(tmp_path, "tone@2.md", "two")
    write(tmp_path, "a.md", "{% include 'tone' %} {% include 'tone@1' %} {% include 'own' %}{% include 'tone' %}")
    write(tmp_path, "own.md", "other")
    write(tmp_path, "b.yaml", "system: \"{% include 'own' %}\"\nfragments: {own: mine}")
    registry = PromptRegistry(tmp_path)
    assert registry.get("a").render() == (Message.system("two one othertwo"),)
    assert registry.get("b").render() == (Message.system("mine"),)


def test_not_found(folder: Path) -> None:
    """What is not there is an error that says what is."""
    registry = PromptRegistry(folder)
    with pytest.raises(
        PromptNotFound, match=r"no prompt 'suport' in .* \(did you mean 'support'\?\); there is parts/tone"
    ):
        registry.get("suport")
    with pytest.raises(PromptNotFound, match=r"'support' has no version '3' in .*; there is 2, 10"):
        registry.get("support", "3")
    with pytest.raises(PromptNotFound):
        registry.versions("x")


# ------------------------------------------------------------------------------------------ what is wrong


def test_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    """The first reading reports all problems, each with its file and line."""
    write(tmp_path, "a.md", "---\nsystm: x\n---\ny")
    write(tmp_path, "b.md", "---\nid: b\n---\n\nfine\n{{ oops")
    write(tmp_path, "c.yaml", "system: |\n  one\n  {% if %}\n")
    write(tmp_path, "d.yaml", "examples:\n  - user: x\n    assistant: '{{ }'\n")
    write(tmp_path, "e.yaml", "a: [")
    write(tmp_path, "f.md", "x\n{% include 'nowhere' %}")
    write(tmp_path, "g.yaml", "id: b2\nversion: 1.10\n")
    write(tmp_path, "h.yaml", "- a")
    write(tmp_path, "i.md", "{% include 'i' %}")
    write(tmp_path, "j.md", "---\nid: same\n---\n")
    write(tmp_path, "k.md", "---\nid: same\n---\n")
    (tmp_path / "l.md").write_bytes(b"\xff\xfe\xff")
    write(tmp_path, "m.md", "---\nsystem: x\n---\ny")
    with pytest.raises(PromptError) as caught:
        PromptRegistry(tmp_path)
    said = str(caught.value)
    assert said.startswith("12 problem(s) in ")
    for problem in (
        "a.md:2: systm: Extra inputs are not permitted",
        "b.md:6: unexpected end of template",
        "c.yaml:3: system: Expected an expression",
        "d.yaml:3: examples.0.assistant: unexpected",
        "e.yaml:1: ",
        "f.md:2: there is no fragment and no prompt 'nowhere'",
        "g.yaml:2: version: Value error, put the version in quotes: 1.1 is a number",
        "h.yaml:1: a prompt is a mapping",
        "i.md:1: the fragments include each other: i → i",
        "k.md: 'same' is in j.md already; give one another version",
        "l.md: ",
        "m.md:2: the system prompt is what stands below the front matter",
    ):
        assert problem in said, said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("system: !!python/object/apply:os.system ['echo x > /tmp/owned']", "could not determine a constructor"),
        ("system: !!python/name:os.system", "could not determine a constructor"),
        ("!!python/object/new:subprocess.Popen [['ls']]", "could not determine a constructor"),
        ("variables: {a: !!python/object:builtins.object {}}", "could not determine a constructor"),
        ("variables: {a: &a [1], b: *a}", "there are no aliases"),
        ("variables: {a: &a [*a]}", "there are no aliases"),
        ("system: a\nsystem: b", "'system' is there twice"),
        ("variables: {? [a] : b}", "a key is a name"),
        ("variables: " + "[" * 30 + "]" * 30, "nested more than 20 deep"),
        ("id: ../outside", "id: String should match pattern"),
        ("id: /etc/passwd", "id: String should match pattern"),
        ("a: b: c", "mapping values are not allowed here"),
        ("system: 'x", "found unexpected end of stream"),
        ("system: \x01", "no YAML"),
        ("--- a\n--- b", "expected a single document|but found another document"),
        ("system: 2024-01-01", "system: Input should be a valid string"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, problem: str) -> None:
    """Tags that make objects, aliases and doubled keys are errors of the file; nothing of them is carried out."""
    write(tmp_path, "bad.yaml", text)
    with pytest.raises(PromptError, match=problem) as caught:
        PromptRegistry(tmp_path)
    assert "bad.yaml" in str(caught.value)
    assert not Path("/tmp/owned").exists()


def test_words_stay_words(tmp_path: Path) -> None:
    """`no` and `on` in YAML are words, as in YAML 1.2."""
    write(tmp_path, "a.yaml", "variables: {country: no, switch: on, really: true, number: 1}")
    assert PromptRegistry(tmp_path).get("a").variables == {"country": "no", "switch": "on", "really": True, "number": 1}


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A folder that is missing is an error; an empty one is not."""
    with pytest.raises(PromptError, match="there is no folder"):
        PromptRegistry(tmp_path / "none")
    assert PromptRegistry(tmp_path).ids == ()


def test_bounds(tmp_path: Path) -> None:
    """Too many files and too big ones are errors that name the option."""
    write(tmp_path, "a.md", "x" * 101)
    with pytest.raises(PromptError, match=r"a\.md: it has more than 100 bytes; raise max_bytes="):
        PromptRegistry(tmp_path, max_bytes=100)
    write(tmp_path, "b.md", "x")
    with pytest.raises(PromptError, match="more than 1 prompts"):
        PromptRegistry(tmp_path, max_files=1)


# ------------------------------------------------------------------------------------------ what it keeps out


@pytest.mark.parametrize("id", ["../secret", "/etc/passwd", "a/../../secret", "..", "secret\x00", "parts/../../secret"])
def test_ids_lead_nowhere(folder: Path, id: str) -> None:
    """An id that would lead out of the folder is none."""
    write(folder.parent, "secret.md", "s3cret")
    with pytest.raises(PromptError, match="is no id of a prompt"):
        PromptRegistry(folder).get(id)


def test_includes_lead_nowhere(tmp_path: Path) -> None:
    """An include finds prompts of the registry only."""
    write(tmp_path, "secret.md", "s3cret")
    write(tmp_path, "inside/a.md", "{% include '../secret' %}")
    with pytest.raises(PromptError, match=r"there is no fragment and no prompt '\.\./secret'"):
        PromptRegistry(tmp_path / "inside")


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    """A link that leads out of the folder is left alone, one that stays inside is not; hidden files are left alone."""
    write(tmp_path, "secret.md", "s3cret")
    write(tmp_path, "other/b.md", "s3cret")
    inside = tmp_path / "inside"
    write(inside, "a.md", "a")
    write(inside, ".hidden.md", "{{")
    write(inside, ".git/c.md", "{{")
    (inside / "out.md").symlink_to(tmp_path / "secret.md")
    (inside / "folder").symlink_to(tmp_path / "other", target_is_directory=True)
    (inside / "again.md").symlink_to(inside / "a.md")
    (inside / "dangling.md").symlink_to(inside / "gone.md")
    assert PromptRegistry(inside).ids == ("a", "again")


# ------------------------------------------------------------------------------------------ changes


def test_reload(folder: Path) -> None:
    """With `reload`, what changes is seen by the next `get`: edited, new and deleted files, and what they include."""
    registry = PromptRegistry(folder, reload=True)
    assert registry.get("support@2").render({"name": "A"})[0] == Message.system("You are A.\nBe kind.")
    write(folder, "parts/tone.md", "Be very {{ tone }}.")
    assert registry.get("support@2").render({"name": "A"})[0] == Message.system("You are A.\nBe very kind.")
    write(folder, "more.md", "more")
    assert registry.get("more").system == "more"
    (folder / "newer.yaml").unlink()
    assert registry.get("support").version == "2"


def test_no_reload(folder: Path) -> None:
    """Without it, what changes is seen after a `refresh`, which says whether anything has changed."""
    registry = PromptRegistry(folder)
    prompt = registry.get("support")
    assert not registry.refresh()
    write(folder, "newer.yaml", YAML.replace("ten", "eleven"))
    assert registry.get("support") is prompt
    assert registry.refresh()
    assert "eleven" in registry.get("support").system


def test_the_same_object_while_nothing_changes(folder: Path) -> None:
    """A prompt is put together and compiled once, not for each `get`."""
    registry = PromptRegistry(folder, reload=True)
    assert registry.get("support") is registry.get("support")
    assert registry.get("support").templates is registry.get("support").templates


def test_a_broken_edit(folder: Path) -> None:
    """A file that is broken keeps its last good version and is told of; the others change; it heals."""
    registry = PromptRegistry(folder, reload=True)
    write(folder, "newer.yaml", "system: '{{ broken'\n")
    write(folder, "parts/tone.md", "Be brief.")
    assert "number ten" in registry.get("support").system
    assert registry.get("support@2").render({"name": "A"})[0] == Message.system("You are A.\nBe brief.")
    assert [str(problem)[:28] for problem in registry.problems] == ["newer.yaml:1: system: unexpe"]
    write(folder, "newer.yaml", YAML.replace("ten", "twelve"))
    assert "twelve" in registry.get("support").system
    assert registry.problems == ()


def test_a_fragment_that_goes(folder: Path) -> None:
    """A prompt whose fragment is gone stays as it was, and is told of."""
    registry = PromptRegistry(folder, reload=True)
    (folder / "parts/tone.md").unlink()
    assert registry.get("support@2").render({"name": "A"})[0] == Message.system("You are A.\nBe kind.")
    assert [problem.problem for problem in registry.problems] == [
        "support.md:13: there is no fragment and no prompt 'parts/tone'"
    ]


def test_a_new_file_that_is_broken(folder: Path) -> None:
    """A file that never was good is no prompt, and is told of once it stands there."""
    registry = PromptRegistry(folder, reload=True)
    write(folder, "x.md", "{{")
    with pytest.raises(PromptNotFound):
        registry.get("x")
    assert len(registry.problems) == 1
    (folder / "x.md").unlink()
    registry.refresh()
    assert not registry.problems


def test_a_folder_that_goes(folder: Path) -> None:
    """A folder that is gone for a while leaves what there was in use."""
    registry = PromptRegistry(folder, reload=True)
    folder.rename(folder.with_name("away"))
    assert registry.get("support").version == "10"
    assert "there is no folder" in str(registry.problems[0])
    folder.with_name("away").rename(folder)
    assert registry.get("support").version == "10"
    assert registry.problems == ()


def test_threads(folder: Path) -> None:
    """Threads that get and change at the same time see whole prompts only."""
    registry = PromptRegistry(folder, reload=True)
    seen: set[str] = set()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(50):
                seen.add(registry.get("support@2").render({"name": "A"})[0].text)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        write(folder, "parts/tone.md", f"Be number {number}.")
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert seen <= {
        "You are A.\nBe kind.",
        *(f"You are A.\nBe number {number}." for number in range(20)),
        "You are A.\n",
    }
