"""What a training run takes, told before its first step and, from measured steps, soon after."""

from __future__ import annotations

import contextlib
import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from videomae.engine.loop import LoopConfig
from videomae.engine.peak import peak_flops_per_second
from videomae.engine.progress import StepWork
from videomae.inference.flops import merging_flops, pretraining_flops
from videomae.masking import draw_masks
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.recipes.schema import PretrainRecipe
from videomae.train.step import StepPlan
from videomae.train.trained import TrainedParts

DAY_SECONDS = 24 * 3600.0
# Steps that an estimate rests on, after the first, which also starts the data workers and warms up the kernels.
MEASURED_STEPS = 5
# No processor that runs torch multiplies slower than this; runs that take it under a day need no measurement.
SLOWEST_CPU_FLOPS = 5e9
# A run of fewer operations is over in moments: what its device could do is not worth measuring.
SHORT_RUN_FLOPS = 1e12


@dataclass(frozen=True)
class ClipCost:
    """What one clip takes."""

    tokens: int
    """N."""
    visible: int
    """V, tokens that the encoder sees; N without masks."""
    decoded: int
    """M, tokens that the decoder predicts; 0 without a decoder."""
    step_flops: int
    """Floating-point operations of the forward and the backward pass."""

    def line(self) -> str:
        """Return the tokens for people."""
        parts = f" ({self.visible} visible, {self.decoded} decoded)" if self.decoded else ""
        return f"tokens a clip: {self.tokens}{parts}"


def pretraining_clip_cost(config: VideoMAEConfig, recipe: PretrainRecipe) -> ClipCost:
    """Return what a clip of pre-training takes; a mask is drawn to count its tokens."""
    grid = native_grid(config)
    mask = draw_masks(recipe.mask, grid, batch=1, generator=torch.Generator())
    visible, decoded = mask.visible.shape[1], mask.decoded.shape[1]
    flops = pretraining_flops(config, visible=visible, decoded=decoded)
    return ClipCost(grid.num_tokens, visible, decoded, flops.step)


def classification_clip_cost(
    config: VideoMAEConfig, trained: TrainedParts | None = None, *, merged: int = 0
) -> ClipCost:
    """Return what a clip of fine-tuning takes, of all weights or of some, where every block merges so many tokens."""
    tokens = native_grid(config).num_tokens
    flops = merging_flops(config, tokens=tokens, removed=merged).step if trained is None else trained.step_flops
    return ClipCost(tokens, tokens, 0, flops)


