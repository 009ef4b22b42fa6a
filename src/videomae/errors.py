"""Every error a user can cause, in one tree.

    VideoMAEError
    |-- ConfigError       a setting is unknown, of the wrong type, out of range, or contradicts another
    |-- ManifestError     a folder or list of videos cannot be used as a data set
    |-- VideoReadError    a file cannot be read as video
    |   |-- NoVideoError        it holds sound or other things, and no video
    |   |-- DamagedVideoError   more than a few of its packets do not decode
    |   `-- TruncatedVideoError it ends before what it promises
    |-- WeightsError      a model folder or weights file cannot be loaded or does not fit
    |-- CheckpointError   a training checkpoint cannot be written or resumed from
    `-- RunError          a run cannot start or go on (output folder exists, too many bad videos)

Each message names the thing, the value, the rule and the fix, on one line. The command line prints it and
exits with status 2. This file imports nothing.
"""


class VideoMAEError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(VideoMAEError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class ManifestError(VideoMAEError):
    """A folder or list of videos cannot be used as a data set."""


class VideoReadError(VideoMAEError):
    """A file cannot be read as video."""


class NoVideoError(VideoReadError):
    """A file that can be read holds no video, such as one with sound alone."""


class DamagedVideoError(VideoReadError):
    """More than a few of the packets of a video file do not decode."""


class TruncatedVideoError(VideoReadError):
    """A video file ends before what it promises."""


class WeightsError(VideoMAEError):
    """A model folder or weights file cannot be loaded, or does not fit the model."""


class CheckpointError(VideoMAEError):
    """A training checkpoint cannot be written or resumed from."""


class RunError(VideoMAEError):
    """A run cannot start or cannot go on."""
