"""When the monitor measures, and on how many clips: a function of the length of the run, so that it costs little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videomae.monitor.configs import MonitorConfig

# Costs of one clip, in forward passes of a training step on one clip: a training step has its backward pass too.
TRAINING = 3.0
# Measured on tiny models, where small batches cost most: docs/monitor.md.
MEASURING = 4.0  # all hidden tubelets are decoded, in small batches
PROBING = 16.0  # not for each clip but for each measurement: leaks, norms, attention, content
BEGINNING = 24.0  # reading the clip, and the baselines
MAX_MEASUREMENTS = 24
USUAL_MEASUREMENTS = 10
MIN_CLIPS = 4
CLIPS_FOR_ONE = 200  # clips of the run for each clip that is only looked at: half a percent of the reading
MAX_COMPARED = 64
JUDGED_AT = 0.08  # of the run: a measurement for the first judgment of a plateau, whatever the others' ratio
MIN_JUDGED_STEPS = 25  # a run of fewer steps is a trial, from which nothing is to be learnt


@dataclass(frozen=True)
class MonitorPlan:
    """When and on what to measure."""

    steps: tuple[int, ...]
    """Steps after which to measure, ascending, the last one included; step 0, before the first, is another."""
    num_clips: int
    """Clips to measure on."""
    num_compared: int
    """Training clips to look at once beside them: copies are found in a sample of some size only."""


def plan_measurements(config: MonitorConfig, *, total_steps: int, batch_size: int, num_videos: int) -> MonitorPlan:
    """Choose steps at about constant ratios and clips, such that the cost is at most `config.max_cost` of the run's.

    At least 4 clips are measured, where there are, and the first and the last step: a run of a few steps costs more.

    Args:
        config: The largest cost.
        total_steps: Steps of the run.
        batch_size: Clips of a step.
        num_videos: Videos that can be measured.
    """
    budget = config.max_cost * TRAINING * total_steps * batch_size
    usual = USUAL_MEASUREMENTS + 1  # and that of step 0
    affordable = int((budget - PROBING * usual) / (BEGINNING + MEASURING * usual))
    num_clips = min(max(affordable, MIN_CLIPS), num_videos, config.max_clips)
    left = budget - num_clips * (BEGINNING + MEASURING) - PROBING
    count = int(left / (MEASURING * num_clips + PROBING))
    count = min(max(count, 2), MAX_MEASUREMENTS)
    steps = {round(step) for step in np.geomspace(1, total_steps, count)} | {total_steps}
    if total_steps >= MIN_JUDGED_STEPS:
        steps.add(round(JUDGED_AT * total_steps))
    compared = min(max(total_steps * batch_size // CLIPS_FOR_ONE, num_clips), MAX_COMPARED)
    return MonitorPlan(tuple(int(step) for step in sorted(steps)), num_clips, compared)
