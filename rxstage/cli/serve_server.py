"""The server of the page: files, the WebSocket, and who may have them."""

from __future__ import annotations

import socket
from functools import partial
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from rxstage.cli.serve_pipeline import Voice
from rxstage.cli.serve_session import converse
from rxstage.websocket.options import File, ServerOptions
from rxstage.websocket.server import WebSocketServer

__all__ = ["PATH", "PageServer", "host_of", "page_server"]

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
        tls=tls,
        max_sessions=_SESSIONS,
        max_connections=4 * _SESSIONS,
    )
    return PageServer(partial(converse, voice), options, names)


class PageServer(WebSocketServer):
    """A server for browsers: it answers only requests for a name of its own, and says what the page may do.

    A page of somebody else's whose name is made to lead here (DNS rebinding) is told apart by that name.

    Args:
        answer: as for `WebSocketServer`.
        options: likewise.
        names: names that it is reached by, beside addresses, `localhost` and the name of the machine.
    """

    def __init__(self, answer: Any, options: ServerOptions, names: tuple[str, ...] = ()) -> None:
        super().__init__(answer, options)
        machine = socket.gethostname().lower()
        own = ("localhost", options.host, *((machine, f"{machine}.local") if self.is_open else ()))
        self._names = frozenset(name.lower().rstrip(".") for name in (*own, *names) if name)

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        host = self.options.host
        try:
            return not ip_address(host).is_loopback
        except ValueError:
            return host.lower() != "localhost"

    @property
    def page(self) -> str:
        """The address of the page."""
        options = self.options
        host = "localhost" if options.host in _ANY else f"[{options.host}]" if ":" in options.host else options.host
        return f"{'http' if options.tls is None else 'https'}://{host}:{self.port}/"

    def knows(self, host: str | None) -> bool:
        """Whether a `Host` header is one of its own: an address, or a name that is known."""
        name = host_of(host or "")
        if name is None:
            return False
        if name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return self.is_open or address.is_loopback

    def _counted(self, base: Any) -> Any:
        """The class of its connections, with the answer to each request looked at before and after."""
        server = self
        counted: Any = super()._counted(base)

        class Guarded(counted):  # type: ignore[misc]
            async def handshake(self, process_request: Any, process_response: Any, server_header: Any) -> None:
                def guarded(connection: Any, request: Any) -> Any:
                    hosts = request.headers.get_all("Host")
                    if len(hosts) != 1 or not server.knows(hosts[0]):
                        return connection.respond(
                            421, "This name is not one of this server's; --allow-host makes it one.\n"
                        )
                    return process_request(connection, request)

                def headed(_: Any, __: Any, response: Any) -> None:
                    if response.status_code != 101:
                        for name, value in _HEADERS.items():
                            response.headers[name] = value

                await super().handshake(guarded, headed, server_header)

        return Guarded


def host_of(header: str) -> str | None:
    """The name or address in a `Host` header, without the port; None where there is none."""
    name = header.strip().lower()
    if name.startswith("["):
        name, bracket, rest = name[1:].partition("]")
        return name if bracket and (not rest or rest.startswith(":")) else None
    name, _, port = name.partition(":")
    return name.rstrip(".") if name and (not port or port.isdecimal()) else None
