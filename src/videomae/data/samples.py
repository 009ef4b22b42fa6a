"""One training sample: which it is, what it holds, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NO_LABEL = -1


@dataclass(frozen=True)
class SampleKey:
    """Which sample: everything that its random draws may depend on besides the seed."""

    epoch: int
    """Pass over the data set, from 0."""
    index: int
    """Row of the manifest."""
    repeat: int = 0
    """Which of the clips that are cut from one decoding, from 0."""
    occurrence: int = 0
    """How often the row has come before in this pass; above 0 where small classes are drawn again."""

    def parts(self, purpose: str) -> tuple[int | str, ...]:
        """Return what a draw depends on besides the seed, for `engine.seeding`."""
        return (*self.video_parts(purpose), self.repeat) if self.repeat else self.video_parts(purpose)

    def video_parts(self, purpose: str) -> tuple[int | str, ...]:
        """Return the same for what all clips of one decoding share."""
        first = (self.epoch, self.index, purpose)
        return (*first, "again", self.occurrence) if self.occurrence else first


@dataclass(frozen=True)
class ClipSample:
    """One clip, ready to be batched."""

    clip: Tensor
    """`[T, C, S, S]` uint8."""
    label: int
    """Class id; -1 where there is none."""
    visible: Tensor | None
    """`[V]` int64, tokens that the encoder sees; None without masks."""
    decoded: Tensor | None
    """`[M]` int64, tokens that the decoder predicts; None without masks."""
    index: int
    """Row of the manifest."""


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be read."""

    path: str
    """The file."""
    reason: str
    """What is wrong with it, one line."""
