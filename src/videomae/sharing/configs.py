"""The choices that sharing offers, on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from typing import Literal

Target = Literal["videomae", "transformers", "original"]
"""The layout that a checkpoint is converted to."""
