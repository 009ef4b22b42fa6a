"""The choices that inference offers, on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from typing import Literal

from videomae.engine.configs import Backend
from videomae.errors import ConfigError

Pooling = Literal["clip", "attention", "frame", "tubelet", "token"]
"""Which vectors of a clip are its features; see `videomae.inference.pooling`."""

MIN_COSINE = 0.95
"""The least cosine of vectors in 8-bit integers to those in float32, without their mean, so that they are taken."""


def check_speed(speed: float, backend: Backend = "torch") -> None:
    """Raise ConfigError if a speed is below 1 or no number, or above 1 where the backend merges no tokens.

    See `videomae.inference.token_merging`.
    """
    if not 1.0 <= speed < float("inf"):
        raise ConfigError(
            f"speed is {speed:g}; it is how many times fewer operations a clip takes: use 1 for all of them, or "
            "more, such as 2"
        )
    if speed > 1.0 and backend == "openvino":
        raise ConfigError(
            f"speed is {speed:g} and the backend 'openvino', which merges no tokens: use speed 1, or the backend "
            "torch"
        )
