"""What goes wrong on the way to a model, told as a `ProviderError` that says whether another try may help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any, Final

from msgspec import DecodeError

from rxstage.errors import RxStageError
from rxstage.ports.provider import ProviderError, ProviderTimeout

__all__ = ["broke_off", "provider_error", "retry_after", "retryable", "told"]

_RETRYABLE: Final = frozenset({408, 409, 429})
_TIMEOUTS: Final = frozenset({"TimeoutException", "APITimeoutError", "ModelTimeoutError", "ModelRequestTimeout"})
_CONNECTION: Final = frozenset({"TransportError", "APIConnectionError", "ModelConnectionError"})
_UNREADABLE: Final = frozenset({"DecodingError", "UnknownApiResponseError", "UnexpectedModelBehavior"})
_WRONG_ADDRESS: Final = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})
_REJECTED: Final = frozenset({"ModelRequestRejectedError", "ModelQuotaExceededError"})
_SHORTEST: Final = 8  # characters of a key; servers of one's own are given words such as "none"
_LIMIT: Final = 500  # characters of what a server says


def retryable(status: int) -> bool:
    """Whether a call that was answered with this status of HTTP may succeed later."""
    return status in _RETRYABLE or status >= 500


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that the headers of an answer ask to wait, or None.

    A date is compared with the one that the same answer gives for itself, so that a clock that is wrong does no harm.
    """
    if not headers:
        return None
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None


def broke_off(provider: str, model: str, detail: str = "") -> ProviderError:
    """The error of a stream that ended before the model had said that it was done."""
    return ProviderError(
        f"the stream of {provider} broke off before the end of the answer{f' ({detail})' if detail else ''}",
        provider=provider,
        model=model,
        retryable=True,
    )


class told:
    """Whatever is raised inside leaves as a `ProviderError`.

    Args:
        provider: its name.
        model: the model that is asked.
        address: where it is, if that was chosen.
        secret: API key, which never appears in a message.
        hint: what to check where the key is refused.
    """

    __slots__ = ("_secret", "_told")

    def __init__(self, provider: str, model: str, *, address: str = "", secret: str = "", hint: str = "") -> None:
        self._secret = secret = secret if len(secret) >= _SHORTEST else ""
        self._told = {"provider": provider, "model": model, "address": address, "secret": secret, "hint": hint}

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, RxStageError):
            return
        failure = provider_error(error, **self._told)
        cause = self._cause(error, failure)
        raise failure from cause

    def _cause(self, error: Exception, failure: ProviderError) -> Exception | None:
        """What is shown of the original: logs may print it with the variables of its frames, and the key is in them."""
        chain = list(_chain(error, contexts=True))
        if self._secret and any(self._secret in str(each) for each in chain):
            return None  # a server may repeat the key that it refuses
        if failure.retryable or failure.status is not None:  # else it may be a mistake, and its place is wanted
            for each in chain:
                each.__traceback__ = None
        return error


def provider_error(
    error: Exception, *, provider: str, model: str, address: str = "", secret: str = "", hint: str = ""
) -> ProviderError:
    """The `ProviderError` for what a library raised; see `told` for the arguments."""
    status = _status(error)
    kinds = _kinds(error)
    said = _said(error)
    if secret:
        said = said.replace(secret, "…")
    common: dict[str, Any] = {"provider": provider, "model": model}
    if status is not None:
        headers = _headers(error)
        waits = (getattr(error, "retry_after", None), retry_after(headers), _retry_info(error))
        what = f"{provider} refused the API key ({status})" if status == 401 else f"{provider} answered {status}"
        check = f"; {hint}" if hint and status == 401 else ""
        return ProviderError(
            f"{what} for model {model!r}: {said}{check}",
            status=status,
            retryable=_again(error, status, headers),
            retry_after=next((wait for wait in waits if wait is not None), None),
            **common,
        )
    if isinstance(error, TimeoutError) or kinds & _TIMEOUTS:
        return ProviderTimeout(f"{provider} did not answer in time: {said}", retryable=True, **common)
    if isinstance(error, OSError) or kinds & _CONNECTION:
        where = f" at {address}" if address else ""
        again = not kinds & _WRONG_ADDRESS
        return ProviderError(f"the connection to {provider}{where} failed: {said}", retryable=again, **common)
    if isinstance(error, (DecodeError, JSONDecodeError, UnicodeDecodeError)) or kinds & _UNREADABLE:
        return ProviderError(f"{provider} sent what cannot be read: {said}", retryable=True, **common)
    again = "ModelAPIError" in kinds and not kinds & _REJECTED  # as pydantic-ai calls what has no status
    return ProviderError(f"the call of {provider} failed: {said}", retryable=again, **common)


def _again(error: Exception, status: int, headers: Mapping[str, str] | None) -> bool:
    told = (headers or {}).get("x-should-retry")  # what a server says about it goes first
    if told in ("true", "false"):
        return told == "true"
    return retryable(status) and getattr(error, "code", None) != "insufficient_quota"


def _status(error: Exception) -> int | None:
    for name in ("status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return None


def _headers(error: Exception) -> Mapping[str, str] | None:
    headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None)
    return {name.lower(): value for name, value in headers.items()} if headers else None


def _retry_info(error: Exception) -> float | None:
    """Seconds that Google asks to wait, which it says in the body."""
    try:
        details = error.details["error"]["details"]  # type: ignore[attr-defined]
        delays = [each["retryDelay"] for each in details if "retryDelay" in each]
        return float(str(delays[0]).removesuffix("s"))
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _kinds(error: BaseException) -> set[str]:
    """Names of the classes of an error and of what caused it, as libraries wrap those of the libraries below."""
    return {kind.__name__ for cause in _chain(error) for kind in type(cause).__mro__}


def _chain(error: BaseException | None, *, contexts: bool = False) -> Iterator[BaseException]:
    """An error and what caused it, down to an error of ours, which whoever asks may be busy with."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and not isinstance(error, RxStageError):
        seen.add(id(error))
        yield error
        error = error.__cause__ or (error.__context__ if contexts else None)


def _said(error: BaseException) -> str:
    body = getattr(error, "body", None)
    for level in (body.get("error") if isinstance(body, dict) else None, body):
        if isinstance(level, dict) and isinstance(level.get("message"), str):
            return str(level["message"])[:_LIMIT]
    if isinstance(body, dict) and isinstance(body.get("detail"), str):  # as servers on FastAPI have it
        return str(body["detail"])[:_LIMIT]
    message = getattr(error, "message", None)
    text = message if isinstance(message, str) and message else str(error)
    cause = error.__cause__
    if cause is not None and str(cause) not in text:
        text = f"{text.rstrip('.')}: {cause}"
    return text[:_LIMIT] or type(error).__name__
