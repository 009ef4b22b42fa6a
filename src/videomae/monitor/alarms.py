"""Alarms: what may be wrong with a run, judged by what was measured.

Each is a small pure function from the history to evidence in words, or None; one literal table names its likely cause
and the remedy. Thresholds were set on runs with other seeds than those of docs/monitor.md, and are explained there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from videomae.monitor.history import History, Measurement
from videomae.monitor.plan import MIN_JUDGED_STEPS

PLATEAU = 0.997  # of the trivial loss: at or above it nothing is learnt
STALL = 0.99  # of the best loss at half the steps: above it there is no way down in sight
PLATEAU_FRACTION = 0.06  # of the run, and the warm-up, that it may take to leave the trivial baseline,
PLATEAU_VIEWS = 10_000  # and clips, since small models need some thousands at the best of settings,
PLATEAU_LATEST = 0.5  # but not more than so much of the run
LEAK_CHANGE = 1e-3  # standard deviations of the predictions; rounding gives less
LEAK_LOSS = 0.25  # of the best baseline: a loss that hidden content does not allow
LEAK_LOSS_FRACTION = 0.5  # of the run: later, a model may have earned it
COPY_LOSS = 0.2  # of the trivial loss: copying a neighbor then solves the task
BLANK_FRACTION = 0.1
STILL_FRACTION = 0.5
TWIN_FRACTION = 0.6
EQUAL_FILE_FRACTION = 0.05
DISORDER = 0.9  # change between neighbors over that between any two frames
HIGH_STEP = 0.1  # of the weights, in one step at the highest rate
HIGH_LOSS = 1.15  # of the loss before training, or of the trivial one where that is higher
LOW_PATH = 0.03  # of the weights, all steps of the run added up
DEAD_NORM = 1e-3  # standard deviation of normalized values
INPUT_STD = (0.05, 8.0)  # of normalized pixels, about 1
INPUT_MEAN = 6.0
LOW_RANK = 2.0
LOW_CONTENT = 0.01
RISE = 1.02  # of the lowest held-out loss
FALL = 0.98  # of the training loss when the held-out loss was lowest


@dataclass(frozen=True)
class Alarm:
    """One thing that may be wrong."""

    name: str
    """Short."""
    check: Callable[[History], str | None]
    """Evidence with the value and the rule, or None."""
    cause: str
    """The most likely one."""
    remedy: str
    """What to do."""


@dataclass(frozen=True)
class Raised:
    """An alarm that is on."""

    name: str
    """Of the alarm."""
    evidence: str
    """The value and the rule."""
    cause: str
    """The most likely one."""
    remedy: str
    """What to do."""

    def line(self) -> str:
        """Return it for the console."""
        return f"warning: {self.name}: {self.evidence}. Likely cause: {self.cause}. Try: {self.remedy}"

    def record(self) -> dict[str, str]:
        """Return it for `monitor.jsonl`."""
        return asdict(self)


def raised(history: History) -> list[Raised]:
    """Return all alarms that are on, in the order of the table."""
    found = ((alarm, alarm.check(history)) for alarm in ALARMS)
    return [Raised(alarm.name, evidence, alarm.cause, alarm.remedy) for alarm, evidence in found if evidence]


def not_learning(history: History) -> str | None:
    """Find a plateau at the trivial baseline, once a run has had the time to leave it."""
    start, last = history.beginning, history.last
    enough = history.fraction >= PLATEAU_FRACTION and last.step * start.batch_size >= PLATEAU_VIEWS
    if start.total_steps < MIN_JUDGED_STEPS or last.step <= start.warmup_steps:
        return None
    if not enough and history.fraction < PLATEAU_LATEST:
        return None
    ratio = history.best_loss / start.trivial
    before = [one.held_out_loss for one in history.measurements if one.step <= last.step / 2]
    if ratio < PLATEAU or history.best_loss < STALL * min(before, default=last.held_out_loss):
        return None
    done = f"{history.fraction:.0%} of the run"
    return f"the loss is {ratio:.1%} of the trivial prediction's after {done}; below 99.7 % is learning"


def leaking_mask(history: History) -> str | None:
    """Find hidden pixels that reach the predictions, tokens both seen and decoded, and tasks that copying solves."""
    start, last = history.beginning, history.last
    if last.leak > LEAK_CHANGE:
        return f"predictions change by {last.leak:.2g} standard deviations when hidden pixels do; they must not"
    if last.overlap > 0.0:
        return f"{last.overlap:.0%} of the decoded tokens are visible to the encoder; none may be"
    copied = start.baselines["copy_nearest"] / max(start.trivial, 1e-12)
    if copied < COPY_LOSS and start.data.still < STILL_FRACTION and start.data.blank < STILL_FRACTION:
        return f"copying the nearest visible tubelet has {copied:.1%} of the trivial loss; below 20 % solves the task"
    best = min(start.baselines.values())
    if last.step and history.fraction < LEAK_LOSS_FRACTION and last.held_out_loss < LEAK_LOSS * best:
        ratio = last.held_out_loss / max(best, 1e-12)
        return f"the loss is {ratio:.1%} of the best baseline's so early; below 25 % is too good"
    return None


def constant_clips(history: History) -> str | None:
    """Find clips that show nothing, or in which nothing moves."""
    data = history.beginning.data
    if data.blank >= BLANK_FRACTION:
        return f"{data.blank:.0%} of {data.num_clips} clips show one color; less than 10 % should"
    if data.still >= STILL_FRACTION:
        return f"in {data.still:.0%} of {data.num_clips} clips nothing moves; less than 50 % should be still"
    return None


def duplicated_clips(history: History) -> str | None:
    """Find videos that are there more than once."""
    data = history.beginning.data
    if data.equal_files >= EQUAL_FILE_FRACTION:
        return f"{data.equal_files:.0%} of the files are equal to another one; less than 5 % should be"
    if data.twins >= TWIN_FRACTION:
        return f"{data.twins:.0%} of {data.num_clips} clips look like another one; less than 60 % should"
    return None


def shuffled_frames(history: History) -> str | None:
    """Find clips whose neighboring frames are no more alike than any two."""
    order = history.beginning.data.order
    if order is None or order < DISORDER:
        return None
    return f"neighboring frames differ {order:.2f} times as much as any two of a clip; in videos less than 0.9"


def rate_too_high(history: History) -> str | None:
    """Find steps that replace much of the weights, steps that were skipped, and a loss that rises from the start."""
    start, last = history.beginning, history.last
    if last.num_skipped:
        return f"{last.num_skipped} of the newest steps were skipped, loss or gradient not finite; none should be"
    peak = highest_step(last)
    if peak is not None and peak > HIGH_STEP:
        return f"a step at the highest rate would change the weights by {peak:.0%}; below 10 % is usual"
    level = max(history.measurements[0].held_out_loss, start.trivial)
    recent = [one.held_out_loss for one in history.measurements[-2:] if one.step]
    if len(recent) == 2 and min(recent) > HIGH_LOSS * level:
        ratio = recent[-1] / level
        return f"the loss is {ratio:.2f} times what it was before training, or the trivial one; it should fall"
    return None


def rate_too_low(history: History) -> str | None:
    """Find steps so small that all of them together leave the weights where they are."""
    start, last = history.beginning, history.last
    peak = highest_step(last)
    if peak is None or start.total_steps < MIN_JUDGED_STEPS:
        return None
    if history.measurements[0].held_out_loss < PLATEAU * start.trivial:
        return None  # trained before, so that small steps may be what is wanted
    path = peak * last.rate_sum
    if path >= LOW_PATH:
        return None
    return f"all steps of the run add up to a change of {path:.2%} of the weights; below 3 % nothing is learnt"


def dead_normalization(history: History) -> str | None:
    """Find a LayerNorm that gives constants, and pixels that were not normalized or normalized twice."""
    last = history.last
    if last.norm_std < DEAD_NORM:
        return f"the outputs of {last.norm_name} have a standard deviation of {last.norm_std:.2g}; about 1 is normal"
    low, high = INPUT_STD
    if history.beginning.data.pixel_std > 8.0 and not low < last.input_std < high:
        return f"the encoder's input has a standard deviation of {last.input_std:.3g}; about 1 is normal"
    if abs(last.input_mean) > INPUT_MEAN:
        return f"the encoder's input has a mean of {last.input_mean:.3g}; about 0 is normal"
    return None


def collapsed_features(history: History) -> str | None:
    """Find features that lie along a line or that do not depend on the clip."""
    last = history.last
    if last.effective_rank < LOW_RANK:
        return (
            f"the effective rank of the features is {last.effective_rank:.2f} of {last.width}; it should be above 2"
        )
    if last.content < LOW_CONTENT:
        return f"{last.content:.2%} of the features' variance is between clips; it should be above 1 %"
    return None


def overfitting(history: History) -> str | None:
    """Find a held-out loss that rises while the training loss falls."""
    if not history.beginning.unseen or len(history.measurements) < 3:
        return None
    best = min(history.measurements, key=lambda one: one.held_out_loss)
    later = [one for one in history.measurements if one.step > best.step]
    if len(later) < 2 or best.train_loss is None:
        return None
    now = later[-1]
    if now.train_loss is None or now.held_out_loss < now.train_loss:
        return None
    risen = all(one.held_out_loss > RISE * best.held_out_loss for one in later[-2:])
    fallen = now.train_loss < FALL * best.train_loss
    if not (risen and fallen):
        return None
    gap = now.held_out_loss / best.held_out_loss - 1
    since = f"since step {best.step:,}"
    return f"the held-out loss has risen by {gap:.1%} {since} while the training loss fell; it should fall too"


def highest_step(one: Measurement) -> float | None:
    """Return the median over groups of the relative change of weights in a step, at the highest rate of the run."""
    if not one.step_ratios or one.rate_fraction <= 0.0:
        return None
    ratios = sorted(one.step_ratios.values())
    return ratios[len(ratios) // 2] / one.rate_fraction


ALARMS = (
    Alarm(
        "leaking mask",
        leaking_mask,
        "what is to be predicted reaches the decoder: tokens both visible and decoded, a random mask on still clips",
        "mask.kind tube, a higher mask.ratio, and a model that only reads visible tokens",
    ),
    Alarm(
        "constant clips",
        constant_clips,
        "black or frozen videos, or a clip.stride too short for anything to move",
        "remove these videos, or a higher clip.stride",
    ),
    Alarm("duplicated clips", duplicated_clips, "the same videos under several names", "keep one of each"),
    Alarm(
        "shuffled frames",
        shuffled_frames,
        "frames written in a wrong order, or noise, or a clip.stride so long that neighbors have nothing in common",
        "check the videos, or a lower clip.stride",
    ),
    Alarm(
        "dead normalization",
        dead_normalization,
        "pixels scaled twice or not at all, or norms whose weights went to zero",
        "normalize pixels once with mean and std of ImageNet; a lower learning rate",
    ),
    Alarm(
        "collapsed features",
        collapsed_features,
        "the encoder gives the same whatever it sees",
        "a lower learning rate, a fresh start, and the encoder's own code where it is custom",
    ),
    Alarm(
        "learning rate too high",
        rate_too_high,
        "steps longer than the weights can follow",
        "a tenth of optim.base_lr and optim.muon_lr, a longer warm-up, optim.clip_grad 1.0",
    ),
    Alarm(
        "learning rate too low",
        rate_too_low,
        "weights that are frozen, or rates that forget that they are for a batch of 256 and scaled down for less",
        "ten times optim.base_lr and optim.muon_lr, or a longer run",
    ),
    Alarm(
        "not learning",
        not_learning,
        "attention has not found the neighbors of hidden tokens, or targets that do not follow from the clip",
        "decoder_init lookup, optim.optimizer muon, a higher learning rate, smaller batches; see docs/learning.md",
    ),
    Alarm(
        "over-fitting",
        overfitting,
        "too few videos for so many passes",
        "more videos, stronger crops, or fewer steps",
    ),
)
