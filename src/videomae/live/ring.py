"""The newest clip of a stream: as many frames as the model takes, at the distances that it was trained with.

Frames come in prepared, so that memory is that of one clip at the model's size, whatever the stream's.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

GAP_SPACINGS = 4.0  # frames further apart than this are of two shots: no clip goes over the gap
GAP_SECONDS = 1.0  # or than this, where that is longer


class LiveClip(NamedTuple):
    """The newest frames of a stream."""

    frames: Tensor
    """uint8 `[1, T, C, h, w]`, for `Predictor.clip_logits`."""
    start_seconds: float
    """Time of the first, from the beginning of the stream."""
    end_seconds: float
    """Time of the last."""
    arrived: float
    """When the last one arrived, by `time.monotonic`."""
    number: int
    """Of the last frame, counted from 1: the same number, the same clip."""

    @property
    def centre_seconds(self) -> float:
        """What time the clip is about."""
        return (self.start_seconds + self.end_seconds) / 2


class ClipRing:
    """Keeps the newest frames of a stream, at even distances; may be used by several threads."""

    def __init__(self, num_frames: int, spacing_seconds: float, early_seconds: float = 0.0) -> None:
        """Begin empty.

        Args:
            num_frames: T.
            spacing_seconds: Distance of the frames of a clip.
            early_seconds: How long before its time a frame is taken; half the distance of the stream's frames.
        """
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, float, Tensor]] = deque(maxlen=num_frames)
        self._num_frames = num_frames
        self.spacing = spacing_seconds
        """Distance of the frames of a clip; may be changed between two connections."""
        self.early = early_seconds
        """How long before its time a frame is taken: half the stream's own distance, which makes it the nearest."""
        self._due: float | None = None
        self._number = 0

    def wants(self, seconds: float) -> bool:
        """Tell whether a frame of this time is one of the clip's; the others need not be prepared."""
        return self._due is None or seconds >= self._due - self.early or seconds < self._due - self._gap

    def push(self, seconds: float, arrived: float, frame: Tensor) -> None:
        """Take a frame, uint8 `[C, h, w]`, that `wants` was true for."""
        with self._lock:
            last = self._frames[-1][0] if self._frames else None
            if last is not None and not 0 <= seconds - last <= self._gap:
                self._frames.clear()
                self._due = None
            # From the time that was due, not from this frame's: else a rounding in each would add up.
            base = seconds if self._due is None or seconds - self._due > self.spacing else self._due
            self._due = base + self.spacing
            self._frames.append((seconds, arrived, frame))
            self._number += 1

    def clear(self) -> None:
        """Forget all frames: the next belong to another connection."""
        with self._lock:
            self._frames.clear()
            self._due = None

    def newest(self) -> LiveClip | None:
        """Return the newest clip; None until there are enough frames."""
        with self._lock:
            if len(self._frames) < self._num_frames:
                return None
            rows, number = list(self._frames), self._number
        frames = torch.stack([frame for _, _, frame in rows])[None]
        return LiveClip(frames, rows[0][0], rows[-1][0], rows[-1][1], number)

    @property
    def _gap(self) -> float:
        return max(GAP_SECONDS, GAP_SPACINGS * self.spacing)
