"""From the string that names a model to the provider that answers for it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from rxstage.adapters.anthropic import AnthropicProvider
from rxstage.adapters.google import GoogleProvider
from rxstage.adapters.openai import OpenAIProvider
from rxstage.adapters.pydantic_ai import PydanticAIProvider
from rxstage.ports.provider import Provider
from rxstage.providers.local import LocalProvider

__all__ = ["provider_of"]

_OFFICIAL: Final[dict[str, Callable[..., Provider]]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
    "google": GoogleProvider,
}
_LOCAL: Final = {"ollama": 11434, "vllm": 8000, "llamacpp": 8080, "lmstudio": 1234}  # ports of servers on this machine
_BARE: Final = {
    "gpt-": "openai",
    "chatgpt-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "claude-": "anthropic",
    "gemini-": "google",
}
_OWN: Final = (*_OFFICIAL, *_LOCAL, "local")


def provider_of(model: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any) -> Provider:
    """The provider for a model that is named by a string.

    | string | provider |
    | --- | --- |
    | `"openai:gpt-5.2"`, `"anthropic:claude-…"`, `"google:gemini-…"` | the official SDK |
    | `"gpt-5.2"`, `"claude-…"`, `"gemini-…"` | the same |
    | `"ollama:llama3.2"`, `"vllm:…"`, `"llamacpp:…"`, `"lmstudio:…"` | the server on this machine |
    | any, with `base_url` | the server there, which speaks OpenAI's chat completions unless the prefix says otherwise |
    | `"local"` | a script on this machine, for trying things out |
    | `"groq:…"`, `"mistral:…"`, `"bedrock:…"`, `"openrouter:…"` … | pydantic-ai |

    Nothing is imported or asked before the first call, but pydantic-ai for the prefixes that are its own.

    Args:
        model: the string.
        base_url: address of the API.
        api_key: by default the environment's.
        options: what else the class of the provider takes: `timeout`, `name` …

    Raises:
        ValueError: the string names none that is known; the message says what is, and the nearest.
    """
    prefix, colon, name = model.partition(":")
    named = {"base_url": base_url, "api_key": api_key, **options}
    if prefix in _OFFICIAL:
        return _OFFICIAL[prefix](name, **named)
    if prefix in _LOCAL:
        address = base_url or _address(prefix)
        if prefix == "llamacpp":
            name = name or "default"  # it serves one model, whatever it is called
        return OpenAIProvider(name, **{"name": prefix, **named, "base_url": address})
    if prefix == "local":
        if name or base_url is not None or api_key is not None:
            raise ValueError(f"'local' has no models, address or key to choose, got {model!r}")
        return LocalProvider(**options)
    if not colon and (maker := next((_BARE[start] for start in _BARE if model.startswith(start)), None)):
        if base_url is None:
            return _OFFICIAL[maker](model, **named)
    if colon and _known_elsewhere(prefix):
        return PydanticAIProvider(model, **named)
    if base_url is not None and model:
        return OpenAIProvider(model, **named)
    raise ValueError(_unknown(model, prefix if colon else model))


def _address(server: str) -> str:
    port = _LOCAL[server]
    host = os.environ.get("OLLAMA_HOST", "") if server == "ollama" else ""
    if not host:
        return f"http://localhost:{port}/v1"
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = parts.hostname or "localhost"
    if name in ("0.0.0.0", "::"):  # what a server listens on
        name = "localhost"
    default = {"http": 80, "https": 443}.get(parts.scheme) if "://" in host else port
    where = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{where}:{parts.port or default}{parts.path.rstrip('/')}/v1"


def _known_elsewhere(prefix: str) -> bool:
    """Whether pydantic-ai knows a provider of that name; it may still want a package for it."""
    try:
        from pydantic_ai.providers import infer_provider_class

        infer_provider_class(prefix)
    except ImportError as error:
        return error.name is None or not error.name.startswith("pydantic_ai")
    except ValueError:
        return False
    return True


def _unknown(model: str, prefix: str) -> str:
    known, more = set(_OWN), ""
    try:
        from pydantic_ai.models import known_model_names

        known |= {name.partition(":")[0] for name in known_model_names() if ":" in name}
        known = {name for name in known if "/" not in name}
    except ImportError:
        more = "; more with pip install 'rxstage[models]'"
    near = difflib.get_close_matches(prefix, [*_OWN, *sorted(known - set(_OWN))], n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    names = ", ".join([*_OWN, *sorted(known - set(_OWN))])
    return f"{model!r} names no known provider{guess} Write 'provider:model' with one of: {names}{more}"
