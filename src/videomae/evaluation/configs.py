"""The settings of an evaluation, without what carries them out: `--help` reads them and must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from videomae.engine.configs import Backend, InferencePrecision
from videomae.errors import ConfigError
from videomae.inference.configs import check_speed
from videomae.video.sampling import ClipConfig

ProtocolName = Literal["dense-5x3", "dense-10x3", "segment-2x3", "center"]


class Protocol(NamedTuple):
    """What a published test protocol fixes."""

    segment: bool | None
    """Whether its clips are spread over the whole video; None: as the model was trained."""
    num_clips: int
    """Clips of a video."""
    num_crops: int
    """Crops of a clip."""


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "dense-5x3": Protocol(segment=False, num_clips=5, num_crops=3),  # Kinetics, UCF101, HMDB51 of VideoMAE V2
    "dense-10x3": Protocol(segment=False, num_clips=10, num_crops=3),  # HMDB51 of VideoMAE
    "segment-2x3": Protocol(segment=True, num_clips=2, num_crops=3),  # Something-Something
    "center": Protocol(segment=None, num_clips=1, num_crops=1),  # validation
}
"""The published test protocols of VideoMAE (Tong et al. 2022) and VideoMAE V2 (Wang et al. 2023)."""


@dataclass(frozen=True)
class ViewsConfig:
    """Which views of a video are classified; their probabilities are averaged.

    Published protocols: 5 clips and 3 crops on Kinetics, 2 and 3 on Something-Something. One clip is the middle of
    the video and one crop the center of the frame, which together are the published validation view.
    """

    num_clips: int = 5
    """Number of clips spread over the video; 1: the middle clip."""
    num_crops: int = 3
    """Number of square crops along the longer side of the frame; 1: the processor's center crop."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_clips", "num_crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"views.{name} is {getattr(self, name)}; at least one view is needed")


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation settings."""

    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Clips and crops per video; default: the published Kinetics protocol."""
    batch_size: int = 8
    """Views per forward pass, and clips of one video held in memory."""
    workers: int = 1
    """Number of processes that read videos; 0: read in this process."""
    precision: InferencePrecision = "auto"
    """auto: bf16 where the device supports it, else fp32; int8: CPU only, faster but less precise."""
    speed: float = 1.0
    """Factor by which merging similar tokens reduces the operations of a clip; above 1, the model also runs without
    merging, to report what that changes; 1: no merging."""
    backend: Backend = "torch"
    """Inference backend; openvino: faster on CPUs, needs videomae[openvino]."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_speed(self.speed, self.backend)
        if self.batch_size < 1:
            raise ConfigError(f"evaluation.batch_size is {self.batch_size}; it must be at least 1")
        if self.workers < 0:
            raise ConfigError(f"evaluation.workers is {self.workers}; use 0 to read in this process, or more")


@dataclass(frozen=True)
class ValidationConfig:
    """Whether and how the validation videos are evaluated during training."""

    every_epochs: float | None = None
    """Epochs between validations; null: none before the end, where the last weights are evaluated."""
    every_steps: int | None = None
    """The same, in optimizer steps."""
    views: ViewsConfig = field(default_factory=lambda: ViewsConfig(num_clips=1, num_crops=1))
    """Clips and crops per video; default: the middle clip and the center crop."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.every_epochs is not None and self.every_steps is not None:
            raise ConfigError(
                f"validation.every_epochs is {self.every_epochs:g} and every_steps is {self.every_steps}; only one "
                "of them may be given: set the other to null"
            )
        for name in ("every_epochs", "every_steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"validation.{name} is {value:g}; use a number above 0, or null for none")


def by_protocol(
    name: ProtocolName, clip: ClipConfig, config: EvaluationConfig | None
) -> tuple[ClipConfig, EvaluationConfig]:
    """Return clip and settings as a published protocol has them.

    Args:
        name: Of the protocol.
        clip: How the model was trained; its length and stride are kept.
        config: Batches, workers, precision; its views are replaced.

    Raises:
        ConfigError: If other views are asked for besides.
    """
    protocol, config = PROTOCOLS[name], config or EvaluationConfig()
    views = ViewsConfig(protocol.num_clips, protocol.num_crops)
    if config.views not in (ViewsConfig(), views):
        raise ConfigError(
            f"protocol is {name}, which has {views.num_clips} clips and {views.num_crops} crops, and views asks for "
            f"{config.views.num_clips} and {config.views.num_crops}: leave one of the two out"
        )
    if protocol.segment and clip.kind != "segment":
        clip = replace(clip, kind="segment")
    elif protocol.segment is False and clip.kind == "segment":
        clip = replace(clip, kind="dense")
    return clip, replace(config, views=views)
