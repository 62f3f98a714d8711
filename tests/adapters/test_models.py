"""`provider_of`: from a string to a provider."""

from __future__ import annotations

import sys

import pytest
from asking import ask, failed, on_a_loop
from faults import events, serving, stream

from rxstage.adapters.anthropic import AnthropicProvider
from rxstage.adapters.google import GoogleProvider
from rxstage.adapters.models import provider_of
from rxstage.adapters.openai import OpenAIProvider
from rxstage.adapters.pydantic_ai import PydanticAIProvider
from rxstage.ports import Provider
from rxstage.providers.local import LocalProvider


@pytest.mark.parametrize(
    ("string", "kind", "model"),
    [
        ("openai:gpt-5.2", OpenAIProvider, "gpt-5.2"),
        ("openai:ft:gpt-5.2:me", OpenAIProvider, "ft:gpt-5.2:me"),
        ("gpt-5.2", OpenAIProvider, "gpt-5.2"),
        ("o3-mini", OpenAIProvider, "o3-mini"),
        ("anthropic:claude-sonnet-5-5", AnthropicProvider, "claude-sonnet-5-5"),
        ("claude-sonnet-5-5", AnthropicProvider, "claude-sonnet-5-5"),
        ("google:gemini-3-flash", GoogleProvider, "gemini-3-flash"),
        ("gemini-3-flash", GoogleProvider, "gemini-3-flash"),
    ],
)
def test_official(string: str, kind: type[Provider], model: str) -> None:
    """The prefix names the provider, and a name that everybody knows its maker; the address is the SDK's own."""
    provider = provider_of(string)
    assert type(provider) is kind
    assert provider.model == model
    assert provider.base_url is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("string", "model", "address"),
    [
        ("ollama:llama3.2:3b", "llama3.2:3b", "http://localhost:11434/v1"),
        ("vllm:qwen", "qwen", "http://localhost:8000/v1"),
        ("llamacpp", "default", "http://localhost:8080/v1"),
        ("llamacpp:qwen", "qwen", "http://localhost:8080/v1"),
        ("lmstudio:qwen", "qwen", "http://localhost:1234/v1"),
    ],
)
def test_local_servers(string: str, model: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on this machine are found on the ports that they have by default, and are called by their names."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    provider = provider_of(string)
    assert type(provider) is OpenAIProvider
    assert (provider.name, provider.model, provider.base_url) == (string.partition(":")[0], model, address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.7", "http://10.0.0.7:11434/v1"),
        ("0.0.0.0:9000", "http://localhost:9000/v1"),
        (":9000", "http://localhost:9000/v1"),
        ("https://models.example.org/ollama/", "https://models.example.org:443/ollama/v1"),
        ("http://[fd00::7]:9000", "http://[fd00::7]:9000/v1"),
    ],
)
def test_the_host_of_ollama(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OLLAMA_HOST` says where it is, in the forms that Ollama knows; `base_url` goes before it."""
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert provider_of("ollama:m").base_url == address  # type: ignore[attr-defined]
    assert provider_of("ollama:m", base_url="http://localhost:1/v1").base_url == "http://localhost:1/v1"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("string", "kind", "model"),
    [
        ("qwen3:4b", OpenAIProvider, "qwen3:4b"),
        ("gpt-5.2", OpenAIProvider, "gpt-5.2"),
        ("claude-sonnet-5-5", OpenAIProvider, "claude-sonnet-5-5"),
        ("anthropic:claude-sonnet-5-5", AnthropicProvider, "claude-sonnet-5-5"),
    ],
)
def test_an_address(string: str, kind: type[Provider], model: str) -> None:
    """With an address, the server there speaks OpenAI's language, unless the prefix says otherwise."""
    provider = provider_of(string, base_url="http://localhost:1/v1", timeout=5.0)
    assert type(provider) is kind
    assert provider.model == model
    assert (provider.base_url, provider.timeout) == ("http://localhost:1/v1", 5.0)  # type: ignore[attr-defined]


@pytest.mark.needs("module:pydantic_ai")
@pytest.mark.parametrize("string", ["groq:llama-3.3-70b", "openrouter:meta/llama", "bedrock:x.y-v1:0", "azure:gpt"])
def test_others(string: str) -> None:
    """Every other prefix that pydantic-ai knows goes to it, installed or not."""
    provider = provider_of(string)
    assert type(provider) is PydanticAIProvider
    assert (provider.name, provider.model) == tuple(string.split(":", 1))


@pytest.mark.needs("module:pydantic_ai")
@pytest.mark.parametrize(
    ("string", "told"),
    [
        ("opnai:gpt-5.2", "'opnai:gpt-5.2' names no known provider; did you mean 'openai'? Write 'provider:model'"),
        ("groqq:llama", "did you mean 'groq'?"),
        ("xyzzy", "'xyzzy' names no known provider. Write 'provider:model' with one of: openai, anthropic, google"),
        ("", "'' names no known provider."),
    ],
)
def test_unknown(string: str, told: str) -> None:
    """What is not known is an error with the nearest that is, and all of them."""
    with pytest.raises(ValueError) as caught:
        provider_of(string)
    assert told in str(caught.value)
    assert "ollama, vllm, llamacpp, lmstudio, local, " in str(caught.value)
    assert "mistral" in str(caught.value)


def test_unknown_without_pydantic_ai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pydantic-ai is missing, the error says that it brings more."""
    for name in ("pydantic_ai", "pydantic_ai.providers", "pydantic_ai.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"one of: openai, .*, local; more with pip install 'rxstage\[models\]'"):
        provider_of("groq:llama")


def test_local() -> None:
    """`local` is the script that answers without a server; there is nothing to choose but its options."""
    assert type(provider_of("local", delay=0.5)) is LocalProvider
    for wrong in ({"model": "local:small"}, {"model": "local", "base_url": "http://localhost:1"}):
        with pytest.raises(ValueError, match="'local' has no models, address or key to choose"):
            provider_of(**wrong)


@pytest.mark.needs("module:openai")
@on_a_loop
async def test_a_key_stays_with_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key in the environment goes to the server that it was made for, not to one at an address that is given."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    chunk = {"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]}
    async with serving(stream(*events(chunk, "[DONE]"))) as server:
        async with provider_of("m", base_url=server.url) as provider:
            await ask(provider, "hello")
        async with provider_of("m", base_url=server.url, api_key="sk-theirs") as provider:
            await ask(provider, "hello")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        async with provider_of("openai:m") as provider:
            await ask(provider, "hello")
        sent = [each.headers["authorization"] for each in server.asked]
    assert sent == ["Bearer none", "Bearer sk-theirs", "Bearer sk-mine"]


@pytest.mark.needs("module:openai")
@on_a_loop
async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the first call, and not before, says which variable of the environment it comes from."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    caught = await failed(provider_of("gpt-5.2"))
    assert (caught.retryable, caught.provider, caught.model) == (False, "openai", "gpt-5.2")
    assert "openai needs an API key: set OPENAI_API_KEY in the environment, or pass api_key=" in str(caught)
