"""Results and errors of tools in the form that a model is told: plain values, of bounded size, without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import pydantic_core
from msgspec import Struct

from rxstage.content import Audio, Data, Image, Message, Parts, Text, Video

__all__ = ["cut", "in_words", "presentable"]

_MEDIA: Final = (Image, Audio, Video)
_DEEPEST: Final = (
    64  # levels of objects and lists; deeper ones become text: what keeps and sends results has its bounds
)
_MOST_MEDIA: Final = 20_000_000  # bytes of images and sound in one result
_MOST_WORDS: Final = 500  # characters of an error
_TOLD: Final = 3  # problems of one validation
_PATH: Final = re.compile(r"""(?<![\w:/\\.])(?:[A-Za-z]:[\\/]|[\\/])(?:[^\s\\/'":,;)]+[\\/])+""")


def presentable(value: Any, limit: int) -> Any:
    """A tool's value as a plain JSON value, or as `Parts` where there are images or sound in it.

    Models, dataclasses and structs become objects; what JSON has no form for becomes its text.

    Args:
        value: what the tool gave.
        limit: characters that are kept; what is longer is cut, and says so.
    """
    kind = value.__class__
    if kind is str:
        return cut(value, limit)
    if value is None or kind is bool:
        return value
    if kind is Text:
        return cut(value.text, limit)
    if kind is Data:
        return presentable(value.value, limit)
    if isinstance(value, _MEDIA):
        return _parts((value,), limit)
    if isinstance(value, (Parts, Message)):
        return _parts(value.parts, limit)
    if isinstance(value, (list, tuple)) and any(isinstance(each, (Text, *_MEDIA)) for each in value):
        return _parts(Parts(tuple(value)).parts, limit)
    text = _json(value)
    if text is None:
        return cut(_text(value), limit)
    if len(text) > limit and len(words := text.decode()) > limit:
        return cut(words, limit)
    plain = pydantic_core.from_json(text)
    return text.decode() if text.count(b"[") + text.count(b"{") > _DEEPEST and _deep(plain) else plain


def cut(text: str, limit: int) -> str:
    """Text of at most `limit` characters, and a note where it was longer; what is no Unicode is replaced."""
    size = len(text)
    if size > limit:
        text = f"{text[:limit]}\n[cut: these are the first {limit} of {size} characters]"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def in_words(error: BaseException) -> str:
    """Type and message of an exception; no traceback, no folders."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    name = type(error).__name__
    try:
        if isinstance(error, OSError) and error.strerror:
            message = error.strerror
        elif isinstance(error, pydantic_core.ValidationError):
            wrong = error.errors(include_url=False, include_context=False, include_input=False)[:_TOLD]
            message = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong)
        else:
            message = str(error)
    except Exception:
        return name
    message = _PATH.sub("", message[: 4 * _MOST_WORDS])
    if len(message) > _MOST_WORDS:
        message = message[: _MOST_WORDS - 1] + "…"
    return cut(f"{name}: {message}" if message else name, 2 * _MOST_WORDS)


def _json(value: Any) -> bytes | None:
    try:
        return pydantic_core.to_json(value, bytes_mode="base64", inf_nan_mode="strings", fallback=_plain)
    except Exception:
        return None  # it goes round in a circle, or too deep, or is no Unicode: its text still tells something


def _deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        nested = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (list, dict)))
        level = [each for inner in nested for each in inner]
        if not level:
            return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return dict(value)
    if callable(listed := getattr(value, "tolist", None)):  # arrays and their scalars
        return listed()
    return str(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _parts(parts: tuple[Any, ...], limit: int) -> Parts:
    shown: list[Any] = []
    room, bytes_left = limit, _MOST_MEDIA
    for number, part in enumerate(parts):
        if room <= 0:
            shown.append(Text(f"[cut: {len(parts) - number} more parts]"))
            break
        if isinstance(part, _MEDIA):
            size = len(part.samples if isinstance(part, Audio) else part.data)
            if size <= bytes_left:
                bytes_left -= size
                room -= 1
                shown.append(part)
                continue
            part = Text(f"[left out: {type(part).__name__.lower()} of {size} bytes]")
        text = presentable(part, room)
        if not isinstance(text, str):
            text = cut((_json(text) or b"").decode(), room)
        room -= max(1, len(text))
        shown.append(Text(text))
    return Parts(tuple(shown))
