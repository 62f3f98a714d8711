"""The server of the page: files, the WebSocket, and who may have them."""

from __future__ import annotations

import socket
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Final

from rxstage.cli.serve_pipeline import Voice
from rxstage.cli.serve_session import converse
from rxstage.websocket.hosts import is_loopback
from rxstage.websocket.options import File, ServerOptions
from rxstage.websocket.server import WebSocketServer

__all__ = ["PATH", "PageServer", "page_server"]

PATH: Final = "/talk"
"""Path of the WebSocket."""

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in (
            "app.js",
            "link.js",
            "sound.js",
            "view.js",
            "graph.js",
            "resampler.js",
            "capture-worklet.js",
            "player-worklet.js",
        )
    },
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_SESSIONS: Final = 16
_ANY: Final = ("", "0.0.0.0", "::")


def page_server(
    voice: Voice,
    host: str,
    port: int,
    *,
    token: str | None = None,
    names: tuple[str, ...] = (),
    tls: tuple[Path, Path] | None = None,
) -> PageServer:
    """A server of the page, not started yet.

    Args:
        voice: who answers.
        host: address to listen on.
        port: 0 takes one that is free.
        token: whoever connects has to know it.
        names: further names by which the page is reached.
        tls: files with the certificate chain and its key.
    """
    folder = files("rxstage") / "web"
    served: dict[str, File] = {path: (kind, (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()}
    served["/graph.svg"] = ("image/svg+xml", voice.pipeline.to_svg().encode())
    options = ServerOptions(
        host=host,
        port=port,
        path=PATH,
        tokens=() if token is None else (token,),
        files=served,
        hosts=(*_names_here(host), *names),
        headers=_HEADERS,
        tls=tls,
        max_sessions=_SESSIONS,
        max_connections=4 * _SESSIONS,
    )
    return PageServer(partial(converse, voice), options)


class PageServer(WebSocketServer):
    """A server for browsers, which knows the address of its page."""

    @property
    def page(self) -> str:
        """The address of the page."""
        options = self.options
        host = "localhost" if options.host in _ANY else f"[{options.host}]" if ":" in options.host else options.host
        return f"{'http' if options.tls is None else 'https'}://{host}:{self.port}/"


def _names_here(host: str) -> tuple[str, ...]:
    """The names that other machines know this one by, where they can reach it."""
    machine = socket.gethostname()
    return () if is_loopback(host) else (machine, f"{machine}.local")
