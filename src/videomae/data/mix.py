"""Mixup and cutmix: every clip of a batch is mixed with its partner, and so are their labels.

Batch mode: one lambda, and for cutmix one box, for all clips of a step, both functions of the seed and the step. The
partner of place i in a batch of B is place B - 1 - i. Runs on whatever device the clips are on.

Source: mixup (Zhang et al. 2018), cutmix (Yun et al. 2019), as timm mixes and as VideoMAE (Tong et al. 2022) is
fine-tuned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videomae.data.configs import MixConfig as MixConfig
from videomae.data.configs import ProblemType
from videomae.data.datasets import NO_LABEL
from videomae.engine.seeding import numpy_generator


class CutBox(NamedTuple):
    """The rectangle of pixels that is the partner's; an end is the first row or column behind it."""

    top: int
    bottom: int
    left: int
    right: int


class Mix(NamedTuple):
    """How the clips of one step are mixed."""

    kept: float
    """Weight of a clip's own label, lambda, in [0, 1]; for cutmix the exact fraction of its own pixels."""
    box: CutBox | None
    """Where the partner's pixels are for cutmix; None for mixup."""


def draw_mix(config: MixConfig, *, seed: int, step: int, height: int, width: int) -> Mix | None:
    """Draw how the clips of a step are mixed.

    Args:
        config: Which kinds there are, and how strong.
        seed: The run's.
        step: Optimizer step, from 1.
        height: Of the clips, pixels.
        width: Of the clips, pixels.

    Returns:
        None where the clips of this step stay as they are.

    Source: timm's `Mixup` in batch mode with `correct_lam`; the box may reach beyond the frame and is cut off there.
    """
    rng = numpy_generator(seed, "mix", step)
    if not config.enabled or rng.random() >= config.mixup_prob:
        return None
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    if rng.random() >= config.mixup_switch_prob if both else config.cutmix_alpha == 0:
        return Mix(float(rng.beta(config.mixup_alpha, config.mixup_alpha)), None)
    kept = float(rng.beta(config.cutmix_alpha, config.cutmix_alpha))
    box = _cut_box(kept, height, width, rng=rng)
    cut = (box.bottom - box.top) * (box.right - box.left)
    return Mix(1.0 - cut / (height * width), box)


