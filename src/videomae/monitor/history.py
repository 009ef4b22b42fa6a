"""What the monitor has measured so far: the lines of `monitor.jsonl` as types, and where the run stands in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from videomae.monitor.data_checks import DataStatistics

MONITOR_FILE = "monitor.jsonl"
NAMES = {
    "zero": "the trivial prediction",
    "visible_mean": "the visible mean",
    "copy_nearest": "copy-nearest",
    "interpolate": "interpolation",
}
PROGRESS = 0.995  # of a baseline: below that it counts as beaten, so that a rounding does not
CONVERGED_CHANGE = 0.002  # relative change of the loss between measurements that counts as none
_FEW = 4  # measurements, that before the first step among them: fewer cannot show that a run has converged


@dataclass(frozen=True)
class Beginning:
    """What is measured once, before the first step: the first line of the file."""

    total_steps: int
    """Steps of the run."""
    warmup_steps: int
    """Steps in which the learning rate rises."""
    batch_size: int
    """Clips of a step."""
    num_clips: int
    """Clips that are measured."""
    unseen: bool
    """Whether they are held out of training."""
    num_train: int
    """Videos that are trained on."""
    normalized: bool
    """Whether targets are normalized for each tubelet."""
    mask_kind: str
    """How tokens are hidden."""
    baselines: dict[str, float]
    """Loss of each prediction that needs no learning; see `monitor/baselines.py`."""
    data: DataStatistics
    """Of the videos."""
    step: int = 0
    """As every line has it."""

    @property
    def trivial(self) -> float:
        """The loss that predicting one value for each clip and channel reaches."""
        return min(self.baselines["zero"], self.baselines["visible_mean"])


@dataclass(frozen=True)
class Measurement:
    """What is measured after a step; of step 0, before the first."""

    step: int
    """Steps done."""
    held_out_loss: float
    """Mean squared error over all hidden tokens of the measured clips, in the model's targets, without dropout."""
    train_loss: float | None
    """Mean loss of the training steps since the last measurement, at most the last 200."""
    num_skipped: int
    """Those of these steps that changed nothing because loss or gradient was not finite."""
    effective_rank: float
    """Of the features of visible tokens (RankMe)."""
    width: int
    """D, what the effective rank is at most."""
    content: float
    """Fraction of the features' variance between clips at the same position."""
    explained: Mapping[str, Any]
    """Share of the variance explained, by `time` and by `position` of the hidden tokens."""
    attention_distance: list[float]
    """Of each encoder layer, in tokens; empty where the model does not give its attention."""
    leak: float
    """Change of the predictions, in their standard deviation, when hidden pixels are replaced by noise."""
    input_mean: float
    """Of what the encoder embeds."""
    input_std: float
    """Standard deviation likewise."""
    norm_std: float
    """Smallest standard deviation that a LayerNorm gives its outputs over their channels; 1 at initialization."""
    norm_name: str
    """Name of that LayerNorm."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Of each group of layers in this step, before clipping."""
    step_ratios: dict[str, float] = field(default_factory=dict)
    """Change of the matrices of each group in this step, over their norm."""
    rate_fraction: float = 1.0
    """Learning rate of this step over the highest of the run."""
    rate_sum: float = 1.0
    """Learning rates of all steps of the run, added up, over the highest."""
    overlap: float = 0.0
    """Fraction of this step's decoded tokens that the encoder saw too, where none should."""
    neighbour_accuracy: float | None = None
    """Of 5 nearest other clips, where labels are given."""
    probe_accuracy: float | None = None
    """Of a linear probe, leave one out, where labels are given."""
    attentive_accuracy: float | None = None
    """Of an attentive probe of the tokens, two folds, where labels of 24 clips or more are given."""
    majority: float | None = None
    """Accuracy of always naming the most frequent class."""
    alarms: list[dict[str, str]] = field(default_factory=list)
    """What is wrong, from `monitor/alarms.py`."""


@dataclass(frozen=True)
class History:
    """All that is known at a measurement."""

    beginning: Beginning
    """Measured once."""
    measurements: tuple[Measurement, ...]
    """In the order of steps, at least one."""

    @property
    def last(self) -> Measurement:
        """The newest measurement."""
        return self.measurements[-1]

    @property
    def fraction(self) -> float:
        """Fraction of the run that is done."""
        return self.last.step / self.beginning.total_steps

    @property
    def best_loss(self) -> float:
        """The lowest held-out loss so far."""
        return min(one.held_out_loss for one in self.measurements)


def read_history(records: Sequence[Mapping[str, Any]]) -> History | None:
    """Return the history that the lines of `monitor.jsonl` tell; None before the first measurement.

    Args:
        records: From `MetricsLog.read`. Fields that this version does not know are ignored.
    """
    beginnings = [record for record in records if "baselines" in record]
    lines = [record for record in records if "held_out_loss" in record]
    if not beginnings or not lines:
        return None
    first = _known(Beginning, beginnings[0])
    first["data"] = DataStatistics(**_known(DataStatistics, first["data"]))
    measurements = tuple(Measurement(**_known(Measurement, line)) for line in lines)
    return History(Beginning(**first), measurements)


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def standing(history: History) -> str:
    """Return in words where the run stands, for a line on the console."""
    start, last = history.beginning, history.last
    loss = last.held_out_loss
    which = "held-out loss" if start.unseen else "loss of measured clips"
    head = f"step {last.step:,}: {which} {loss:.4f}, {loss / start.trivial:.1%} of the trivial prediction's"
    beaten = [name for name in ("interpolate", "copy_nearest") if loss < PROGRESS * start.baselines[name]]
    if last.step == 0:
        return f"{head}: before the first step"
    if loss >= PROGRESS * start.trivial:
        return f"{head}: not below it yet"
    # Copying is worse than predicting nothing where targets are normalized: to be below it says nothing then.
    hardest = beaten[0] if beaten and start.baselines[beaten[0]] < start.trivial else "zero"
    value = start.trivial if hardest == "zero" else start.baselines[hardest]
    since = below_since(history, PROGRESS * value)
    return f"{head}: below {NAMES[hardest]} since step {since:,}: {trend(history)}"


def below_since(history: History, value: float) -> int:
    """Return the step of the first of the newest measurements in a row whose loss is below a value."""
    since = history.last.step
    for one in reversed(history.measurements):
        if one.held_out_loss >= value:
            break
        since = one.step
    return since


def trend(history: History) -> str:
    """Return whether the held-out loss is still falling."""
    losses = [one.held_out_loss for one in history.measurements]
    if len(losses) < 2 or losses[-1] < (1 - CONVERGED_CHANGE) * losses[-2]:
        return "learning"
    if losses[-1] > (1 + CONVERGED_CHANGE) * losses[-2]:
        return "rising again"
    return "no longer falling" if len(losses) >= _FEW else "no change yet"


def baselines_line(beginning: Beginning) -> str:
    """Return the losses that need no learning, for a line on the console."""
    values = ", ".join(f"{NAMES[name]} {value:.4f}" for name, value in beginning.baselines.items())
    clips = f"{beginning.num_clips} clips that are {'held out' if beginning.unseen else 'also trained on'}"
    return f"monitor: {clips}; losses without learning: {values}"
