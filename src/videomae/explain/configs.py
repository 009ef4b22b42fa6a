"""The choices of `videomae explain`, on their own: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from typing import Literal

Method = Literal["rollout", "gradient", "occlusion"]
"""rollout: what flows through attention, for no class; gradient: attention times its gradient, for a class;
occlusion: what a class loses where a part of the clip is hidden."""
METHODS: tuple[Method, ...] = ("rollout", "gradient", "occlusion")
