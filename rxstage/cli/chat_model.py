"""Which model a conversation is held with."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from rxstage.cli.chat_prompt import interactive
from rxstage.cli.command import CommandError
from rxstage.errors import require
from rxstage.ports.provider import Provider

__all__ = ["Model", "choose", "named"]

KEY: Final = "RXSTAGE_API_KEY"
MODEL: Final = "RXSTAGE_MODEL"
_DEFAULTS: Final = {  # asked where there is a key and no model was named
    "OPENAI_API_KEY": "openai:gpt-5.4-mini",
    "ANTHROPIC_API_KEY": "anthropic:claude-haiku-4-5",
    "GOOGLE_API_KEY": "google:gemini-3.8-flash",
    "GEMINI_API_KEY": "google:gemini-3.8-flash",
}
_CLOUD: Final = ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE")  # these sign in without a key
_PACE: Final = 0.03  # seconds between two words of the script in a terminal: one sees how an answer streams
_LIST: Final = 10.0  # seconds that a server may take to list its models


class Model(Struct, frozen=True):
    """A model to talk to.

    Attributes:
        provider: asks it.
        label: what to call it.
        base_url: the server that was named.
        default: whether it is the local default, since nothing else was named or found.
    """

    provider: Provider
    label: str
    base_url: str | None = None
    default: bool = False


def choose(model: str | None, base_url: str | None) -> Model:
    """The model that the options name; else the one that the environment names or has a key for; else the local one.

    Raises:
        CommandError: none of that name is known, its key is missing, or the server does not say what it has.
    """
    if model is not None or base_url is not None:
        return named(model or "", base_url)
    if model := os.environ.get(MODEL):
        return named(model)
    for variable, default in _DEFAULTS.items():
        if os.environ.get(variable):
            return named(default)
    return Model(named("local").provider, "the local default", default=True)


def named(model: str, base_url: str | None = None) -> Model:
    """The model of a name; where it is empty, the first one that the server has.

    Raises:
        CommandError: as for `choose`.
    """
    from rxstage.adapters.models import provider_of  # only here: it brings every adapter

    key = os.environ.get(KEY) if base_url is not None else None
    if base_url is not None:
        _check_address(base_url)
        model = model or _first_model(base_url, key)
    options = {"token_delay": _PACE} if model == "local" and interactive() else {}
    try:
        provider = provider_of(model, base_url=base_url, api_key=key, **options)
    except (ValueError, TypeError) as error:
        raise CommandError(f"--model: {error}", code=2) from error
    address = getattr(provider, "base_url", None)
    if address is not None and not provider.model:
        return named(f"{model.removesuffix(':')}:{_first_model(address, key)}", base_url)
    _check_key(provider, model)
    return Model(provider, model, base_url)


def _check_address(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CommandError(f"--base-url must be such as http://localhost:8080/v1, got {base_url!r}", code=2)


def _check_key(provider: Provider, model: str) -> None:
    """Say now that a key is missing, not when the first answer is waited for."""
    variables: tuple[str, ...] = getattr(provider, "variables", ())
    if not variables or getattr(provider, "base_url", None) is not None:
        return
    if not any(map(os.environ.get, (*variables, *(_CLOUD if provider.name == "google" else ())))):
        raise CommandError(
            f"model {model!r} needs an API key: set {' or '.join(variables)} in the environment; "
            f"without a key there are --model ollama:NAME, --base-url URL and --model local"
        )
    if not provider.model:
        raise CommandError(f"which model? Write --model {model.removesuffix(':')}:NAME", code=2)


def _first_model(base_url: str, key: str | None) -> str:
    """The first model that a server lists."""
    openai = require("openai", "openai")
    try:
        with openai.OpenAI(base_url=base_url, api_key=key or "none", timeout=_LIST, max_retries=0) as client:
            names = [model.id for model in client.models.list()]
    except (openai.OpenAIError, ValueError) as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        raise CommandError(f"{base_url} does not list its models ({error}{cause}); name one with --model") from error
    if not names:
        raise CommandError(f"{base_url} has no model; name one with --model, or load one there")
    return str(names[0])
