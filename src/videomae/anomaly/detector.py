"""A detector: what ordinary footage measures, and from where on a window counts as unusual.

Two numbers are taken of a window. `distance` is Mahalanobis' in feature space, with the covariance of Ledoit and Wolf
(2004), which stays invertible with fewer windows than dimensions. `error` compares the reconstruction error at each
position with that position's mean and standard deviation in ordinary footage, and is the mean of the most unusual
twentieth of the positions. Each is divided by its spread in ordinary footage; `score` is their mean.

The threshold is that of split conformal prediction (Vovk et al. 2005): of n windows that the parameters were not
fitted on, the `ceil((n + 1) (1 - rate))`-th smallest score. So of ordinary windows drawn as those were, at most the
stated fraction is above it, in the mean over footage to fit on. Windows that were not fitted on are had by leaving
each fifth of the videos out in turn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from videomae.anomaly.configs import AnomalyConfig
from videomae.anomaly.measures import Float32, Float64, WindowMeasures
from videomae.atomic import atomic_file
from videomae.errors import ConfigError, RunError

FOLDS = 5
TOP_FRACTION = 0.05  # of the positions, whose mean is the error score
MIN_WINDOWS = 20  # fewer tell no spread
FORMAT = 1


class Scores(NamedTuple):
    """How unusual windows are; ordinary ones are around 1."""

    score: Float64
    """`[n]`, the mean of the two others."""
    distance: Float64
    """`[n]`, in feature space."""
    error: Float64
    """`[n]`, of the reconstruction."""
    maps: Float32
    """`[n, h, w]`, the error at each position in standard deviations from that position's mean."""


class Parameters(NamedTuple):
    """What ordinary windows measure."""

    feature_mean: Float64
    """`[D]`."""
    precision: Float64
    """`[D, D]`, the inverse covariance of the features."""
    error_mean: Float32
    """`[h, w]`."""
    error_std: Float32
    """`[h, w]`."""


@dataclass(frozen=True)
class Detector:
    """What was fitted, on which model, and how it is used."""

    parameters: Parameters
    """Fitted on all windows."""
    scales: tuple[float, float]
    """What distance and error are divided by: their medians over ordinary windows not fitted on."""
    calibration: Float64
    """`[n]`, ascending: scores of those windows."""
    config: AnomalyConfig
    """How windows were measured."""
    model: str
    """Where the model came from."""
    weights: str
    """Digest of its weights."""
    clip: dict[str, Any] = field(default_factory=dict)
    """How its clips were sampled."""
    num_videos: int = 0
    """Videos that it was fitted on."""

    @property
    def threshold(self) -> float:
        """Score above which a window counts as unusual, for `config.false_alarms`."""
        return conformal_threshold(self.calibration, self.config.false_alarms)

    def scores(self, measures: WindowMeasures) -> Scores:
        """Tell how unusual windows are."""
        distance, error, maps = raw_scores(self.parameters, measures.features, measures.errors)
        distance, error = distance / self.scales[0], error / self.scales[1]
        return Scores((distance + error) / 2, distance, error, maps)

    def save(self, path: Path) -> None:
        """Write the detector into one .npz file, atomically.

        Raises:
            RunError: If it cannot be written.
        """
        settings = {
            "format": FORMAT,
            "scales": self.scales,
            "config": asdict(self.config),
            **{name: getattr(self, name) for name in ("model", "weights", "clip", "num_videos")},
        }
        arrays = {**self.parameters._asdict(), "calibration": self.calibration, "settings": json.dumps(settings)}
        try:
            with atomic_file(path) as stream:
                np.savez(stream, **arrays)
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror or error}): free space") from None


