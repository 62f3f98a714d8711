"""How urgent an element is."""

from enum import IntEnum

__all__ = ["Priority"]


class Priority(IntEnum):
    """Order in which a priority queue drains: the higher goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3