def _cut_box(kept: float, height: int, width: int, *, rng: np.random.Generator) -> CutBox:
    ratio = math.sqrt(1.0 - kept)
    rows, columns = int(height * ratio), int(width * ratio)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return CutBox(
        top=max(y - rows // 2, 0),
        bottom=min(y + rows // 2, height),
        left=max(x - columns // 2, 0),
        right=min(x + columns // 2, width),
    )


def partners(readable: Tensor) -> Tensor:
    """Return the place of every clip's partner, `[B]` int64: the mirrored place, or its own where that is no clip.

    Args:
        readable: `[B]` bool, False where a place of the batch holds no clip.
    """
    places = torch.arange(len(readable), device=readable.device)
    return torch.where(readable.flip(0), places.flip(0), places)


def mix_clips(clips: Tensor, mix: Mix, partner: Tensor) -> Tensor:
    """Mix every clip with its partner.

    Args:
        clips: `[B, T, C, H, W]` float32, normalized; they may be overwritten.
        mix: From `draw_mix`.
        partner: `[B]` int64, from `partners`.

    Returns:
        `[B, T, C, H, W]`; a box lies at the same rows and columns in all frames.
    """
    if mix.box is None:
        return torch.lerp(clips[partner], clips, mix.kept)
    top, bottom, left, right = mix.box
    clips[..., top:bottom, left:right] = clips[..., top:bottom, left:right][partner]  # the right side is a copy
    return clips


def soft_targets(
    labels: Tensor, mix: Mix | None, partner: Tensor, *, num_classes: int, label_smoothing: float
) -> Tensor:
    """Return what the classifier should predict for mixed clips.

    Args:
        labels: `[B]` int64 class ids, or -1.
        mix: From `draw_mix`; None where the clips are not mixed.
        partner: `[B]` int64, from `partners`.
        num_classes: K.
        label_smoothing: Fraction of each target that is spread over all classes, in [0, 1].

    Returns:
        `[B, K]` float32, rows that sum to 1. Without mixing a row has `smoothing / K` everywhere and
        `1 - smoothing + smoothing / K` at its class.

    Source: timm's `mixup_target`.
    """
    off = label_smoothing / num_classes
    own = F.one_hot(labels.clamp(min=0), num_classes).float() * (1.0 - label_smoothing) + off  # [B, K]
    return own if mix is None else torch.lerp(own[partner], own, mix.kept)


class Mixing:
    """Mixes the clips of fine-tuning steps, or leaves them as they are, and computes the loss that fits.

    Cross entropy for a choice between classes, binary cross entropy for several labels, squared error for values.

    Args:
        config: Without mixing, the targets of a choice are class ids and the loss is that of class ids.
        seed: The run's.
        num_classes: K.
        label_smoothing: Fraction of each target that is spread over all classes, in [0, 1]; of several labels, over
            yes and no; values are not smoothed.
        problem: What the outputs are.
        weights: `[K]` float32 on the clips' device, of each class, or of the clips that have a label; None: all 1.
    """

    def __init__(
        self,
        config: MixConfig,
        *,
        seed: int,
        num_classes: int,
        label_smoothing: float,
        problem: ProblemType = "single_label_classification",
        weights: Tensor | None = None,
    ) -> None:
        self.config = config
        self.seed = seed
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.problem = problem
        self.weights = weights

    def apply(self, clips: Tensor, labels: Tensor, readable: Tensor, *, step: int) -> tuple[Tensor, Tensor]:
        """Mix the clips of a step and their labels.

        Args:
            clips: `[B, T, C, H, W]` float32, normalized; they may be overwritten.
            labels: `[B]` int64 class ids, -1 where a place holds no readable clip; or `[B, K]` float32, 0 or 1 for
                each label, or values.
            readable: `[B]` bool, False at such a place; it is nobody's partner.
            step: Optimizer step, from 1.

        Returns:
            Clips of the same shape; targets `[B, K]` float32, or without mixing class ids themselves.
        """
        if self.problem == "multi_label_classification":
            labels = labels * (1.0 - self.label_smoothing) + self.label_smoothing / 2
        if not self.config.enabled:
            return clips, labels
        height, width = clips.shape[-2:]
        mix = draw_mix(self.config, seed=self.seed, step=step, height=height, width=width)
        partner = partners(readable)
        if self.problem == "single_label_classification":
            targets = soft_targets(
                labels, mix, partner, num_classes=self.num_classes, label_smoothing=self.label_smoothing
            )
        else:
            targets = labels if mix is None else torch.lerp(labels[partner], labels, mix.kept)
        return clips if mix is None else mix_clips(clips, mix, partner), targets

    def loss(self, logits: Tensor, targets: Tensor, readable: Tensor) -> Tensor:
        """Return the mean loss over the readable clips, 0-d float32.

        Args:
            logits: `[B, K]`, any float dtype.
            targets: From `apply`.
            readable: `[B]` bool, at least one is True.
        """
        logits = logits.float()
        if not targets.is_floating_point() and self.weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing, ignore_index=NO_LABEL)
        return (self._each(logits, targets) * readable).sum() / readable.sum()

    def _each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each clip, `[B]`; what stands at an unreadable place has no meaning."""
        match self.problem:
            case "multi_label_classification":
                pairs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights, reduction="none")
                return pairs.mean(dim=1)
            case "regression":
                return F.mse_loss(logits, targets, reduction="none").mean(dim=1)
        if targets.is_floating_point():
            return F.cross_entropy(logits, targets, weight=self.weights, reduction="none")
        smoothing = self.label_smoothing
        return F.cross_entropy(
            logits,
            targets,
            weight=self.weights,
            reduction="none",
            label_smoothing=smoothing,
            ignore_index=NO_LABEL,
        )
