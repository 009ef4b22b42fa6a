"""Which clips of a video are asked for: the middle one, or windows over all of it, in seconds or in frames."""

from __future__ import annotations

from dataclasses import dataclass

from videomae.errors import ConfigError
from videomae.inference.windows import check_seconds, plan_windows
from videomae.video.opening import Reader
from videomae.video.sampling import ClipConfig, IntArray, clip_indices, sliding_clips


@dataclass(frozen=True)
class WindowChoice:
    """Which clips of a video; where nothing is given, the one from its middle.

    Raises:
        ConfigError: If a value is out of range, or frames and seconds are both given.
    """

    step_frames: int | None = None
    """Clips that start this many frames apart and together cover the video."""
    window_seconds: float | None = None
    """Length of windows, over which the model's frames are spread evenly; None: that of the model's clips."""
    step_seconds: float | None = None
    """From the start of a window to that of the next; None: half a window, where a window is given."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_seconds(self.window_seconds, self.step_seconds)
        if self.step_frames is None:
            return
        if self.step_frames < 1:
            raise ConfigError(f"step_frames is {self.step_frames}; clips must move on by at least 1 frame")
        if self.window_seconds is not None or self.step_seconds is not None:
            raise ConfigError("step_frames is given with window or step, which are in seconds: leave out one of both")

    @property
    def is_middle(self) -> bool:
        """Whether it is the middle clip alone."""
        return self == WindowChoice()

    def indices(self, reader: Reader, clip: ClipConfig) -> IntArray:
        """Return the frames of the clips of a video, int64 `[W, T]`.

        Args:
            reader: The video, opened at `clip.fps`.
            clip: How the model's clips are sampled.

        Raises:
            ConfigError: If the window does not fit the video.
        """
        if self.is_middle:
            return clip_indices(len(reader), clip)
        if self.step_frames is not None:
            return sliding_clips(len(reader), clip, step_frames=self.step_frames)
        return plan_windows(reader, clip, window_seconds=self.window_seconds, step_seconds=self.step_seconds).indices
