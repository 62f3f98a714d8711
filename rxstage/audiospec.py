"""What is known of the form of sound before it comes: so that a graph can be checked."""

from __future__ import annotations

from msgspec import Struct

from rxstage.content import AudioFormat

__all__ = ["AudioSpec"]


class AudioSpec(Struct, frozen=True):
    """The form of sound, as far as it is known or matters.

    Attributes:
        sample_rate: frames per second [Hz]; None: not known, or any.
        channels: samples per frame, likewise.
        format: encoding of a sample, likewise.
    """

    sample_rate: int | None = None
    channels: int | None = None
    format: AudioFormat | None = None

    def clashes(self, other: AudioSpec) -> bool:
        """Whether the two say different things of something that both know."""
        return any(
            mine is not None and theirs is not None and mine != theirs
            for mine, theirs in (
                (self.sample_rate, other.sample_rate),
                (self.channels, other.channels),
                (self.format, other.format),
            )
        )

    def covers(self, other: AudioSpec) -> bool:
        """Whether this says, and says the same, of all that the other names."""
        return all(
            theirs is None or mine == theirs
            for mine, theirs in (
                (self.sample_rate, other.sample_rate),
                (self.channels, other.channels),
                (self.format, other.format),
            )
        )

    def common(self, other: AudioSpec) -> AudioSpec:
        """What both say."""
        return AudioSpec(
            self.sample_rate if self.sample_rate == other.sample_rate else None,
            self.channels if self.channels == other.channels else None,
            self.format if self.format == other.format else None,
        )

    def __str__(self) -> str:
        channels = {None: "", 1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        rate = f"{self.sample_rate} Hz" if self.sample_rate is not None else ""
        return " ".join(filter(None, (rate, channels, str(self.format or "")))) or "any sound"
