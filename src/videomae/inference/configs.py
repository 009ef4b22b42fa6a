"""The choices that inference offers, on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from typing import Literal

Pooling = Literal["clip", "attention", "frame", "tubelet", "token"]
"""Which vectors of a clip are its features; see `videomae.inference.pooling`."""

MIN_COSINE = 0.95
"""The least cosine of vectors in 8-bit integers to those in float32, without their mean, so that they are taken."""
