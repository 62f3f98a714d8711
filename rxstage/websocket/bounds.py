"""What a session may hold, and what it holds."""

from __future__ import annotations

from msgspec import Struct

from rxstage.websocket.queue import LinkOverflow, LinkQueueStatistics

__all__ = ["SessionOptions", "SessionStatistics"]


class SessionOptions(Struct, frozen=True):
    """The bounds of a session.

    Attributes:
        buffer: elements that each direction holds.
        buffer_bytes: bytes of sound that each direction holds.
        overflow_in: what happens where more comes in than is taken: the oldest sound is left out, or the connection is
            not read till there is room.
        overflow_out: what happens where more is to be sent than the other end reads, likewise.
        replay: frames that are kept till the other end has acknowledged them.
        replay_bytes: bytes of them.
    """

    buffer: int = 256
    buffer_bytes: int = 1_048_576
    overflow_in: LinkOverflow = "drop_oldest"
    overflow_out: LinkOverflow = "drop_oldest"
    replay: int = 256
    replay_bytes: int = 524_288


class SessionStatistics(Struct, frozen=True):
    """A snapshot of a session.

    Attributes:
        sent: numbered frames sent.
        received: number of the newest frame received.
        duplicates: frames that came twice and were dropped.
        lost: frames that were left out of what would be sent again.
        unsendable: elements that have no wire form or that the other end does not take.
        incoming: the queue of what has come in.
        outgoing: the queue of what is to be sent.
    """

    sent: int
    received: int
    duplicates: int
    lost: int
    unsendable: int
    incoming: LinkQueueStatistics
    outgoing: LinkQueueStatistics