def load_detector(path: Path) -> Detector:
    """Read what `Detector.save` wrote.

    Raises:
        ConfigError: If it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            settings = json.loads(str(arrays["settings"]))
            parameters = Parameters(*(arrays[name] for name in Parameters._fields))
            return Detector(
                parameters,
                tuple(settings["scales"]),
                arrays["calibration"],
                AnomalyConfig(**settings["config"]),
                settings["model"],
                settings["weights"],
                settings["clip"],
                settings["num_videos"],
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} is no anomaly detector ({reason}): give a file that videomae anomaly fit wrote"
        ) from None


def fit_detector(
    measures: Sequence[WindowMeasures],
    config: AnomalyConfig,
    *,
    groups: Sequence[str] | None = None,
    model: str = "",
    weights: str = "",
    clip: dict[str, Any] | None = None,
) -> Detector:
    """Fit a detector.

    Args:
        measures: Of ordinary videos, one entry for each.
        config: How they were measured, and the rate of false alarms.
        groups: Of each video; those of one group are left out together. None: each is its own group.
        model: Where the model came from.
        weights: Digest of its weights.
        clip: How its clips were sampled.

    Raises:
        ConfigError: If there are too few windows to fit, or for the rate of false alarms.
    """
    whole = WindowMeasures.joined(list(measures))
    folds = _folds([len(one.starts) for one in measures], groups or [str(n) for n in range(len(measures))])
    n = len(whole.starts)
    if n < MIN_WINDOWS:
        raise ConfigError(
            f"ordinary footage has {n} windows, too few to tell what is usual: give at least {MIN_WINDOWS}, by more "
            "footage or a smaller --step"
        )
    conformal_rank(n, config.false_alarms)
    distance, error = np.empty(n), np.empty(n)
    for fold in range(folds.max() + 1):
        out = folds == fold
        fitted = fit_parameters(whole.features[~out], whole.errors[~out])
        distance[out], error[out], _ = raw_scores(fitted, whole.features[out], whole.errors[out])
    scales = (float(np.median(distance)), max(float(np.median(error)), 1e-6))
    calibration = np.sort((distance / scales[0] + error / scales[1]) / 2)
    parameters = fit_parameters(whole.features, whole.errors)
    return Detector(parameters, scales, calibration, config, model, weights, clip or {}, len(measures))


def fit_parameters(features: Float32, errors: Float32) -> Parameters:
    """Fit what ordinary windows measure, from features `[n, D]` and errors `[n, h, w]`."""
    covariance = LedoitWolf().fit(features.astype(np.float64))
    # A position where nothing ever happens has hardly any spread, and noise there would count as unusual.
    std = errors.std(axis=0)
    smallest = 0.1 * float(np.median(std)) + 1e-6
    return Parameters(covariance.location_, covariance.precision_, errors.mean(axis=0), np.maximum(std, smallest))


def raw_scores(parameters: Parameters, features: Float32, errors: Float32) -> tuple[Float64, Float64, Float32]:
    """Return distance `[n]`, error score `[n]` and maps `[n, h, w]`."""
    centred = features - parameters.feature_mean
    squared = np.einsum("nd,de,ne->n", centred, parameters.precision, centred)
    distance = np.sqrt(np.maximum(squared, 0.0) / features.shape[1])
    maps = (errors - parameters.error_mean) / parameters.error_std
    flat = np.sort(maps.reshape(len(maps), -1), axis=1)
    top = max(1, round(TOP_FRACTION * flat.shape[1]))
    return distance, np.maximum(flat[:, -top:].mean(axis=1), 0.0).astype(np.float64), maps.astype(np.float32)


def conformal_rank(count: int, rate: float) -> int:
    """Return which of `count` ascending scores is the threshold for a rate of false alarms, counted from 1.

    Raises:
        ConfigError: If there are too few for that rate.
    """
    rank = math.ceil((count + 1) * (1 - rate) - 1e-9)
    if rank > count:
        needed = math.ceil(1 / rate - 1e-9) - 1
        raise ConfigError(
            f"false_alarms is {rate:g}, for which at least {needed} windows of ordinary footage are needed, and "
            f"there are {count}: give more footage, a smaller --step or a rate of at least {1 / (count + 1):.3g}"
        )
    return max(rank, 1)


def conformal_threshold(calibration: Float64, rate: float) -> float:
    """Return the score above which at most this fraction of ordinary windows lies; see the head of this file."""
    return float(calibration[conformal_rank(len(calibration), rate) - 1])


def _folds(counts: Sequence[int], groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each window: by groups where there are enough of them, else by stretches of time."""
    names = sorted(set(groups))
    if len(names) >= FOLDS:
        of_group = {name: number * FOLDS // len(names) for number, name in enumerate(names)}
        return np.repeat([of_group[name] for name in groups], counts)
    total = int(np.sum(counts))
    return np.arange(total) * FOLDS // max(total, 1)
