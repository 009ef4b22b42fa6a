"""The probes over the outer folds, and everything that is said about their predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.engine.seeding import derive_seed, numpy_generator
from videomae.evaluation.metrics import Interval
from videomae.probing.advice import advice
from videomae.probing.attentive import choose_attentive_penalty, fit_attentive
from videomae.probing.configs import ProbeConfig
from videomae.probing.extraction import Features
from videomae.probing.folds import Fold, group_folds
from videomae.probing.linear import choose_neighbours, choose_penalty, fit_linear, neighbour_probabilities
from videomae.probing.measures import (
    Bin,
    LearningCurve,
    accuracy_interval,
    doubling_gain,
    fit_curve,
    group_draws,
    percentiles,
    reliability,
)
from videomae.probing.results import CurvePoint, ProbeAccuracy
from videomae.probing.videos import ProbeVideos

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CURVE_FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training videos of a fold
CURVE_REPEATS = 4  # random choices of videos, in each fold
GAIN_DRAWS = 400  # bootstrap samples for which the curve is fitted again


@dataclass(frozen=True)
class Measured:
    """What the folds gave; see `ProbeResult`."""

    folds: int
    majority: float
    probes: tuple[ProbeAccuracy, ...]
    linear_probabilities: FloatArray
    """`[n, K]`, of each video by the fold that did not see its group."""
    calibration_error: float
    reliability: tuple[Bin, ...]
    curve: tuple[CurvePoint, ...]
    curve_fit: LearningCurve
    gain: float
    gain_interval: Interval
    advice: str
    seconds: dict[str, float]


def measure(features: Features, videos: ProbeVideos, config: ProbeConfig, *, tell: Callable[[str], None]) -> Measured:
    """Fit and judge all probes.

    Args:
        features: Of the videos.
        videos: Labels and groups, in the same order.
        config: Folds and seed.
        tell: Takes a line about each probe that is done.
    """
    labels, groups = videos.labels, videos.group_ids
    folds = list(group_folds(labels, groups, folds=config.folds, seed=config.seed))
    found: dict[str, FloatArray] = {}
    choices: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    kinds = ("linear", "k-NN", "attentive") if config.attentive else ("linear", "k-NN")
    for kind in kinds:
        began = time.monotonic()
        found[kind], choices[kind] = _out_of_fold(kind, features, labels, groups, folds, config.seed, tell)
        seconds[kind] = time.monotonic() - began
        tell(f"{kind}: {(found[kind].argmax(axis=1) == labels).mean():.1%}, {seconds[kind]:.0f} s")
    probes = tuple(_judged(kind, found, choices, labels, groups, config.seed) for kind in kinds)
    began = time.monotonic()
    numbers, right = learning_curve(features.pooled, labels, groups, folds, choices["linear"], config.seed)
    seconds["learning curve"] = time.monotonic() - began
    total, rng = len(labels), numpy_generator(config.seed, "gain")
    fitted = fit_curve(numbers, 1 - right.mean(axis=1))
    draws = group_draws(right, groups, rng=rng)  # [draws, points]
    gains = np.asarray([doubling_gain(fit_curve(numbers, 1 - row), total) for row in draws[:GAIN_DRAWS]])
    gain, gain_interval = doubling_gain(fitted, total), percentiles(gains)
    majority = float(np.bincount(labels).max() / total)
    error, bins = reliability(found["linear"], labels)
    best = max(probes, key=lambda one: one.accuracy)
    return Measured(
        folds=len(folds),
        majority=majority,
        probes=probes,
        linear_probabilities=found["linear"],
        calibration_error=error,
        reliability=bins,
        curve=tuple(
            CurvePoint(round(float(number)), float(row.mean()), percentiles(draws[:, place]))
            for place, (number, row) in enumerate(zip(numbers, right, strict=True))
        ),
        curve_fit=fitted,
        gain=gain,
        gain_interval=gain_interval,
        advice=advice(
            best=best.name,
            accuracy=best.accuracy,
            interval=best.interval,
            majority=majority,
            gain=gain,
            gain_interval=gain_interval,
            labels=total,
        ),
        seconds=seconds,
    )


def learning_curve(
    features: FloatArray,
    labels: IntArray,
    groups: IntArray,
    folds: Sequence[Fold],
    penalties: Sequence[float],
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """Train the linear probe on fewer and fewer of each fold's training videos.

    The penalty stays that of the fold: it is a prior on the weights, which does not depend on how many videos there
    are.

    Returns:
        Numbers of training videos, mean over the folds, `[k]`; and for each how often each video was classified
        correctly, `[k, n]` in [0, 1].
    """
    num_classes = len(np.unique(labels))
    numbers, right = list[float](), list[FloatArray]()
    for fraction in CURVE_FRACTIONS:
        counts, correct = list[int](), np.zeros(len(labels))
        repeats = 1 if fraction == 1 else CURVE_REPEATS
        for place, (fold, penalty) in enumerate(zip(folds, penalties, strict=True)):
            for repeat in range(repeats):
                rng = numpy_generator(seed, "curve", place, repeat)
                rows = some_of_each_class(fold.train, labels, fraction, rng=rng)
                probe = fit_linear(features[rows], labels[rows], penalty=penalty, num_classes=num_classes)
                answers = probe.probabilities(features[fold.test]).argmax(axis=1)
                correct[fold.test] += (answers == labels[fold.test]) / repeats
                counts.append(len(rows))
        number = float(np.mean(counts))
        if not numbers or number > numbers[-1]:  # of very few videos, the smallest fractions are alike
            numbers.append(number)
            right.append(correct)
    return np.asarray(numbers), np.stack(right)


def some_of_each_class(rows: IntArray, labels: IntArray, fraction: float, *, rng: np.random.Generator) -> IntArray:
    """Draw this fraction of the rows of each class, at least one of each."""
    parts = []
    for label in np.unique(labels[rows]):
        own = rng.permutation(rows[labels[rows] == label])
        parts.append(own[: max(round(fraction * len(own)), 1)])
    return np.sort(np.concatenate(parts))


def _out_of_fold(
    kind: str,
    features: Features,
    labels: IntArray,
    groups: IntArray,
    folds: Sequence[Fold],
    seed: int,
    tell: Callable[[str], None],
) -> tuple[FloatArray, list[float]]:
    """Return the probabilities of each video by the fold that did not train on it, and what each fold chose."""
    num_classes = len(np.unique(labels))
    probabilities, choices = np.zeros((len(labels), num_classes)), list[float]()
    for number, (train, test) in enumerate(folds):
        inner = derive_seed(seed, "inner", number)
        known = (labels[train], groups[train])
        match kind:
            case "linear":
                pooled = features.pooled[train]
                chosen: float = choose_penalty(pooled, *known, num_classes=num_classes, seed=inner)
                probe = fit_linear(pooled, labels[train], penalty=chosen, num_classes=num_classes)
                probabilities[test] = probe.probabilities(features.pooled[test])
            case "k-NN":
                pooled, asked = features.pooled[train], features.pooled[test]
                k = choose_neighbours(pooled, *known, num_classes=num_classes, seed=inner)
                chosen = k
                probabilities[test] = neighbour_probabilities(
                    pooled, labels[train], asked, k=k, num_classes=num_classes
                )
            case _:
                tokens = features.tokens[torch.from_numpy(train)]
                chosen = choose_attentive_penalty(tokens, *known, num_classes=num_classes, seed=inner)
                attentive = fit_attentive(tokens, labels[train], penalty=chosen, num_classes=num_classes, seed=inner)
                probabilities[test] = attentive.probabilities(features.tokens[torch.from_numpy(test)])
                tell(f"attentive: fold {number + 1} of {len(folds)}")
        choices.append(chosen)
    return probabilities, choices


def _judged(
    kind: str,
    found: dict[str, FloatArray],
    choices: dict[str, list[float]],
    labels: IntArray,
    groups: IntArray,
    seed: int,
) -> ProbeAccuracy:
    correct, linear = (found[name].argmax(axis=1) == labels for name in (kind, "linear"))
    difference = None
    if kind != "linear":
        paired = correct.astype(np.float64) - linear
        draws = group_draws(paired[None], groups, rng=numpy_generator(seed, "difference"))[:, 0]
        difference = (float(paired.mean()), percentiles(draws))
    return ProbeAccuracy(
        name=kind,
        accuracy=float(correct.mean()),
        interval=accuracy_interval(correct, groups, rng=numpy_generator(seed, "interval")),
        chosen=tuple(choices[kind]),
        minus_linear=difference,
    )
