"""How a server behaves."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rxstage.websocket.bounds import SessionOptions
from rxstage.websocket.hosts import is_loopback
from rxstage.websocket.protocol import KNOWN_FORMS, Limits, Sound

__all__ = ["File", "ServerOptions"]

File: TypeAlias = tuple[str, bytes]
"""A file that is served: its MIME type and its content."""


_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_FRAMING: Final = ("connection", "content-length", "transfer-encoding")


class ServerOptions(BaseModel):
    """How a server behaves. All times in seconds.

    Args:
        host: address to listen on.
        port: 0 takes one that is free.
        path: path of the WebSocket; None takes every path that is no file.
        tokens: who knows one of them may connect; none: everybody may. A program sends it as
            `Authorization: Bearer …`, a page in `hello`.
        origins: pages that may connect, such as `"https://example.org"`, `"*"` for all; None: only pages that come from
            the address that the request is for. Programs send no origin and may connect in any case.
        hosts: names that a request may be for in its `Host` header, beside `localhost`, `host` and addresses; with any
            other it is answered with 421, so that no page can reach the server by a name of its own that it makes lead
            here (DNS rebinding). None: all names.
        headers: what plain HTTP responses say beside or instead of the usual, such as `Content-Security-Policy`.
        tls: an `ssl.SSLContext`, or the files with the certificate chain and the key.
        files: what a plain HTTP request for a path gets, or a function that gives it.
        trusted: clients may send every kind of element, with metadata, and get metadata and tracebacks: for ends that
            are programs of yours. Else a client may send sound, text, messages as the user, and controls.
        sample_rates: rates [Hz] that a client may send.
        speaks: form of the sound that is sent; None: the one that the client wants.
        limits: what a client must not exceed.
        max_sessions: more are refused; one that waits for its client gives way first.
        max_connections: more connections, with those that have not introduced themselves, are refused.
        session: the bounds of each session.
        open_timeout: for the handshake, and again for `hello`.
        heartbeat: between two pings; None sends none.
        heartbeat_timeout: after which a connection whose other end does not answer is closed.
        close_timeout: for a closing handshake.
        resume_for: how long a session waits for a client that was lost; 0 ends it at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    path: str | None = None
    tokens: tuple[str, ...] = Field(default=(), repr=False)
    origins: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    tls: ssl.SSLContext | tuple[Path, Path] | None = None
    files: Mapping[str, File | Callable[[], File]] = Field(default_factory=dict)
    trusted: bool = False
    sample_rates: tuple[int, ...] = KNOWN_FORMS
    speaks: Sound | None = None
    limits: Limits = Limits(message_bytes=65_536, messages_per_second=400, bytes_per_second=1_048_576)
    max_sessions: int = Field(default=256, ge=1)
    max_connections: int = Field(default=512, ge=1)
    session: SessionOptions = SessionOptions()
    open_timeout: float = Field(default=5.0, gt=0)
    heartbeat: float | None = Field(default=20.0, gt=0)
    heartbeat_timeout: float = Field(default=20.0, gt=0)
    close_timeout: float = Field(default=5.0, gt=0)
    resume_for: float = Field(default=30.0, ge=0)

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"header {name!r}: {value!r} cannot be sent: a name is one word, a value one line")
            if name.lower() in _FRAMING:
                raise ValueError(f"header {name!r} is the server's own: it says where the response ends; leave it out")
        return headers

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the server."""
        return not is_loopback(self.host)

    def context(self) -> ssl.SSLContext | None:
        """The TLS context, if there is to be TLS."""
        if self.tls is None or isinstance(self.tls, ssl.SSLContext):
            return self.tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.tls)
        return context
