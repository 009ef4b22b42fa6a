"""The parts of a fine-tuning recipe that no lower package owns: its data, its head, its adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videomae.data.configs import ProblemType
from videomae.errors import ConfigError
from videomae.video.addresses import video_path
from videomae.video.decoders import DecoderName


@dataclass(frozen=True)
class FinetuneData:
    """Where the labelled videos are."""

    train: Path
    """A folder with one folder of videos for each class or with labels.csv, or a manifest file."""
    val: Path | None = None
    """The same for validation; null: the split val of train, else a stable hash of groups or file names decides."""
    val_fraction: float = 0.2
    """Fraction of each class for validation where val is null, in (0, 1)."""
    skip: Path | None = None
    """A list of videos of train and val to leave out, one path a line, such as skip.txt of `videomae data check`."""
    test: Path | None = None
    """Videos for the evaluation after the last step, of which a manifest's split test is taken; null: val's."""
    values: str | None = None
    """Columns of the manifest whose numbers are to be predicted, with commas between them; null: its labels are."""
    sampling: Literal["all", "balanced"] = "all"
    """all: every training video once an epoch; balanced: every class equally often."""
    folds: int | None = None
    """Divide train into so many parts, groups kept together; for each a model is trained on the others."""
    fold: int | None = None
    """The one part to train a model for, from 1 to folds; null: all, one after the other."""
    decoder: DecoderName = "pyav"
    """What decodes the videos that are trained on; torchcodec and torchcodec-cuda have to be installed."""

    def __post_init__(self) -> None:
        """Make addresses whole that a path has lost a slash of; check that folds leave something to train on."""
        for name in ("train", "val", "test"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else video_path(value))
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"data.folds is {self.folds}; use at least 2, or null to divide by val_fraction")
        if self.fold is not None and (self.folds is None or not 1 <= self.fold <= self.folds):
            raise ConfigError(f"data.fold is {self.fold}; it is one of data.folds, {self.folds}, counted from 1")
        if self.folds is not None and self.val is not None:
            raise ConfigError(
                f"data.val is {self.val}, and data.folds {self.folds} validates on parts of data.train: leave one out"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in `values`."""
        return tuple(name.strip() for name in (self.values or "").split(",") if name.strip())


@dataclass(frozen=True)
class HeadConfig:
    """The classifier's own settings."""

    problem_type: ProblemType | None = None
    """What the outputs are; null: several labels where a video of the manifest has more than one, else one class."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: classes weigh in the loss by the inverse of their numbers of videos."""
    freeze: int = 0
    """Lower blocks that are not trained, with the patch embedding; 0: none, the number of blocks: the encoder."""

    drop_path_rate: float = 0.1
    """Stochastic depth of the encoder."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    init_scale: float = 0.001
    """Factor on the classifier's random weights, so that training starts from almost equal logits."""
    label_smoothing: float = 0.1
    """Fraction of each target that is spread over all classes."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.freeze < 0:
            raise ConfigError(f"head.freeze is {self.freeze}; use 0 to train all blocks, or a number of lower blocks")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights; merged into them in the model that is saved. Needs videomae[lora]."""

    rank: int | None = None
    """Rank of an adapter, such as 16; null: no adapters, the weights themselves are trained."""
    alpha: float = 32.0
    """An adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Of an adapter's input, in [0, 1)."""
    targets: str = "query,value"
    """Layers that get one, with commas: query, key, value, dense (the output of attention, and the MLP)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; use at least 1, such as 16, or null for no adapters")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"lora.dropout is {self.dropout:g}; it is in [0, 1)")
        unknown = set(self.layers) - {"query", "key", "value", "dense"}
        if unknown or not self.layers:
            raise ConfigError(f"lora.targets is {self.targets!r}; name some of query, key, value, dense, with commas")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in `targets`."""
        return tuple(name.strip() for name in self.targets.split(",") if name.strip())
