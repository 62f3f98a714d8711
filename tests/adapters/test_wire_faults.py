"""What goes wrong between a provider and its server: each API, each fault, on a real connection."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from asking import WAIT, ask, failed, on_a_loop, request
from faults import CLOSE, CUT, STALL, Fault, Step, error, serving, stream
from loguru import logger
from speaking import APIS, KEY, Api

from rxstage import Message, Pipeline, ProviderStage, Retry
from rxstage.ports import ProviderError, ProviderTimeout
from rxstage.providers.retrying import is_retryable

pytestmark = [
    pytest.mark.needs("module:openai", "module:anthropic", "module:google.genai", "module:pydantic_ai"),
    pytest.mark.parametrize("api", APIS, ids=lambda api: api.name),
]

_REFUSED = {"error": {"message": f"the key {KEY} is not known here", "type": "authentication_error", "code": 401}}
_BUSY = {"error": {"message": "slow down", "type": "rate_limit_error", "code": 429, "status": "RESOURCE_EXHAUSTED"}}
_OWN_CODE = ("openai", "anthropic", "google")


@on_a_loop
async def test_an_answer(api: Api) -> None:
    """The pieces come as they are sent, none of them empty, and the end once."""
    async with serving(stream(*api.answer("a", "b"))) as server, api.provider(server.url) as provider:
        answer = await ask(provider, "hello")
        assert [event for event in answer.events if isinstance(event, str)][:2] == ["a", "b"]
        assert (answer.finish.reason, answer.finish.model) == ("stop", "m-1")


@pytest.mark.parametrize("how", [CUT, CLOSE], ids=["reset", "closed"])
@on_a_loop
async def test_a_cut_in_mid_stream(api: Api, how: Fault) -> None:
    """What came before the cut is given, and the error says that another try may help; there is one request."""
    sent = stream(*api.begin, *api.delta("first"), end=False)
    async with serving([*sent, STALL if how is CUT else how]) as server, api.provider(server.url) as provider:
        events = provider.stream(request("hello"))
        assert await anext(events) == "first"
        if how is CUT:
            server.cut()
        with pytest.raises(ProviderError) as caught:
            await anext(events)
        assert caught.value.retryable
        assert caught.value.status is None
        assert len(server.asked) == 1


@on_a_loop
async def test_an_end_without_a_finish(api: Api) -> None:
    """A stream that ends properly, but before the model has said that it was done, broke off."""
    if api.name == "pydantic_ai":
        pytest.skip("it takes this for an end: some compatible servers never send another")
    async with serving(stream(*api.begin, *api.delta("first"))) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert caught.retryable
        assert "broke off before the end of the answer" in str(caught)


@on_a_loop
async def test_too_many_requests(api: Api) -> None:
    """A 429 is one request, an error that says when to try again; the next try is one request too."""
    refusal = error(429, _BUSY, "Retry-After: 3\r\n")
    async with serving(refusal, refusal, stream(*api.answer("ok"))) as server, api.provider(server.url) as provider:
        for count in (1, 2):
            caught = await failed(provider)
            assert (caught.status, caught.retryable, caught.retry_after) == (429, True, 3.0)
            assert "slow down" in str(caught)
            assert len(server.asked) == count
        assert (await ask(provider, "hello")).text.startswith("ok")
        assert len(server.asked) == 3


@on_a_loop
async def test_a_date_to_retry_at(api: Api) -> None:
    """A date in Retry-After is compared with the date of the answer."""
    now = datetime(2020, 1, 1, tzinfo=UTC)
    later = now + timedelta(seconds=90)
    dates = f"Date: {format_datetime(now, usegmt=True)}\r\nRetry-After: {format_datetime(later, usegmt=True)}\r\n"
    async with serving(error(503, _BUSY, dates)) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert caught.retryable
        if api.name != "pydantic_ai":  # which reads the header by itself, against the clock
            assert caught.retry_after == 90.0


@pytest.mark.parametrize(
    ("status", "again"),
    [(400, False), (403, False), (404, False), (422, False), (408, True), (409, True), (500, True), (529, True)],
)
@on_a_loop
async def test_statuses(api: Api, status: int, again: bool) -> None:
    """Which statuses another try may help against; none is retried here."""
    async with serving(error(status, {"error": {"message": "no"}})) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert (caught.status, caught.retryable) == (status, again)
        assert (caught.provider, caught.model) == (provider.name, "m")
        assert len(server.asked) == 1


@on_a_loop
async def test_a_refused_key(api: Api) -> None:
    """A 401 is one request and says that the key was refused; the key itself is nowhere, though the server tells it."""
    async with serving(error(401, _REFUSED)) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert (caught.status, caught.retryable) == (401, False)
        assert "refused the API key (401)" in str(caught)
        assert "the key … is not known here" in str(caught)
        assert len(server.asked) == 1
        assert KEY not in "".join(traceback.format_exception(caught))
        assert KEY in str(server.asked[0].headers)


@pytest.mark.parametrize(
    "script", [error(500, {"error": {"message": "no"}}), error(401, _REFUSED), [CUT]], ids=["500", "401", "cut"]
)
@on_a_loop
async def test_the_key_is_nowhere(api: Api, script: list[Step], caplog: pytest.LogCaptureFixture) -> None:
    """Neither the provider nor an error nor a log shows the API key, not even one that prints variables."""
    printed: list[str] = []
    sink = logger.add(printed.append, diagnose=True, backtrace=True)
    try:
        with caplog.at_level(logging.DEBUG):
            async with serving(script) as server, api.provider(server.url) as provider:
                caught = await failed(provider)
                logger.opt(exception=caught).error("it failed")
    finally:
        logger.remove(sink)
    assert "it failed" in printed[0]
    assert KEY in str(server.asked[0].headers)
    for shown in (f"{provider!r} {caught!r}", *printed, caplog.text, *traceback.format_exception(caught)):
        assert KEY not in shown


@on_a_loop
async def test_a_malformed_chunk(api: Api) -> None:
    """A chunk that is no JSON ends the call with an error that allows another try."""
    sent = stream(*api.begin, *api.delta("first"), b'data: {"choices": [{"del\n\n', *api.end)
    async with serving(sent) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert caught.retryable
        assert len(server.asked) == 1


@on_a_loop
async def test_garbage(api: Api) -> None:
    """An answer that is no stream at all is an error that allows another try."""
    async with serving(error(200, "<html>the proxy says hello</html>")) as server, api.provider(server.url) as provider:
        caught = await failed(provider)
        assert caught.retryable


@on_a_loop
async def test_a_chunk_in_pieces(api: Api) -> None:
    """Where the bytes are cut on their way means nothing, not even inside a character."""
    whole = b"".join(api.answer("grüß ", "dich\u2028\u0085"))
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    async with serving(stream(*pieces)) as server, api.provider(server.url) as provider:
        assert (await ask(provider, "hello")).text.startswith("grüß dich\u2028\u0085")


@on_a_loop
async def test_a_stall_after_the_first_token(api: Api) -> None:
    """A server that goes silent is given up after the timeout, what came before is given."""
    sent = stream(*api.begin, *api.delta("first"), end=False)
    async with serving([*sent, STALL]) as server, api.provider(server.url, timeout=1.0) as provider:
        events = provider.stream(request("hello"))
        assert await anext(events) == "first"
        with pytest.raises(ProviderTimeout) as caught:
            await anext(events)
        assert caught.value.retryable
        await asyncio.wait_for(server.gone.wait(), WAIT)


@on_a_loop
async def test_headers_that_do_not_come(api: Api) -> None:
    """A server that does not begin to answer is given up after the timeout."""
    async with serving([STALL]) as server, api.provider(server.url, timeout=0.5) as provider:
        with pytest.raises(ProviderTimeout):
            await ask(provider, "hello")
        assert len(server.asked) == 1


@on_a_loop
async def test_nobody_there(api: Api) -> None:
    """A refused connection is an error that allows another try, and says where it was."""
    async with serving([CUT]) as server:
        url = server.url
    async with api.provider(url) as provider:
        caught = await failed(provider)
        assert caught.retryable
        assert "the connection to" in str(caught)
        if api.name in _OWN_CODE:
            assert url in str(caught)


@on_a_loop
async def test_closing_the_iterator(api: Api) -> None:
    """Closing the iterator in mid-stream ends the request: the server sees it."""
    sent = stream(*api.begin, *api.delta("first"), end=False)
    async with serving([*sent, STALL]) as server, api.provider(server.url) as provider:
        events = provider.stream(request("hello"))
        assert await anext(events) == "first"
        assert not server.gone.is_set()
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(server.gone.wait(), WAIT)


@pytest.mark.parametrize("first", [True, False], ids=["in mid-stream", "before the headers"])
@on_a_loop
async def test_cancelling(api: Api, first: bool) -> None:
    """Cancelling the task that reads ends the request, and the cancellation goes through."""
    sent = stream(*api.begin, *api.delta("first"), end=False) if first else []
    async with serving([*sent, STALL]) as server, api.provider(server.url) as provider:
        task = asyncio.create_task(ask(provider, "hello"))
        await asyncio.wait_for(server.waiting.wait(), WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), WAIT)


@on_a_loop
async def test_one_connection(api: Api) -> None:
    """Calls that follow each other share a connection."""
    async with serving(stream(*api.answer("ok"))) as server, api.provider(server.url) as provider:
        for _ in range(3):
            await ask(provider, "hello")
        assert (len(server.asked), server.connections) == (3, 1)


@on_a_loop
async def test_tries_of_a_stage(api: Api) -> None:
    """Under a stage that retries, 429, 429, 200 are three requests and an answer; 401 is one, and a failure."""
    retry = Retry(attempts=3, wait=0.0, jitter=0.0, retry_on=is_retryable)
    refusal = error(429, _BUSY, "Retry-After: 0\r\n")
    async with serving(refusal, refusal, stream(*api.answer("ok"))) as server, api.provider(server.url) as provider:
        pipeline = Pipeline.of(ProviderStage("assistant", provider=provider, retry=retry))
        result = await pipeline.execute([Message.user("hello")])
        assert result.messages[-1].text.startswith("ok")
        assert len(server.asked) == 3
    async with serving(error(401, _REFUSED)) as server, api.provider(server.url) as provider:
        pipeline = Pipeline.of(ProviderStage("assistant", provider=provider, retry=retry, on_error="emit"))
        (failure,) = (await pipeline.execute([Message.user("hello")])).failures
        assert "refused the API key (401)" in str(failure.error)
        assert len(server.asked) == 1