@dataclass(frozen=True)
class RunCost:
    """What a whole run takes."""

    clip: ClipCost
    """What one clip takes."""
    num_parameters: int
    """Of the model, those of a decoder included."""
    num_videos: int
    """Videos in an epoch."""
    batch_size: int
    """Clips in a step."""
    steps_per_epoch: int
    """Steps in one pass over the videos."""
    total_steps: int
    """Steps of the whole run."""
    start_step: int
    """Steps done before, where the run is resumed."""
    device: str
    """Type of the device, such as `cpu`."""
    precision: str
    """Compute dtype: bf16 or fp32."""
    processes: int = 1
    """That share each step, each on a device of its own."""

    @property
    def steps_left(self) -> int:
        """Steps still to do."""
        return max(self.total_steps - self.start_step, 0)

    def lines(self) -> list[str]:
        """Return what is known before the first step, for people."""
        epochs = self.total_steps / self.steps_per_epoch
        left = f", {self.steps_left} left" if self.start_step else ""
        length = f"{epochs:.4g} epochs of {self.num_videos} videos"
        return [
            f"parameters: {self.num_parameters:,}",
            f"steps: {self.total_steps}{left}; {self.batch_size} clips a step, {length}",
            self.clip.line(),
            f"device: {self.device}, precision {self.precision}",
            *self._warning(),
        ]

    @property
    def dtype(self) -> torch.dtype:
        """Compute dtype."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def flops_left(self) -> float:
        """Floating-point operations of the steps still to do."""
        return float(self.clip.step_flops) * self.batch_size * self.steps_left

    def step_work(self) -> StepWork:
        """Return what a step computes, and what the devices could, which is measured unless the run is short."""
        peak = None
        if self.flops_left >= SHORT_RUN_FLOPS:
            with contextlib.suppress(torch.OutOfMemoryError):  # the run itself may fit all the same
                peak = peak_flops_per_second(self.device, self.dtype) * self.processes
        return StepWork(flops=float(self.clip.step_flops) * self.batch_size, peak=peak)

    def duration_estimate(self) -> DurationEstimate:
        """Return what times the first steps of this run."""
        return DurationEstimate(total_steps=self.total_steps, start_step=self.start_step, device=self.device)

    def _warning(self) -> list[str]:
        """Warn before the first step of a run that no processor like this one can do in a day."""
        flops = self.flops_left
        if self.device != "cpu" or flops < SLOWEST_CPU_FLOPS * DAY_SECONDS:
            return []
        speed = peak_flops_per_second(self.device, self.dtype)
        seconds = flops / speed
        if seconds < DAY_SECONDS:
            return []
        least = duration_text(seconds).replace("about", "at least", 1)
        judged = f"{flops:.1e} floating-point operations and the {speed / 1e9:.0f} GFLOP/s of this processor"
        return [f"expected duration: {least}, judged from {judged}", too_long_for_a_cpu()]


def run_cost(
    clip: ClipCost,
    model: nn.Module,
    plan: StepPlan,
    loop: LoopConfig,
    *,
    num_videos: int,
    start_step: int,
    processes: int = 1,
) -> RunCost:
    """Return what a run takes.

    Args:
        clip: What one clip takes.
        model: Whose parameters are counted.
        plan: The steps.
        loop: With the device and precision that are used, never `auto`.
        num_videos: Videos in an epoch.
        start_step: Steps done before.
        processes: Of the run.
    """
    return RunCost(
        clip=clip,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_videos=num_videos,
        batch_size=plan.batch_size,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total,
        start_step=start_step,
        device=loop.device,
        precision=loop.precision,
        processes=processes,
    )


class DurationEstimate:
    """Times the first steps of a run and then tells, once, how long the rest takes."""

    def __init__(
        self,
        *,
        total_steps: int,
        start_step: int,
        device: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> None:
        """Begin with the first step.

        Args:
            total_steps: Steps of the whole run.
            start_step: Steps done before.
            device: Type of the device.
            clock: Seconds from any origin, never going back.
            now: Local time.
        """
        self._total = total_steps
        self._device = device
        self._clock = clock
        self._now = now
        self._last: tuple[int, float] | None = None  # step and time of the last measurement; None before the first
        self._seconds: list[float] = []  # of a step, one entry for each step that was measured
        self._told = start_step >= total_steps

    def after(self, step: int, *, synchronized: bool) -> list[str]:
        """Note that a step is done; once enough of them are, return the lines to show.

        Args:
            step: Steps done since the beginning of the run.
            synchronized: Whether the device has finished the step, as the CPU always has and others have where the
                loss was read: only then does the time mean anything.
        """
        if self._told or not (synchronized or self._device == "cpu"):
            return []
        now = self._clock()
        if self._last is not None:
            last_step, last_time = self._last
            self._seconds += [(now - last_time) / (step - last_step)] * (step - last_step)
        self._last = (step, now)
        if len(self._seconds) < MEASURED_STEPS or step >= self._total:
            return []
        self._told = True
        one = statistics.median(self._seconds)
        left = one * (self._total - step)
        done = time_text(self._now(), left)
        lines = [f"expected duration: {duration_text(left)}, done around {done} ({one:.3g} s a step)"]
        return [*lines, too_long_for_a_cpu()] if self._device == "cpu" and left > DAY_SECONDS else lines


def too_long_for_a_cpu() -> str:
    """Return what to do about a run that takes days."""
    return (
        "this takes more than a day on a CPU: use a machine with a GPU, a smaller recipe (--config laptop), or fewer "
        "steps (--schedule.steps)"
    )


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units that a reader needs, for example `about 3 h 20 min`."""
    minutes, hours, days = round(seconds / 60), seconds / 3600, seconds / DAY_SECONDS
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    if minutes < 90:
        return f"about {minutes} min"
    if hours < 24:
        tens = round(seconds / 600)
        return f"about {tens // 6} h" + (f" {tens % 6 * 10} min" if tens % 6 else "")
    if days < 2:
        return f"about {round(hours)} h"
    return f"about {round(days)} days" if days < 60 else f"about {round(days / 7)} weeks"


def time_text(now: datetime.datetime, seconds: float) -> str:
    """Return the time so many seconds from now: of day, with the weekday within a week, else the date."""
    try:
        end = now + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return "no year with four digits"
    if end.date() == now.date():
        return f"{end:%H:%M}"
    return f"{end:%A %H:%M}" if seconds < 6 * DAY_SECONDS else f"{end.day} {end:%B %Y}"
