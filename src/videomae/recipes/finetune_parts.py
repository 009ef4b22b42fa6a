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
    """Folder with one subfolder of videos per class or with labels.csv, or manifest (.csv, .parquet)."""
    val: Path | None = None
    """The same for validation; null: the val split of train, else split by a stable hash of groups or file names."""
    val_fraction: float = 0.2
    """Fraction of each class to use for validation if val is null, in (0, 1)."""
    skip: Path | None = None
    """File that lists videos of train, val and test to leave out, one path per line, such as skip.txt from
    `videomae data check`."""
    test: Path | None = None
    """Videos to evaluate on after the last step (of a manifest, the test split); null: the validation videos."""
    values: str | None = None
    """Manifest columns of numbers to predict (regression), separated by commas; null: predict the labels."""
    sampling: Literal["all", "balanced"] = "all"
    """all: every training video once per epoch; balanced: every class equally often."""
    folds: int | None = None
    """Number of cross-validation folds of train, groups kept together; for each, a model is trained on the others."""
    fold: int | None = None
    """Train a model for this fold only, from 1 to folds; null: for all folds, one after another."""
    decoder: DecoderName = "pyav"
    """Video decoding backend for training; torchcodec and torchcodec-cuda must be installed."""

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
    """Type of the outputs; null: regression with data.values, multi-label if a video has several labels, else
    single-label."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight each class in the loss by the inverse of its number of videos."""
    freeze: int = 0
    """Number of lower blocks to freeze, together with the patch embedding; 0: none; the number of blocks: the whole
    encoder."""

    drop_path_rate: float = 0.1
    """Drop path (stochastic depth) rate of the encoder."""
    dropout: float = 0.0
    """Dropout rate before the classifier."""
    init_scale: float = 0.001
    """Scale of the classifier's random initial weights; a small one starts training from almost equal logits."""
    label_smoothing: float = 0.1
    """Label smoothing: fraction of each target to spread over all classes."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.freeze < 0:
            raise ConfigError(f"head.freeze is {self.freeze}; use 0 to train all blocks, or a number of lower blocks")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights; merged into them in the model that is saved. Needs videomae[lora]."""

    rank: int | None = None
    """Rank of the adapters, such as 16; null: no adapters, train the weights themselves."""
    alpha: float = 32.0
    """Scale: the output of an adapter is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout rate of the adapters' input, in [0, 1)."""
    targets: str = "query,value"
    """Layers that get an adapter, separated by commas: query, key, value, dense (attention output and MLP)."""

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
