"""Templates: what they can say, what they cannot do whoever wrote them, and what bounds them."""

from __future__ import annotations

import datetime as dt
import pickle
import tracemalloc
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from rxstage.element import Metadata
from rxstage.prompts import MissingVariable, PromptError, PromptLimit, PromptNotFound, PromptTemplate, RenderLimits

SECRET = "s3cret"


class User:
    """An object of the application, with a method that a template must not call."""

    def __init__(self) -> None:
        self.name = "Ann"
        self._secret = SECRET
        self.deleted = False

    def delete(self) -> str:
        self.deleted = True
        return SECRET


class Loud:
    """An object whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Plan(StrEnum):
    """A string that is more than one."""

    FREE = "free"


class Price(Struct):
    """A structure."""

    amount: float


def called() -> str:
    raise AssertionError("a template has called a function of the application")


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def values() -> dict[str, Any]:
    return {
        "user": User(),
        "call": called,
        "names": ["Ann", "Bob"],
        "prices": {"a": 1, "b": 2},
        "now": dt.datetime(2024, 5, 6, 7, 8),
        "endless": endless(),
        "loud": Loud(),
        "path": "../../etc/passwd",
    }


def render(source: str, **variables: Any) -> str:
    return PromptTemplate(source).render(variables)


# ------------------------------------------------------------------------------------------ what a template can say


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hi {{ user.name }}!", "Hi Ann!"),
        ("{{ prices.a }}{{ prices['b'] }}{{ names[-1] }}{{ names[0][:2] }}", "12BobAn"),
        ("{% for n in names %}{{ loop.index }}.{{ n }}{% if not loop.last %}, {% endif %}{% endfor %}", "1.Ann, 2.Bob"),
        ("{% for k, v in prices.items() %}{{ k }}={{ v }};{% else %}none{% endfor %}", "a=1;b=2;"),
        ("{% for n in range(3) if n != 1 %}{{ n }}{% endfor %}", "02"),
        ("{{ names|join(', ')|upper }} {{ names|length }}", "ANN, BOB 2"),
        ("{{ ', '.join(names) }} {{ 'a-b'.replace('-', '+') }} {{ 'A'.lower().startswith('a') }}", "Ann, Bob a+b True"),
        ("{{ names|map('lower')|select('ne', 'bob')|list }}", "['ann']"),
        ("{{ names|sort(reverse=true)|first }}{{ [3, 1]|min }}{{ [1, 2]|sum }}", "Bob13"),
        ("{{ prices|tojson }} {{ 'é<b>'|tojson }}", '{"a": 1, "b": 2} "é<b>"'),
        ("{{ '<x>'|e }} {{ 2.567|round(1) }} {{ '7'|int + 1 }}", "&lt;x&gt; 2.6 8"),
        ("{{ 'a\nb'|indent(2) }}", "a\n  b"),
        ("{{ nothing|default('?') }}{{ 'yes' if nothing is defined else 'no' }}", "?no"),
        ("{% macro hello(who) %}Hello {{ who }}.{% endmacro %}{{ hello('Ann') }}", "Hello Ann."),
        ("{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}x{% endcall %}", "[x]"),
        ("{% set ns = namespace(n=0) %}{% for n in [1, 2] %}{% set ns.n = ns.n + n %}{% endfor %}{{ ns.n }}", "3"),
        ("{% set all %}{{ names|join }}{% endset %}{{ all }}{% filter upper %}x{% endfilter %}", "AnnBobX"),
        ("{% with a = 1 %}{{ a }}{% endwith %}{# a comment #}{% raw %}{{ a }}{% endraw %}", "1{{ a }}"),
        ("{{ now.strftime('%d.%m.%Y') }} {{ now.isoformat() }}", "06.05.2024 2024-05-06T07:08:00"),
        ("{{ 2 ** 10 }} {{ 7 // 2 }}{{ 7 % 4 }} {{ 'a' * 2 }} {{ 'a' ~ 1 }} {{ [1] + [2] }}", "1024 33 aa a1 [1, 2]"),
        ("{{ 'b' in names }}{{ 'Bob' in names }}{{ 1 < 2 }}", "FalseTrueTrue"),
    ],
)  # fmt: skip
def test_what_a_template_can_say(source: str, expected: str) -> None:
    """Loops, conditions, macros, filters and the methods that read give what jinja2 gives."""
    assert PromptTemplate(source).render(values()) == expected


def test_values_of_the_application() -> None:
    """Metadata, enumerations and structures are read like plain values."""
    template = PromptTemplate(
        "{{ m.get('a') }}{{ m.items()|length }}{{ plan.upper() }}{{ price.amount }}{{ price|tojson }}"
    )
    variables = {"m": Metadata(a=1), "plan": Plan.FREE, "price": Price(1.5)}
    assert template.render(variables) == '11FREE1.5{"amount": 1.5}'


def test_whitespace_is_jinjas() -> None:
    """Line breaks stay as they are, but for one at the end."""
    assert render("a\n{% if true %}b{% endif %}\nc\n") == "a\nb\nc"


def test_names() -> None:
    """A template knows the variables that it reads, those that it makes itself not among them."""
    template = PromptTemplate("{{ a }}{% for b in c %}{{ b }}{% endfor %}{% set d = 1 %}{{ d }}{{ range(2) }}")
    assert template.names == {"a", "c"}


def test_what_a_variable_holds_is_no_template() -> None:
    """Text in a variable is put in as it is, however much it looks like a template."""
    assert render("{{ a }}", a="{{ b }}{% include 'c' %}") == "{{ b }}{% include 'c' %}"


# ------------------------------------------------------------------------------------------ fragments


def test_fragments() -> None:
    """An include puts a fragment in, which sees the variables, and includes others."""
    fragments = {"tone": "Be {{ tone }}.{% include 'end' %}", "end": "!"}
    template = PromptTemplate("{% include 'tone' %}{% include 'none' ignore missing %}", fragments)
    assert template.render({"tone": "kind"}) == "Be kind.!"
    assert template.names == {"tone"}


def test_a_fragment_keeps_its_variables_to_itself() -> None:
    """What a fragment sets is not seen outside of it."""
    template = PromptTemplate("{% include 'a' %}{{ x is defined }}", {"a": "{% set x = 1 %}{{ x }}"})
    assert template.render({}) == "1False"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "c:\\windows\\win.ini", "file:///etc/passwd", ""])
def test_an_include_reaches_no_file(name: str) -> None:
    """An include finds what is among the fragments, and nothing else."""
    with pytest.raises(PromptNotFound, match="there is no fragment"):
        PromptTemplate(f"{{% include {name!r} %}}", {"a": "b"})


@pytest.mark.parametrize("source", ["{% include path %}", "{% include ['a', 'b'] %}", "{% include 'a' ~ 'b' %}"])
def test_an_include_has_a_fixed_name(source: str) -> None:
    """What is included cannot come from a variable."""
    with pytest.raises(PromptError, match="by its name in quotes"):
        PromptTemplate(source, {"a": "b"})


def test_fragments_that_include_each_other() -> None:
    """A circle of includes is an error that says its path."""
    with pytest.raises(PromptError, match="a → b → a"):
        PromptTemplate("{% include 'a' %}", {"a": "{% include 'b' %}", "b": "{% include 'a' %}"})


def test_fragments_that_explode() -> None:
    """Fragments that double with each level are stopped while they are put together."""
    fragments = {f"f{n}": f"{{% include 'f{n + 1}' %}}" * 2 for n in range(30)} | {"f30": "x"}
    with pytest.raises(PromptLimit, match="more than 20000"):
        PromptTemplate("{% include 'f0' %}", fragments)


# ------------------------------------------------------------------------------------------ attacks

INSIDE = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ user.__init__.__globals__ }}",
    "{{ user['__init__']['__globals__'] }}",
    "{{ user._secret }}",
    "{{ user['_secret'] }}",
    "{{ user['_' ~ 'secret'] }}",
    "{{ [user]|map(attribute='_secret')|join }}",
    "{{ [user]|map(attribute='__init__.__globals__')|join }}",
    "{{ [user]|selectattr('__class__')|list }}",
    "{{ [user]|sum(attribute='__class__') }}",
    "{{ [user]|join(attribute='_secret') }}",
    "{{ [user]|min(attribute='_secret')|string ~ ([user]|groupby('_secret')|first|first) }}",
    "{{ '{0.__class__}'.format(user) }}",
    "{{ '{0._secret}'.format(user) }}",
    "{{ '{a.__class__}'.format_map({'a': user}) }}",
    "{{ ('{0._secret}'|string).format(user) }}",
    "{{ '%s'|format(user) }}",
    "{{ '%s' % user }}",
    "{{ call.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ joiner.__init__ }}",
    "{{ namespace.__init__ }}",
    "{{ dict.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{% for n in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% for n in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% macro f() %}{% endmacro %}{{ f._environment }}",
    "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.a = ns.__class__ %}{{ ns.a }}",
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ user.delete.__func__ }}",
    "{{ ''.join.__self__ }}",
    "{{ config.__class__ }}",
    "{{ request.application.__globals__ }}",
]
CALLS = [
    "{{ user.delete() }}",
    "{{ user['delete']() }}",
    "{{ user.delete }}",
    "{{ call() }}",
    "{{ call }}",
    "{{ [call]|map('call')|list }}",
    "{% set range = call %}{{ range() }}",
    "{% set join = call %}{{ ''|join(join()) }}",
    "{{ names.append('x') }}",
    "{{ names.clear() }}",
    "{{ names.sort() }}",
    "{{ prices.update(a=5) }}",
    "{{ prices.pop('a') }}",
    "{{ prices.setdefault('c', 1) }}",
    "{{ dict.fromkeys(names) }}",
    "{{ ''.encode() }}",
    "{{ ''.maketrans('a', 'b') }}",
    "{{ 'a'.translate({97: 'b' * 100000}) }}",
    "{{ now.replace(year=1) }}",
    "{{ caller() }}",
    "{{ super() }}",
]
WORDS = [
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'base' %}",
    "{% block a %}{% endblock %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% for n in names recursive %}{{ loop(names) }}{% endfor %}",
    "{% do names.append(1) %}",
    "{% debug %}",
    "{% break %}",
]
HUGE = [
    "{% for n in range(10 ** 9) %}{% endfor %}",
    "{% for n in range(10000) %}{% for m in range(10000) %}{% endfor %}{% endfor %}",
    "{% for n in range(10000) %}{% for m in range(10000) if false %}{% endfor %}{% endfor %}",
    "{% for n in range(10000) %}{% for m in range(10000) %}x{% endfor %}{% endfor %}",
    "{{ range(10 ** 9)|list }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'a' }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ (1, 2) * 10 ** 9 }}",
    "{{ ('a' * 100000) * 100000 }}",
    "{{ [[1] * 10000] * 10000 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 2 ** 100000 }}",
    "{% set ns = namespace(n=2) %}{% for i in range(100) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%0999999999d'|format(1) }}",
    "{{ '{:0999999999}'.format(1) }}",
    "{{ 'a'|center(10 ** 9) }}",
    "{{ 'a'.center(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ 'a'.rjust(10 ** 9) }}",
    "{{ 'a'.zfill(10 ** 9) }}",
    "{{ '\t'.expandtabs(10 ** 9) }}",
    "{{ 'a'|indent(10 ** 9) }}",
    "{{ 'a'|indent('x' * 100000) }}",
    "{{ ('a\n' * 50000)|indent(100) }}",
    "{{ ('a' * 100000)|replace('', 'b' * 100000) }}",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "{{ range(10000)|join('b' * 100000) }}",
    "{{ ('b' * 100000).join('a' * 100000) }}",
    "{{ 1.5|round(10 ** 9, 'ceil') }}",
    "{{ 1|round(-10 ** 9) }}",
    "{{ ([[1] * 1000] * 1000)|sum(start=[]) }}",
    "{{ 'a'|batch(10 ** 9, 'x')|list }}",
    "{{ 'a'|slice(10 ** 9)|list }}",
    "{{ lipsum(n=10 ** 9) }}",
    "{{ range(10000)|map('replace', '', 'x' * 1000)|join }}",
    "{{ ('a ' * 50000)|title|wordwrap(1) }}",
    "{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "{% set ns = namespace(s='aaaa') %}{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}"
    "{% for i in range(99) %}{% set ns.s = f(ns.s) %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=(1,)) %}{% for i in range(99) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}",
    "{% set ns = namespace(s={}) %}{% for i in range(99) %}{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(30) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "{% set a = [1, 1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|tojson }}",
    "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{% for i in range(10000) %}{{ 'a' * 100000 }}{% endfor %}{% endmacro %}{{ f() }}",
    "{% set b = 'a' * 100000 %}{% for i in range(10000) %}{% if ('a' * 50000) ~ 'b' in b %}{% endif %}{% endfor %}",
    "{% set b = 'a' * 100000 %}{% for i in range(10000) %}{{ b[1:]|length }}{% endfor %}",
    "{% for i in range(10000) %}{% set x = range(10000)|list|sort %}{% endfor %}",
    "{% for i in range(10000) %}{% if range(10000)|list == range(10000)|list %}{% endif %}{% endfor %}",
    "{% for i in range(10000) %}{{ range(10000)|select('in', range(10000)|list)|list|length }}{% endfor %}",
    "{{ range(10000)|map('rx charge')|list }}",
    "{% for n in endless %}{% endfor %}",
    "{{ endless|list }}",
    "{{ endless|join }}",
    "{{ endless|sum }}",
    "{{ -1 in endless }}",
    "{% for n in endless if n < 0 %}{% endfor %}",
    "{% for n in endless %}{{ loop.length }}{% endfor %}",
]
TOO_COMPLICATED = [
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{% for i in [1] %}" * 50 + "{% endfor %}" * 50,
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "1 + " * 20000 + "1 }}",
    "{{ " + "9" * 9000 + " }}",
    "{" * 50000,
    "{{ x" + "[0]" * 3000 + " }}",
    "{{ x" + "|upper" * 3000 + " }}",
    "{# " * 50000,
    "a" * 300_000,
]


@pytest.mark.parametrize("source", [*INSIDE, *CALLS, *WORDS])
def test_attacks(source: str) -> None:
    """No template reaches Python's insides, calls what the application brought, or changes what it was given."""
    variables = values()
    with pytest.raises(PromptError) as caught:
        PromptTemplate(source, {"base": ""}).render(variables)
    assert SECRET not in str(caught.value)
    assert not variables["user"].deleted
    assert variables["names"] == ["Ann", "Bob"]
    assert variables["prices"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("source", HUGE)
def test_templates_that_want_too_much(source: str) -> None:
    """A template that would loop for ever or fill the memory is stopped by a count, early, with an error."""
    made: Any = None
    tracemalloc.start()
    try:
        with pytest.raises(PromptError):
            made = PromptTemplate(source).render(values(), RenderLimits(work=50_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made is None
    assert peak < 20 * 1024 * 1024


@pytest.mark.parametrize("source", TOO_COMPLICATED, ids=range(len(TOO_COMPLICATED)))
def test_templates_that_are_too_complicated(source: str) -> None:
    """A source that no compiler gets through is an error like any other."""
    with pytest.raises(PromptError):
        PromptTemplate(source).render({"x": "a"})


def test_work_cannot_be_earned() -> None:
    """The filters of the compile step can be named by no template to get more room."""
    source = "{{ [-10 ** 9] * 9|int }}{{ [-10 ** 9]|map('rx charge')|list }}{% for n in range(9000) %}{% endfor %}" * 9
    with pytest.raises(PromptLimit):
        PromptTemplate(source).render({}, RenderLimits(work=50_000))


def test_limits() -> None:
    """The length of the text and the work are limited by counts that can be set."""
    template = PromptTemplate("{% for n in range(10) %}0123456789{% endfor %}")
    assert len(template.render({}, RenderLimits(characters=100))) == 100
    with pytest.raises(PromptLimit, match="of 100 characters, and may make 99"):
        template.render({}, RenderLimits(characters=99))
    with pytest.raises(PromptLimit, match="more than 30 units of work"):
        template.render({}, RenderLimits(work=30))


def test_rendering_again_begins_anew() -> None:
    """One rendering does not use up what the next may need."""
    template = PromptTemplate("{% for n in range(100) %}{{ n }}{% endfor %}")
    limits = RenderLimits(work=2000)
    assert len({template.render({}, limits) for _ in range(50)}) == 1


PIECES = st.sampled_from(
    ["{{", "}}", "{%", "%}", " ", "x", "user", "names", "|", ".", "__class__", "(", ")", "[", "]", "'a'", "*", "9", "+",
     "for", "in", "if", "endfor", "endif", "range", "set", "=", "include", "~", ",", "join", "map", "loop", "%", "1"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_text_is_a_template_or_an_error(source: str) -> None:
    """Whatever is thrown at it, it gives a text or a `PromptError`."""
    try:
        text = PromptTemplate(source).render(values(), RenderLimits(work=20_000))
    except PromptError:
        return
    assert SECRET not in text


# ------------------------------------------------------------------------------------------ errors


def test_a_missing_variable() -> None:
    """A variable that nobody sets is named, with the line, the nearest one that is there, and the remedy."""
    with pytest.raises(MissingVariable) as caught:
        PromptTemplate("a\n{{ user_nam }}").render({"user_name": 1})
    error = caught.value
    assert (error.variable, error.line) == ("user_nam", 2)
    assert str(error) == (
        "(line 2): the variable 'user_nam' is not set (did you mean 'user_name'?); give it in variables=, in the "
        "metadata of the turn, by one of providers=, or as a default among the prompt's own variables"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}", "{% if a %}{% endif %}", "{% for b in a %}{% endfor %}", "{{ a.b }}", "{{ a[0] }}", "{{ a + 1 }}",
        "{{ a ~ '' }}", "{{ a() }}", "{{ a|upper }}", "{{ a|join }}", "{{ [a]|join }}", "{{ 1 in a }}", "{{ a == 1 }}",
        "{{ not a }}", "{{ -a }}", "{{ a|tojson }}", "{{ [a]|tojson }}", "{{ 'x' if a else 'y' }}", "{{ dict(x=a) }}",
        "{{ {'x': a}.x }}", "{{ '' ~ [a] }}", "{{ [a] }}", "{{ [a]|list|string }}", "{{ a if true }}",
    ],
)  # fmt: skip
def test_a_missing_variable_wherever_it_is_read(source: str) -> None:
    """However it is used, a variable that is missing never counts as empty."""
    with pytest.raises(MissingVariable) as caught:
        PromptTemplate(source).render({})
    assert caught.value.variable == "a"


@pytest.mark.parametrize(
    ("source", "problem", "line"),
    [
        ("\n{{ user.nme }}", "User object' has no attribute 'nme'", 2),
        ("{{ names[9] }}", "list object has no element 9", 1),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero", 1),
        ("\n\n{{ 'a' + 1 }}", "TypeError", 3),
        ("{{ loud }}", "RuntimeError: no text", 1),
        ("\n{{ user.delete() }}", "'delete' cannot be called by a template", 2),
        ("{{ 'x'|uper }}", "No filter named 'uper'", 1),
        ("\n{% if %}", "Expected an expression", 2),
        ("\n{{ a", "unexpected end of template", 2),
        ("{{ a }}\n{% for %}", "Expected an expression", 2),
    ],
)
def test_errors_say_the_line(source: str, problem: str, line: int) -> None:
    """What goes wrong in a template is an error with its line."""
    with pytest.raises(PromptError, match=problem) as caught:
        PromptTemplate(source).render(values())
    assert caught.value.line == line


def test_errors_pickle() -> None:
    """Errors go to other processes with all that they say."""
    error = MissingVariable.of("a", ["b"], line=3).at(prompt="p@1", part="system")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, MissingVariable)
    assert (again.variable, again.prompt, again.part, again.line) == ("a", "p@1", "system", 3)
    assert str(again) == str(error)
