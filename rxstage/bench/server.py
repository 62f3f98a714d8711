"""A server that streams chat completions as fast as it is read: what the client costs can be measured against it.

Run as a program it prints its port. Each answer has as many pieces of text as the request's `max_tokens` says.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Final

__all__ = ["completions_server", "main"]

_BATCH: Final = 8  # pieces in one write, as they come over a network
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STEADY: Final = {"id": "bench", "object": "chat.completion.chunk", "created": 0, "model": "bench"}


def _event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**_STEADY, "choices": [choice], **more}).encode() + b"\n\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    piece = _event({"content": "word "})
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
            writer.write(_HEAD)
            left = body.get("max_tokens") or body.get("max_completion_tokens") or 16
            while left > 0:
                data = piece * min(left, _BATCH)
                writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                left -= _BATCH
                await writer.drain()
            end = _event({}, "stop", usage=usage) + b"data: [DONE]\n\n"
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # till whoever started it goes


def main() -> None:
    """Serve till standard input is closed."""
    asyncio.run(_main())


@contextmanager
def completions_server() -> Iterator[str]:
    """The address of such a server, in a process of its own."""
    process = Popen([sys.executable, "-m", "rxstage.bench.server"], stdin=PIPE, stdout=PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5.0)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
