"""Who is let in: what is decided of an HTTP request before it becomes a WebSocket."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rxstage.errors import require
from rxstage.websocket.hosts import knows
from rxstage.websocket.limits import known_secret
from rxstage.websocket.options import ServerOptions

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

__all__ = ["Door"]


class Door:
    """Answers plain HTTP requests with files, and checks host, origin and token.

    Args:
        options: of the server.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._http: Any = require("websockets.http11", "websocket")
        self._headers: Any = require("websockets.datastructures", "websocket").Headers

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response; None: it may become a WebSocket."""
        headers, options = request.headers, self._options
        if not self._is_own(headers):
            return self._plain(HTTPStatus.MISDIRECTED_REQUEST, "this server does not go by this name; `hosts` adds one")
        path = request.path.partition("?")[0]
        if not any("websocket" in value.lower() for value in headers.get_all("Upgrade")):
            return self._file(path)
        if options.path is not None and path != options.path:
            return self._plain(HTTPStatus.NOT_FOUND, "nothing here")
        if not self._is_welcome(headers):
            return self._plain(HTTPStatus.FORBIDDEN, "pages of this origin may not connect")
        given = headers.get_all("Authorization")
        if given and options.tokens:
            scheme, _, token = given[0].partition(" ")
            if len(given) > 1 or scheme.lower() != "bearer" or known_secret(token.strip(), options.tokens) is None:
                return self._plain(HTTPStatus.UNAUTHORIZED, "not the right token", ("WWW-Authenticate", "Bearer"))
        return None

    def head(self, connection: ServerConnection, request: Request, response: Response) -> None:
        """Put the server's own headers into a response, whoever made it, that does not open a WebSocket."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            for name, value in self._options.headers.items():
                response.headers.pop(name, None)  # setting one adds to those of its name
                response.headers[name] = value

    def token_of(self, connection: ServerConnection) -> str | None:
        """The token that the request has brought in its head."""
        request = connection.request
        given = request.headers.get_all("Authorization") if request is not None else ()
        return given[0].partition(" ")[2].strip() if given else None

    def _is_own(self, headers: Any) -> bool:
        names = self._options.hosts
        if names is None:
            return True
        given = headers.get_all("Host")
        return len(given) == 1 and knows(given[0], names, self._options.host)

    def _is_welcome(self, headers: Any) -> bool:
        given = headers.get_all("Origin")
        if not given:
            return True
        if len(given) > 1:
            return False
        origins = self._options.origins
        if origins is not None:
            return "*" in origins or given[0] in origins
        try:
            return bool(netloc := urlsplit(given[0]).netloc) and [netloc] == headers.get_all("Host")
        except ValueError:
            return False

    def _file(self, path: str) -> Response:
        file = self._options.files.get(path)
        if file is None:
            return self._plain(HTTPStatus.NOT_FOUND, "nothing here")
        kind, content = file() if callable(file) else file
        return self._response(HTTPStatus.OK, kind, content)

    def _plain(self, status: HTTPStatus, text: str, *more: tuple[str, str]) -> Response:
        return self._response(status, "text/plain; charset=utf-8", f"{text}\n".encode(), *more)

    def _response(self, status: HTTPStatus, kind: str, content: bytes, *more: tuple[str, str]) -> Response:
        headers = self._headers(
            [
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                *more,
            ]
        )
        response: Response = self._http.Response(status.value, status.phrase, headers, content)
        return response
