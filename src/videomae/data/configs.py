"""The settings of augmentation and of generated videos, without torch, for which `--help` must not wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videomae.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """How a clip is changed in training."""

    crop: Literal["multi_scale", "resized", "centre"] = "multi_scale"
    """multi_scale: one of four sizes at one of 13 positions; resized: random area and aspect; centre: not random."""
    flip: bool = False
    """Flip clips horizontally with probability 0.5; fine-tuning turns this off if a class name has a direction."""
    min_area: float = 0.08
    """Minimum area of resized crops, as a fraction of the frame."""
    max_area: float = 1.0
    """Maximum area of resized crops, as a fraction of the frame."""
    min_aspect: float = 3 / 4
    """Minimum aspect ratio (width / height) of resized crops."""
    max_aspect: float = 4 / 3
    """Maximum aspect ratio (width / height) of resized crops."""
    repeats: int = 1
    """Number of clips to cut from each decoded video, each in a separate step (repeated augmentation)."""
    rand_augment: bool = False
    """RandAugment, the same for all frames of a clip, as in VideoMAE's fine-tuning; needs videomae[augment]."""
    rand_num_ops: int = 4
    """Number of RandAugment operations drawn per clip; each is applied with probability 0.5."""
    rand_magnitude: float = 7.0
    """Mean magnitude of the operations, 0 to 10."""
    rand_magnitude_std: float = 0.5
    """Standard deviation of the magnitude."""
    color_jitter: float = 0.0
    """Maximum change of brightness, contrast and saturation, such as 0.4; 0: none. Needs videomae[augment]."""
    erasing_prob: float = 0.0
    """Random erasing: fraction of clips with a box of noise in all frames; 0.25 in VideoMAE's fine-tuning."""
    erasing_min_area: float = 0.02
    """Minimum area of erased boxes, as a fraction of the frame."""
    erasing_max_area: float = 1 / 3
    """Maximum area of erased boxes, as a fraction of the frame."""
    erasing_min_aspect: float = 0.3
    """Minimum aspect ratio (height / width) of erased boxes, at most 1; the maximum is its inverse."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.crop not in ("multi_scale", "resized", "centre"):
            raise ConfigError(f"augment.crop is {self.crop!r}; it is 'multi_scale', 'resized' or 'centre'")
        if not 0.0 < self.min_area <= self.max_area <= 1.0:
            raise ConfigError(
                f"augment.min_area {self.min_area:g} and max_area {self.max_area:g} are fractions of the frame: "
                "use 0 < min_area <= max_area <= 1"
            )
        if not 0.0 < self.min_aspect <= self.max_aspect < math.inf:
            raise ConfigError(
                f"augment.min_aspect {self.min_aspect:g} and max_aspect {self.max_aspect:g} are width / height: "
                "use 0 < min_aspect <= max_aspect"
            )
        if self.repeats < 1:
            raise ConfigError(
                f"augment.repeats is {self.repeats}; it must be at least 1, where 1 is one clip of each decoding"
            )
        self._check_device_augmentation()

    def _check_device_augmentation(self) -> None:
        if self.rand_num_ops < 1:
            raise ConfigError(
                f"augment.rand_num_ops is {self.rand_num_ops}; it must be at least 1: switch RandAugment off with "
                "augment.rand_augment false"
            )
        if not 0.0 <= self.rand_magnitude <= 10.0:
            raise ConfigError(f"augment.rand_magnitude is {self.rand_magnitude:g}; it is in [0, 10], 7 as published")
        for name in ("rand_magnitude_std", "color_jitter"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"augment.{name} is {value:g}; use 0 for none, or a number above 0")
        _check_fraction("augment.erasing_prob", self.erasing_prob)
        if not 0.0 < self.erasing_min_area <= self.erasing_max_area < 1.0:
            raise ConfigError(
                f"augment.erasing_min_area {self.erasing_min_area:g} and erasing_max_area {self.erasing_max_area:g} "
                "are fractions of the frame: use 0 < erasing_min_area <= erasing_max_area < 1"
            )
        if not 0.0 < self.erasing_min_aspect <= 1.0:
            raise ConfigError(f"augment.erasing_min_aspect is {self.erasing_min_aspect:g}; it is in (0, 1]")


@dataclass(frozen=True)
class MixConfig:
    """Mixup and cutmix of the clips of a batch; with both alphas 0 there is neither."""

    mixup_alpha: float = 0.0
    """Mixup if above 0, with lambda drawn from Beta(alpha, alpha); 0.8 in VideoMAE's fine-tuning."""
    cutmix_alpha: float = 0.0
    """CutMix if above 0, likewise; 1.0 in VideoMAE's fine-tuning."""
    mixup_prob: float = 1.0
    """Fraction of the steps that use mixup or CutMix."""
    mixup_switch_prob: float = 0.5
    """Fraction of those steps that use CutMix, if both alphas are above 0."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("mixup_alpha", "cutmix_alpha"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"mix.{name} is {value:g}; use 0 for none, or a number above 0 such as 0.8")
        for name in ("mixup_prob", "mixup_switch_prob"):
            _check_fraction(f"mix.{name}", getattr(self, name))

    @property
    def enabled(self) -> bool:
        """Whether any step mixes."""
        return max(self.mixup_alpha, self.cutmix_alpha) > 0 and self.mixup_prob > 0


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value:g}; it is a fraction in [0, 1]")


SplitName = Literal["train", "val", "test", "all"]
"""A part of a data set by name, or all of it."""

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What a classifier's outputs are, by transformers' names: a choice between classes, labels of which each may be
there or not, or values."""

GeneratedKind = Literal["procedural", "motion"]


@dataclass(frozen=True)
class GenerateConfig:
    """Settings of the generated videos."""

    videos: int = 80
    """Number of videos; motion videos are divided equally among the classes, rounding up."""
    size: int = 64
    """Height and width in pixels, even and at least 16."""
    num_frames: int = 32
    """Frames per video."""
    seed: int = 0
    """Random seed; generating more videos with the same seed keeps the first ones."""


ImportKind = Literal[
    "folder", "classes", "videomae", "kinetics", "ssv2", "ucf101", "hmdb51", "videofolder", "multilabel", "webdataset"
]


@dataclass(frozen=True)
class ImportConfig:
    """Options for some of the formats."""

    videos: Path | None = None
    """Folder of the videos: listed paths are relative to it, and names are looked up in it; null: SOURCE's folder."""
    split_number: int | None = None
    """Which of the three official splits of ucf101 and hmdb51 to import; null: 1."""
    template: str | None = None
    """Names of the images in frame folders listed in the videomae format, such as img_{:05}.jpg; null: all images."""
    labels: Path | None = None
    """Class names: for ssv2 its labels file, null: the one next to SOURCE; for ids in other formats a text file with
    one name per line."""
    overwrite: bool = False
    """Replace an existing manifest."""
