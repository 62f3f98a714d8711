"""The port to detectors of speech."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Vad", "VadSession"]


class VadSession(ABC):
    """Listens to one stream of sound; holds what the detector remembers of it.

    Attributes:
        window: samples that it judges at a time.
    """

    window: int

    @abstractmethod
    def probability(self, window: bytes) -> float:
        """How likely it is speech, 0 to 1.

        Args:
            window: `window` samples of 16-bit little-endian mono sound.
        """


class Vad(ABC):
    """Tells speech from other sound. One object serves any number of streams.

    Attributes:
        name: what to call it.
        rates: the rates that it listens to [Hz], the best first; empty: any. Sound of another rate is resampled.
    """

    name: str
    rates: tuple[int, ...] = ()

    @abstractmethod
    def open(self, sample_rate: int) -> VadSession:
        """Begin to listen to a stream.

        Args:
            sample_rate: of the sound [Hz], one of `rates`.
        """
