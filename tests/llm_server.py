"""A server on this machine that speaks as much of OpenAI's protocol as a chat needs, and does what it is told."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

__all__ = ["EVIL", "LONG", "LlmServer", "llm_server"]

_LIMIT: Final = 60.0  # seconds that an answer is held back at most
EVIL: Final = "evil \x1b[31mred \x1b]0;title\x07\x9b32m &#27;[33m end"
LONG: Final = "# Long\n\n" + "".join(
    f"## Part {number}\n\nParagraph **{number}** of many words, 日本語 among them, that fill more than one row.\n\n"
    f"- item {number}\n- another\n\n```python\nreturn {number}\n```\n\n"
    for number in range(1, 9)
)


class LlmServer(ThreadingHTTPServer):
    """Answers by what the newest message asks for.

    `stall` begins and goes on only when the client has gone; `gate` begins and goes on when `gate` is set; `long`,
    `evil` and `refuse` are what they say; all else is repeated, with the number of messages that came.

    Attributes:
        models: what it lists.
        gate: lets the answers to `gate` go on.
        left: set when a client has left in the middle of an answer.
        keys: the API keys that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = ["first", "second"]
        self.gate = threading.Event()
        self.left = threading.Event()
        self.keys: set[str] = set()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def llm_server() -> Iterator[LlmServer]:
    """A server for the time of a block."""
    with LlmServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join(_LIMIT)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LlmServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The list of the models."""
        self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        """An answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers["authorization"].removeprefix("Bearer "))
        content = body["messages"][-1]["content"]
        asked = content if isinstance(content, str) else "".join(part["text"] for part in content)
        if asked == "refuse":
            self._json(400, {"error": {"message": f"refused: {EVIL}"}})
            return
        known = {"long": LONG, "evil": EVIL, "stall": "I begin", "gate": "I begin"}
        text = known.get(asked, f"{asked}, you said in message {len(body['messages'])} to {body['model']}.")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for start in range(0, len(text), 5):
            self._event({"choices": [{"index": 0, "delta": {"content": text[start : start + 5]}}]})
        if asked == "stall":
            if select.select([self.connection], [], [], _LIMIT)[0]:  # what comes is the end of the connection
                self.server.left.set()
            return
        if asked == "gate":
            self.server.gate.wait(_LIMIT)
            self._event({"choices": [{"index": 0, "delta": {"content": " and end"}}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        event |= {"id": "x", "object": "chat.completion.chunk", "model": "first"}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def _json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
